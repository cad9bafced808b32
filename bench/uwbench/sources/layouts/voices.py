"""VocalSound, Vocal Imitation, VoxCeleb1, and 33 languages of VoxLingua107."""

from __future__ import annotations

import re
from pathlib import Path

from uwbench.audio.clip import AudioFile, Clip
from uwbench.base.hashing import sha256_bytes
from uwbench.cards.card import Card
from uwbench.cards.find import load_vocabulary
from uwbench.errors import DataError
from uwbench.sources.dataset import Reading
from uwbench.sources.layouts.base import (
    Layout,
    audio_files,
    first_existing,
    group_from,
    has,
    read_lines,
    read_rows,
    read_table,
    shuffled_folds,
)

_VOCALSOUND_NAME = re.compile(r"([fm]\d{4})_(\w+)_([a-z]+)")
_VOX_UTTERANCE = re.compile(r"(id\d{5})[/_-](.{11})[/_-](\d{5})")
_VOXLINGUA_CLIPS = 2_000  # training clips per language

_voxlingua_video = group_from(re.compile(r"(?:^|/)([^/]+?)__U__"))

_SPLIT_OF_VOX = {"1": "train", "2": "valid", "3": "test"}


def _read_vocalsound(root: Path, _card: Card) -> Reading:
    """Read `<speaker>_<session>_<sound>.wav`; `meta/{tr,val,te}_meta.csv` say each speaker's split."""
    split_of: dict[str, str] = {}
    for split, name in (("train", "tr"), ("valid", "val"), ("test", "te")):
        split_of |= {row[0]: split for _, row in read_rows(root / "meta" / f"{name}_meta.csv")}
    audio = first_existing(root, "audio_16k", "audio_44k", "data_44k")
    clips, problems = [], []
    for file in audio_files(audio):
        name = _VOCALSOUND_NAME.fullmatch(file.stem)
        if name is None or name[1] not in split_of:
            problems.append(f"{file}: its speaker is not in the lists in meta/")
            continue
        clips.append(Clip(file.stem, AudioFile(file), name[3], split=split_of[name[1]], group=name[1]))
    return Reading(tuple(clips), tuple(problems))


def _read_vocalimitation(root: Path, card: Card) -> Reading:
    """Read the included imitations. The publisher defines no folds, so that `shuffled_folds` deals them by file."""
    columns = ("imitation_filename", "reference_filename", "included", "participant_id")
    table = read_table(root / "vocal_imitations.txt", columns, delimiter="\t")
    rows = [row for row in table if row["included"].lower() in ("true", "1")]
    included = root / "vocal_imitations" / "included"
    file_of = {path.stem: path for path in included.rglob("*.[wW][aA][vV]") if not path.name.startswith(".")}
    labels = {_stem(row["imitation_filename"]): _stem(row["reference_filename"]) for row in rows}
    folds = shuffled_folds(labels, len(card.folds or ()))
    clips = []
    for row in rows:
        stem = _stem(row["imitation_filename"])
        path = file_of.pop(stem, included / f"{stem}.wav")
        clips.append(Clip(stem, AudioFile(path), labels[stem], fold=folds[stem], group=row["participant_id"] or None))
    problems = []
    if file_of:
        problems.append(f"{len(file_of)} files in {included} are not listed as included, first {min(file_of)}.wav")
    return Reading(tuple(clips), tuple(problems))


def _stem(name: str) -> str:
    return name.removesuffix(".wav")


def _read_voxceleb(root: Path, _card: Card) -> Reading:
    """Read the identification split, which needs both the development and the test archive."""
    table = first_existing(root, "iden_split.txt", "meta/iden_split.txt")
    clips = []
    for number, line in read_lines(table):
        part, _, name = line.partition(" ")
        pieces = name.split("/")
        if part not in _SPLIT_OF_VOX or len(pieces) != 3 or ".." in pieces:
            raise DataError(f"line {number}: must have 1, 2 or 3, and <speaker>/<video>/<file>.wav", where=table)
        group = f"{pieces[0]}/{pieces[1]}"
        clips.append(Clip(name, AudioFile(root / "wav" / name), pieces[0], split=_SPLIT_OF_VOX[part], group=group))
    return Reading(tuple(clips))


def _is_voxceleb(folder: Path) -> bool:
    lists = (folder / "iden_split.txt", folder / "meta" / "iden_split.txt")
    return (folder / "wav").is_dir() and any(path.is_file() for path in lists)


def _read_voxlingua(root: Path, card: Card) -> Reading:
    """Read all of dev/ and, for each language, the 2,000 training clips with the lowest hashes of their names."""
    clips, missing = [], []
    for language in load_vocabulary(card.vocabulary or "voxlingua33"):
        for split, folder in (("train", root / language), ("test", root / "dev" / language)):
            if not folder.is_dir():
                missing.append(folder.relative_to(root).as_posix())
                continue
            files = audio_files(folder)
            if split == "train" and len(files) > _VOXLINGUA_CLIPS:
                files = sorted(sorted(files, key=_name_hash)[:_VOXLINGUA_CLIPS])
            for file in files:
                name = file.relative_to(root).as_posix()
                clips.append(Clip(name, AudioFile(file), language, split=split, group=_voxlingua_video(name, None)))
    return Reading(tuple(clips), (f"folders are missing: {', '.join(missing)}",) if missing else ())


def _name_hash(file: Path) -> str:
    return sha256_bytes(f"{file.parent.name}/{file.name}".encode())


VOCALSOUND = Layout(
    has("meta/te_meta.csv"),
    _read_vocalsound,
    expects="audio_16k/<speaker>_<session>_<sound>.wav; meta/{tr,val,te}_meta.csv",
    folders=("vs_release_16k", "vs_release_44k"),
    group_of=group_from(_VOCALSOUND_NAME),
)
VOCALIMITATION = Layout(
    has("vocal_imitations.txt", "vocal_imitations/included"),
    _read_vocalimitation,
    expects="vocal_imitations.txt; vocal_imitations/included/*.wav",
    folders=("VocalImitationSet",),
)
VOXCELEB1 = Layout(
    _is_voxceleb,
    _read_voxceleb,
    expects="iden_split.txt (or meta/iden_split.txt); wav/<speaker>/<video>/<file>.wav",
    folders=("voxceleb",),
    group_of=group_from(_VOX_UTTERANCE, 1, 2),
)
VOXLINGUA33 = Layout(
    has("dev/en", "en"),
    _read_voxlingua,
    expects="<language>/*.wav and dev/<language>/*.wav",
    folders=("voxlingua107",),
    group_of=_voxlingua_video,
)
