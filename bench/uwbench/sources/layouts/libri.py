"""LibriSpeech (transcripts and gender) and LibriCount, which is mixed from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from uwbench.audio.clip import AudioFile, Clip
from uwbench.cards.card import Card
from uwbench.errors import DataError
from uwbench.sources.dataset import Reading
from uwbench.sources.layouts.base import Layout, has, read_lines, shuffled_folds, visible

_PARTS = {"train": "train-clean-100", "valid": "dev-clean", "test": "test-clean"}
_UTTERANCE = re.compile(r"(?:^|/)(\d+)-(\d+)-(\d+)$")
_MIXTURE = re.compile(r"(\d+)_(\w+)")


def _utterances(root: Path) -> Iterator[tuple[str, str, Path, str]]:
    """Yield (split, speaker, file, transcript) for every line of every transcript file."""
    for split, part in _PARTS.items():
        for speaker in visible(root / part) if (root / part).is_dir() else ():
            for chapter in visible(speaker) if speaker.is_dir() else ():
                for table in sorted(chapter.glob("[0-9]*.trans.txt")):
                    for number, line in read_lines(table):
                        name, _, text = line.partition(" ")
                        if not text:
                            raise DataError(f"line {number}: no transcript", where=table)
                        yield split, speaker.name, chapter / f"{name}.flac", text


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
            raise DataError(f"line {number}: needs a speaker and M or F", where=root / "SPEAKERS.TXT")
        gender[fields[0]] = fields[1]
    clips = []
    for split, speaker, file, _ in _utterances(root):
        if speaker not in gender:
            raise DataError(f"speaker {speaker} is not listed", where=root / "SPEAKERS.TXT")
        clips.append(Clip(file.stem, AudioFile(file), gender[speaker], split=split, group=speaker))
    return Reading(tuple(clips))


def _speaker(name: str, record: Any) -> str | None:
    if isinstance(record, dict) and record.get("speaker") not in (None, ""):
        return str(record["speaker"])
    found = _UTTERANCE.search(name)
    return found[1] if found else None


def _librispeech(read: Callable[[Path, Card], Reading], *more: str) -> Layout:
    return Layout(
        has("train-clean-100", "test-clean", *more),
        read,
        "{train-clean-100,dev-clean,test-clean}/<speaker>/<chapter>/*.flac, *.trans.txt; SPEAKERS.TXT",
        ("LibriSpeech", "librispeechmalefemale"),
        _speaker,
    )


def _is_libricount(folder: Path) -> bool:
    for number, file in enumerate(folder.glob("[0-9]*_*.[wW][aA][vV]")):
        if _MIXTURE.fullmatch(file.stem) and file.with_suffix(".json").exists():
            return True
        if number > 20:
            return False
    return False


def _read_libricount(root: Path, card: Card) -> Reading:
    """Read `<speakers>_<id>.wav`; the publisher gives no folds, so they are dealt (`shuffled_folds`)."""
    files, problems = {}, []
    for file in visible(root):
        if file.suffix.lower() != ".wav":
            continue
        if _MIXTURE.fullmatch(file.stem):
            files[file.stem] = file
        else:
            problems.append(f"{file}: the name is not one of LibriCount")
    labels = {stem: str(int(stem.partition("_")[0])) for stem in files}
    folds = shuffled_folds(labels, len(card.folds or ()))
    return Reading(
        tuple(Clip(stem, AudioFile(file), labels[stem], fold=folds[stem]) for stem, file in files.items()),
        tuple(problems),
    )


LIBRISPEECH_ASR = _librispeech(_read_asr)
LIBRISPEECH_MF = _librispeech(_read_gender, "SPEAKERS.TXT")
LIBRICOUNT = Layout(_is_libricount, _read_libricount, "test/<speakers>_<id>.wav and .json", ("LibriCount10-0dB",))
