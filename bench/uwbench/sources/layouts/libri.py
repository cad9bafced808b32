"""LibriSpeech (transcripts and gender) and LibriCount, whose mixtures are made from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from uwbench.audio.clip import AudioFile, Clip
from uwbench.cards.card import Card
from uwbench.errors import DataError
from uwbench.sources.dataset import Reading
from uwbench.sources.layouts.base import Layout, audio_files, group_from, has, read_lines, shuffled_folds

_PARTS = {"train": "train-clean-100", "valid": "dev-clean", "test": "test-clean"}
_UTTERANCE = re.compile(r"(?:^|/)(\d+)-(\d+)-(\d+)$")
_MIXTURE = re.compile(r"(\d+)_(\w+)")


def _utterances(root: Path) -> Iterator[tuple[str, str, Path, str]]:
    """Yield (split, speaker, file, transcript) for every line of the transcript files."""
    for split, part in _PARTS.items():
        for table in sorted((root / part).glob("[0-9]*/[0-9]*/[0-9]*.trans.txt")):  # speaker, chapter
            for number, line in read_lines(table):
                name, _, text = line.partition(" ")
                if not text:
                    raise DataError(f"line {number}: no transcript", where=table)
                yield split, table.parents[1].name, table.parent / f"{name}.flac", text


def _read_asr(root: Path, _card: Card) -> Reading:
    return Reading(
        tuple(
            Clip(file.stem, AudioFile(file), text, split=split, group=speaker)
            for split, speaker, file, text in _utterances(root)
        )
    )


def _read_gender(root: Path, _card: Card) -> Reading:
    gender = {}
    for number, line in read_lines(root / "SPEAKERS.TXT"):
        if line.startswith(";"):
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) < 2 or fields[1] not in ("M", "F"):
            raise DataError(f"line {number}: must have a speaker and M or F", where=root / "SPEAKERS.TXT")
        gender[fields[0]] = fields[1]
    clips = []
    for split, speaker, file, _ in _utterances(root):
        if speaker not in gender:
            raise DataError(f"speaker {speaker} is not listed", where=root / "SPEAKERS.TXT")
        clips.append(Clip(file.stem, AudioFile(file), gender[speaker], split=split, group=speaker))
    return Reading(tuple(clips))


def _librispeech(read: Callable[[Path, Card], Reading], *more: str) -> Layout:
    return Layout(
        has("train-clean-100", "test-clean", *more),
        read,
        expects="{train-clean-100,dev-clean,test-clean}/<speaker>/<chapter>/*.flac, *.trans.txt; SPEAKERS.TXT",
        folders=("LibriSpeech", "librispeechmalefemale"),
        group_of=group_from(_UTTERANCE, field="speaker"),
    )


def _is_libricount(folder: Path) -> bool:
    for number, file in enumerate(folder.glob("[0-9]*_*.[wW][aA][vV]")):
        if _MIXTURE.fullmatch(file.stem) and file.with_suffix(".json").exists():
            return True
        if number > 20:
            return False
    return False


def _read_libricount(root: Path, card: Card) -> Reading:
    """Read `<speakers>_<id>.wav`. The publisher defines no folds, so that `shuffled_folds` deals them."""
    files, problems = {}, []
    for file in audio_files(root):
        if _MIXTURE.fullmatch(file.stem):
            files[file.stem] = file
        else:
            problems.append(f"{file}: is not a file name of LibriCount")
    labels = {stem: str(int(stem.partition("_")[0])) for stem in files}
    folds = shuffled_folds(labels, len(card.folds or ()))
    clips = tuple(Clip(stem, AudioFile(file), labels[stem], fold=folds[stem]) for stem, file in files.items())
    return Reading(clips, tuple(problems))


LIBRISPEECH_ASR = _librispeech(_read_asr)
LIBRISPEECH_MF = _librispeech(_read_gender, "SPEAKERS.TXT")
LIBRICOUNT = Layout(_is_libricount, _read_libricount, "test/<speakers>_<id>.wav and .json", ("LibriCount10-0dB",))
