"""VocalSound, Vocal Imitation, VoxCeleb1 and VoxLingua107's 33 languages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from uwbench.audio.clip import AudioFile, Clip
from uwbench.base.hashing import sha256_bytes
from uwbench.cards.card import Card
from uwbench.cards.find import load_vocabulary
from uwbench.errors import DataError
from uwbench.sources.dataset import Reading
from uwbench.sources.layouts.base import (
    Layout,
    first_existing,
    has,
    read_lines,
    read_rows,
    read_table,
    shuffled_folds,
    visible,
)

_VOCALSOUND_NAME = re.compile(r"([fm]\d{4})_(\w+)_([a-z]+)")
_VOX_UTTERANCE = re.compile(r"(id\d{5})[/_-](.{11})[/_-](\d{5})")
_VOXLINGUA_VIDEO = re.compile(r"(?:^|/)([^/]+?)__U__")
_VOXLINGUA_CLIPS = 2_000  # training clips a language

_SPLIT_OF_VOX = {"1": "train", "2": "valid", "3": "test"}


def _read_vocalsound(root: Path, _card: Card) -> Reading:
    """Read `<speaker>_<session>_<sound>.wav`; speakers are split by `meta/{tr,val,te}_meta.csv`."""
    split_of: dict[str, str] = {}
    for split, name in (("train", "tr"), ("valid", "val"), ("test", "te")):
        split_of |= {row[0].strip(): split for _, row in read_rows(root / "meta" / f"{name}_meta.csv")}
    audio = first_existing(root, "audio_16k", "audio_44k", "data_44k")
    clips, problems = [], []
    for file in visible(audio):
        if file.suffix.lower() != ".wav":
            continue
        name = _VOCALSOUND_NAME.fullmatch(file.stem)
        if name is None or name[1] not in split_of:
            problems.append(f"{file}: its speaker is in none of the lists in meta/")
            continue
        clips.append(Clip(file.stem, AudioFile(file), name[3], split=split_of[name[1]], group=name[1]))
    return Reading(tuple(clips), tuple(problems))


def _vocalsound_speaker(name: str, _record: Any) -> str | None:
    found = _VOCALSOUND_NAME.search(name)
    return found[1] if found else None


def _read_vocalimitation(root: Path, card: Card) -> Reading:
    """Read the included imitations; the publisher gives no folds, so they are dealt by file (`shuffled_folds`)."""
    wanted = ("imitation_filename", "reference_filename", "included", "participant_id")
    rows = [
        row
        for row in read_table(root / "vocal_imitations.txt", wanted, delimiter="\t")
        if row["included"].strip().lower() in ("true", "1")
    ]
    included = root / "vocal_imitations" / "included"
    file_of = {path.stem: path for path in included.rglob("*.[wW][aA][vV]") if not path.name.startswith(".")}
    labels = {row["imitation_filename"].removesuffix(".wav"): _reference(row) for row in rows}
    folds = shuffled_folds(labels, len(card.folds or ()))
    clips = []
    for row in rows:
        stem = row["imitation_filename"].removesuffix(".wav")
        path = file_of.pop(stem, included / f"{stem}.wav")
        group = row["participant_id"].strip() or None
        clips.append(Clip(stem, AudioFile(path), labels[stem], fold=folds[stem], group=group))
    extra = (
        f"{len(file_of)} files in {included} are not listed as included, first {min(file_of)}.wav" if file_of else None
    )
    return Reading(tuple(clips), (extra,) if extra else ())


def _reference(row: dict[str, str]) -> str:
    return row["reference_filename"].strip().removesuffix(".wav")


def _read_voxceleb(root: Path, _card: Card) -> Reading:
    """Read the identification split, which needs the development and the test archive."""
    table = first_existing(root, "iden_split.txt", "meta/iden_split.txt")
    clips = []
    for number, line in read_lines(table):
        part, _, name = line.partition(" ")
        pieces = name.split("/")
        if part not in _SPLIT_OF_VOX or len(pieces) != 3 or ".." in pieces:
            raise DataError(f"line {number}: needs 1, 2 or 3 and <speaker>/<video>/<file>.wav", where=table)
        group = f"{pieces[0]}/{pieces[1]}"
        clips.append(Clip(name, AudioFile(root / "wav" / name), pieces[0], split=_SPLIT_OF_VOX[part], group=group))
    return Reading(tuple(clips))


def _is_voxceleb(folder: Path) -> bool:
    lists = (folder / "iden_split.txt", folder / "meta" / "iden_split.txt")
    return (folder / "wav").is_dir() and any(path.is_file() for path in lists)


def _vox_video(name: str, _record: Any) -> str | None:
    found = _VOX_UTTERANCE.search(name)
    return f"{found[1]}/{found[2]}" if found else None


def _read_voxlingua(root: Path, card: Card) -> Reading:
    """Read dev/ whole and, of each language in it, the 2,000 training clips whose names hash lowest."""
    clips, missing = [], []
    for language in load_vocabulary(card.vocabulary or "voxlingua33"):
        for split, folder in (("train", root / language), ("test", root / "dev" / language)):
            if not folder.is_dir():
                missing.append(folder.relative_to(root).as_posix())
                continue
            files = [path for path in visible(folder) if path.suffix.lower() == ".wav"]
            if split == "train" and len(files) > _VOXLINGUA_CLIPS:
                files = sorted(sorted(files, key=_name_hash)[:_VOXLINGUA_CLIPS])
            for file in files:
                name = file.relative_to(root).as_posix()
                clips.append(Clip(name, AudioFile(file), language, split=split, group=_voxlingua_video(name, None)))
    return Reading(tuple(clips), (f"folders are missing: {', '.join(missing)}",) if missing else ())


def _name_hash(file: Path) -> str:
    return sha256_bytes(f"{file.parent.name}/{file.name}".encode())


def _voxlingua_video(name: str, _record: Any) -> str | None:
    found = _VOXLINGUA_VIDEO.search(name)
    return found[1] if found else None


VOCALSOUND = Layout(
    has("meta/te_meta.csv"),
    _read_vocalsound,
    "audio_16k/<speaker>_<session>_<sound>.wav; meta/{tr,val,te}_meta.csv",
    ("vs_release_16k", "vs_release_44k"),
    _vocalsound_speaker,
)
VOCALIMITATION = Layout(
    has("vocal_imitations.txt", "vocal_imitations/included"),
    _read_vocalimitation,
    "vocal_imitations.txt; vocal_imitations/included/*.wav",
    ("VocalImitationSet",),
)
VOXCELEB1 = Layout(
    _is_voxceleb,
    _read_voxceleb,
    "iden_split.txt (or meta/iden_split.txt); wav/<speaker>/<video>/<file>.wav",
    ("voxceleb",),
    _vox_video,
)
VOXLINGUA33 = Layout(
    has("dev/en", "en"),
    _read_voxlingua,
    "<language>/*.wav and dev/<language>/*.wav",
    ("voxlingua107",),
    _voxlingua_video,
)
