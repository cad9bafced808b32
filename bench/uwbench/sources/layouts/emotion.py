"""RAVDESS and CREMA-D: acted emotions, with all labels in the file names."""

from __future__ import annotations

import re
from pathlib import Path

from uwbench.audio.clip import AudioFile, Clip
from uwbench.cards.card import Card
from uwbench.sources.dataset import Reading
from uwbench.sources.layouts.base import Layout, audio_files, group_from, has, visible

# modality (03 audio only) - channel (01 speech) - emotion - intensity - statement - repetition - actor
_RAVDESS_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
_RAVDESS_EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
_RAVDESS_ACTOR_FOLDER = re.compile(r"Actor_\d\d", re.IGNORECASE)

_CREMAD_NAME = re.compile(r"(1\d{3})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})")
_CREMAD_EMOTIONS = {
    "HAP": "happy",
    "SAD": "sad",
    "ANG": "angry",
    "FEA": "fearful",
    "DIS": "disgust",
    "NEU": "neutral",
}
# The speaker-disjoint split of TensorFlow Datasets (crema_d 1.0.0): actors 1001 to 1091, shuffled by numpy's
# RandomState(0); the first 63 are train, the next 9 valid, the last 19 test.
_CREMAD_VALID = frozenset({1015, 1020, 1021, 1030, 1050, 1070, 1079, 1089, 1090})
_CREMAD_TEST = frozenset(
    {1010, 1013, 1022, 1026, 1037, 1038, 1040, 1045, 1047, 1048, 1059, 1065, 1066, 1068, 1071, 1073, 1084, 1086, 1088}
)


def ravdess_fold(actor: int) -> str:
    """Return the fold of an actor, 1 to 24: pairs of a man (odd) and a woman (even) alternate over the four folds."""
    return str((actor - 1) // 2 % 4)


def _is_ravdess(folder: Path) -> bool:
    actors = (path for path in folder.glob("[Aa]ctor_*") if _RAVDESS_ACTOR_FOLDER.fullmatch(path.name))
    return any(True for actor in actors for _ in actor.glob("03-01-*.[wW][aA][vV]"))


def _read_ravdess(root: Path, _card: Card) -> Reading:
    clips, others, problems = [], [], []
    folders = [path for path in visible(root) if _RAVDESS_ACTOR_FOLDER.fullmatch(path.name) and path.is_dir()]
    for file in (file for folder in folders for file in audio_files(folder)):
        name = _RAVDESS_NAME.fullmatch(file.stem)
        if name is None or name[3] not in _RAVDESS_EMOTIONS or not 1 <= int(name[7]) <= 24:
            problems.append(f"{file}: is not a file name of RAVDESS")
        elif (name[1], name[2]) != ("03", "01"):
            others.append(file)
        else:
            clip_id, emotion = file.relative_to(root).as_posix(), _RAVDESS_EMOTIONS[name[3]]
            clips.append(Clip(clip_id, AudioFile(file), emotion, fold=ravdess_fold(int(name[7])), group=name[7]))
    if others:
        problems.append(
            f"{len(others)} files are not audio-only speech (03-01-...) and are left out, first {others[0]}"
        )
    return Reading(tuple(clips), tuple(problems))


def _read_cremad(root: Path, _card: Card) -> Reading:
    clips, problems = [], []
    for file in audio_files(root / "AudioWAV"):
        name = _CREMAD_NAME.fullmatch(file.stem)
        if name is None or name[3] not in _CREMAD_EMOTIONS:
            problems.append(f"{file}: is not a file name of CREMA-D")
            continue
        actor = int(name[1])
        split = "test" if actor in _CREMAD_TEST else "valid" if actor in _CREMAD_VALID else "train"
        clips.append(Clip(file.stem, AudioFile(file), _CREMAD_EMOTIONS[name[3]], split=split, group=name[1]))
    return Reading(tuple(clips), tuple(problems))


def _cremad_label(label: str) -> str:
    """Return the emotion for its code or for X-ARES's label, which is the first letter of the code."""
    for code, emotion in _CREMAD_EMOTIONS.items():
        if label in (code, code[0]):
            return emotion
    return label


RAVDESS = Layout(
    _is_ravdess,
    _read_ravdess,
    expects="Actor_NN/03-01-EE-II-SS-RR-AA.wav",
    folders=("audio_speech_actors_01-24",),
    group_of=group_from(_RAVDESS_NAME, 7),
)
CREMAD = Layout(
    has("AudioWAV"),
    _read_cremad,
    expects="AudioWAV/<actor>_<sentence>_<EMO>_<level>.wav",
    folders=("crema-d-master",),
    group_of=group_from(_CREMAD_NAME),
    label_of=_cremad_label,
)
