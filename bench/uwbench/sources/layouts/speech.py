"""ASVspoof 2015, Fluent Speech Commands and Speech Commands v0.01."""

from __future__ import annotations

import re
from pathlib import Path

from uwbench.audio.clip import AudioFile, Clip
from uwbench.cards.card import Card
from uwbench.errors import DataError
from uwbench.sources.dataset import Reading
from uwbench.sources.layouts.base import (
    Layout,
    audio_files,
    first_existing,
    group_from,
    has,
    read_lines,
    read_table,
    visible,
)

_ASV_PROTOCOLS = {"train": "cm_train.trn", "valid": "cm_develop.ndx", "test": "cm_evaluation.ndx"}
_speaker_hash = group_from(re.compile(r"([0-9a-f]{8})_nohash_\d+$"))


def _read_asvspoof(root: Path, _card: Card) -> Reading:
    clips = []
    for split, name in _ASV_PROTOCOLS.items():
        protocol = first_existing(root / "CM_protocol", name, f"{name}.txt")
        for number, line in read_lines(protocol):
            fields = line.split()
            if len(fields) != 4:
                raise DataError(f"line {number}: must have a speaker, file, method, and human or spoof", where=protocol)
            speaker, file, _, label = fields
            path = root / "wav" / speaker / f"{file}.wav"
            clips.append(Clip(f"{speaker}/{file}", AudioFile(path), label, split=split, group=speaker))
    return Reading(tuple(clips))


def _read_fluent(root: Path, _card: Card) -> Reading:
    clips = []
    for split in ("train", "valid", "test"):
        table = root / "data" / f"{split}_data.csv"
        for row in read_table(table, ("path", "speakerId", "transcription")):
            file = AudioFile(root / row["path"])
            clips.append(Clip(row["path"], file, row["transcription"], split=split, group=row["speakerId"]))
    return Reading(tuple(clips))


def _read_speechcommands(root: Path, _card: Card) -> Reading:
    """Read one folder per word. Files in neither list are training data; `_background_noise_` is not a word."""
    split_of = {line: "valid" for _, line in read_lines(root / "validation_list.txt")}
    split_of |= {line: "test" for _, line in read_lines(root / "testing_list.txt")}
    clips = []
    for word in visible(root):
        if word.name.startswith("_") or not word.is_dir():
            continue
        for file in audio_files(word):
            name = f"{word.name}/{file.stem}.wav"  # as in the lists, whatever the case of the suffix
            group = _speaker_hash(f"{word.name}/{file.stem}", None)
            clips.append(Clip(name, AudioFile(file), word.name, split=split_of.pop(name, "train"), group=group))
    missing = [
        Clip(name, AudioFile(root / name), name.partition("/")[0], split=split) for name, split in split_of.items()
    ]
    return Reading((*clips, *missing))


ASVSPOOF2015 = Layout(
    has("CM_protocol", "wav"),
    _read_asvspoof,
    expects="CM_protocol/cm_train.trn, cm_develop.ndx, cm_evaluation.ndx; wav/<speaker>/<file>.wav",
)
FLUENT_SPEECH_COMMANDS = Layout(
    has("data/train_data.csv", "wavs"),
    _read_fluent,
    expects="data/{train,valid,test}_data.csv; wavs/speakers/<speaker>/<uuid>.wav",
    folders=("fluent_speech_commands_dataset",),
    group_of=group_from(field="speakerId"),
)
SPEECHCOMMANDS_V1 = Layout(
    has("validation_list.txt", "testing_list.txt"),
    _read_speechcommands,
    expects="<word>/<speaker>_nohash_<n>.wav; validation_list.txt, testing_list.txt",
    folders=("speech_commands_v0.01", "speech_commands"),
    group_of=_speaker_hash,
)
