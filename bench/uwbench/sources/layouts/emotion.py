"""RAVDESS and CREMA-D: acted emotions, everything in the file names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from uwbench.audio.clip import AudioFile, Clip
from uwbench.cards.card import Card
from uwbench.sources.dataset import Reading
from uwbench.sources.layouts.base import Layout, has, visible

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
# The speaker-disjoint split of TensorFlow Datasets (crema_d 1.0.0): actors 1001 to 1091 shuffled by numpy's
# RandomState(0), of which the first 63 train, the next 9 validate, the last 19 test.
_CREMAD_VALID = frozenset({1015, 1020, 1021, 1030, 1050, 1070, 1079, 1089, 1090})
_CREMAD_TEST = frozenset(
    {1010, 1013, 1022, 1026, 1037, 1038, 1040, 1045, 1047, 1048, 1059, 1065, 1066, 1068, 1071, 1073, 1084, 1086, 1088}
)


def ravdess_fold(actor: int) -> str:
    """Return the fold of an actor, 1 to 24: pairs of a man (odd) and a woman (even) go to folds 0, 1, 2, 3, 0, ..."""
    return str((actor - 1) // 2 % 4)


def _is_ravdess(folder: Path) -> bool:
    actors = (path for path in folder.glob("[Aa]ctor_*") if _RAVDESS_ACTOR_FOLDER.fullmatch(path.name))
    return any(True for actor in actors for _ in actor.glob("03-01-*.[wW][aA][vV]"))


def _read_ravdess(root: Path, _card: Card) -> Reading:
    clips, others, problems = [], [], []
    for actor in visible(root):
        if not (_RAVDESS_ACTOR_FOLDER.fullmatch(actor.name) and actor.is_dir()):
            continue
        for file in visible(actor):
            name = _RAVDESS_NAME.fullmatch(file.stem)
            if file.suffix.lower() != ".wav":
                continue
            if name is None or name[3] not in _RAVDESS_EMOTIONS or not 1 <= int(name[7]) <= 24:
                problems.append(f"{file}: the name is not one of RAVDESS")
            elif (name[1], name[2]) != ("03", "01"):
                others.append(file)
            else:
                clips.append(
                    Clip(
                        file.relative_to(root).as_posix(),
                        AudioFile(file),
                        _RAVDESS_EMOTIONS[name[3]],
                        fold=ravdess_fold(int(name[7])),
                        group=name[7],
                    )
                )
    if others:
        problems.append(
            f"{len(others)} files are not audio-only speech (03-01-...) and are left out, first {others[0]}"
        )
    return Reading(tuple(clips), tuple(problems))


def _ravdess_actor(name: str, _record: Any) -> str | None:
    found = _RAVDESS_NAME.search(name)
    return found[7] if found else None


def _read_cremad(root: Path, _card: Card) -> Reading:
    clips, problems = [], []
    for file in visible(root / "AudioWAV"):
        if file.suffix.lower() != ".wav":
            continue
        name = _CREMAD_NAME.fullmatch(file.stem)
        if name is None or name[3] not in _CREMAD_EMOTIONS:
            problems.append(f"{file}: the name is not one of CREMA-D")
            continue
        actor = int(name[1])
        split = "test" if actor in _CREMAD_TEST else "valid" if actor in _CREMAD_VALID else "train"
        clips.append(Clip(file.stem, AudioFile(file), _CREMAD_EMOTIONS[name[3]], split=split, group=name[1]))
    return Reading(tuple(clips), tuple(problems))


def _cremad_actor(name: str, _record: Any) -> str | None:
    found = _CREMAD_NAME.search(name)
    return found[1] if found else None


def _cremad_label(label: str) -> str:
    """X-ARES writes the first letters: H, S, A, F, D, N."""
    for code, emotion in _CREMAD_EMOTIONS.items():
        if label in (code, code[0]):
            return emotion
    return label


RAVDESS = Layout(
    _is_ravdess,
    _read_ravdess,
    "Actor_NN/03-01-EE-II-SS-RR-AA.wav",
    ("audio_speech_actors_01-24",),
    _ravdess_actor,
)
CREMAD = Layout(
    has("AudioWAV"),
    _read_cremad,
    "AudioWAV/<actor>_<sentence>_<EMO>_<level>.wav",
    ("crema-d-master",),
    _cremad_actor,
    _cremad_label,
)
