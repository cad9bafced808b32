"""GTZAN, FMA small, NSynth and MAESTRO."""

from __future__ import annotations

import json
import re
from pathlib import Path

from uwbench.audio.clip import AudioFile, Clip
from uwbench.cards.card import Card
from uwbench.cards.find import load_vocabulary
from uwbench.errors import DataError
from uwbench.sources.dataset import Reading
from uwbench.sources.layouts.base import (
    Layout,
    audio_files,
    group_from,
    has,
    open_text,
    read_rows,
    read_table,
    shuffled_folds,
    visible,
)
from uwbench.sources.layouts.midi import read_notes

_GTZAN_NAME = re.compile(r"[a-z-]+\.\d{5}")
_NSYNTH_NOTE = re.compile(r"(?:^|/)([a-z_]+_\d{3})-\d{3}-\d{3}$")
_nsynth_instrument = group_from(_NSYNTH_NOTE, field="instrument_str")
_FMA_SPLITS = {"training": "train", "validation": "valid", "test": "test"}


def _is_gtzan(folder: Path) -> bool:
    return any(True for name in ("blues", "rock") for _ in (folder / name).glob(f"{name}.000*.[wWaA][aAuU]*"))


def _read_gtzan(root: Path, card: Card) -> Reading:
    """Read `<genre>/<genre>.000NN.wav`. The publisher defines no folds, so that `shuffled_folds` deals them."""
    files, labels, problems = {}, {}, []
    genres = load_vocabulary(card.vocabulary or "gtzan")
    for genre in visible(root):
        if not genre.is_dir() or _gtzan_genre(genre.name) not in genres:
            continue
        for file in audio_files(genre, ".wav", ".au"):
            if _GTZAN_NAME.fullmatch(file.stem):
                files[file.stem], labels[file.stem] = file, _gtzan_genre(genre.name)
            else:
                problems.append(f"{file}: is not a file name of GTZAN")
    folds = shuffled_folds(labels, len(card.folds or ()))
    clips = tuple(Clip(stem, AudioFile(file), labels[stem], fold=folds[stem]) for stem, file in files.items())
    return Reading(clips, tuple(problems))


def _gtzan_genre(name: str) -> str:
    return "hiphop" if name == "hip-hop" else name


def _read_fma(root: Path, _card: Card) -> Reading:
    """Read `tracks.csv`, whose header has two rows (group and name) and a third one that names the index."""
    table = root / "fma_metadata" / "tracks.csv"
    rows = read_rows(table)
    header = list(zip(next(rows, (0, []))[1], next(rows, (0, []))[1], strict=False))
    names = (("set", "split"), ("set", "subset"), ("track", "genre_top"), ("artist", "id"))
    missing = [".".join(name) for name in names if name not in header]
    if missing:
        raise DataError(f"the column {missing[0]} is missing", where=table)
    columns = [header.index(name) for name in names]
    clips, problems = [], []
    for number, row in rows:
        if not row[0].isdecimal():
            continue
        if len(row) <= max(columns):
            raise DataError(f"line {number}: too few values", where=table)
        split, subset, genre, artist = (row[column] for column in columns)
        if subset != "small":
            continue
        if split not in _FMA_SPLITS:
            problems.append(f"track {row[0]} is in the split {split!r} and is left out")
            continue
        name = f"{int(row[0]):06d}"
        path = root / "fma_small" / name[:3] / f"{name}.mp3"
        clips.append(Clip(name, AudioFile(path), genre, split=_FMA_SPLITS[split], group=artist or None))
    return Reading(tuple(clips), tuple(problems))


def _read_nsynth(root: Path, _card: Card) -> Reading:
    clips = []
    for split in ("train", "valid", "test"):
        table = root / f"nsynth-{split}" / "examples.json"
        try:
            with open_text(table) as file:
                examples = json.load(file)
            for name, note in examples.items():
                path = table.parent / "audio" / f"{name}.wav"
                label = note["instrument_family_str"]
                clips.append(Clip(name, AudioFile(path), label, split=split, group=_nsynth_instrument(name, note)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"is not the expected JSON ({error!r})", where=table) from error
    return Reading(tuple(clips))


def _read_maestro(root: Path, _card: Card) -> Reading:
    """Read the performances and their notes. The group is the composition, which is never in two splits."""
    table = sorted(root.glob("maestro-v*.csv"))[-1]
    split_of = {"train": "train", "validation": "valid", "test": "test"}
    columns = ("canonical_composer", "canonical_title", "split", "midi_filename", "audio_filename")
    clips = []
    for row in read_table(table, columns):
        if row["split"] not in split_of:
            raise DataError(f"{row['audio_filename']}: the split {row['split']!r} is unknown", where=table)
        clips.append(
            Clip(
                row["audio_filename"],
                AudioFile(root / row["audio_filename"]),
                read_notes(root / row["midi_filename"]),
                split=split_of[row["split"]],
                group=f"{row['canonical_composer']}: {row['canonical_title']}",
            )
        )
    return Reading(tuple(clips))


GTZAN = Layout(
    _is_gtzan,
    _read_gtzan,
    expects="<genre>/<genre>.000NN.wav",
    folders=("gtzan_genre", "genres", "genres_original"),
)
FMA_SMALL = Layout(
    has("fma_metadata/tracks.csv", "fma_small"),
    _read_fma,
    expects="fma_small/<ttt>/<tttttt>.mp3; fma_metadata/tracks.csv",
    folders=("fma",),
)
NSYNTH = Layout(
    has("nsynth-train", "nsynth-test"),
    _read_nsynth,
    expects="nsynth-{train,valid,test}/examples.json and audio/*.wav",
    group_of=_nsynth_instrument,
)
MAESTRO = Layout(
    has("maestro-v*.csv"),
    _read_maestro,
    expects="maestro-v3.0.0.csv; <year>/*.wav and *.midi",
    folders=("maestro-v3.0.0",),
)
