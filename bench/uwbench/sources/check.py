"""`uwbench data check`: is a dataset on disk what its card says, and can its clips be used?

An error means that a score would be wrong or cannot be made; a warning is worth knowing. Nothing is changed or dropped.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from uwbench.audio.clip import AudioFile, AudioMember, Clip, Event, read_bytes
from uwbench.audio.decode import decode as decode_audio
from uwbench.audio.decode import read_header
from uwbench.base.hashing import clip_key, sha256_bytes
from uwbench.cards.find import load_vocabulary
from uwbench.errors import AudioError
from uwbench.sources.dataset import Dataset, natural_key

SILENT_PEAK = 1e-4  # -80 dB below full scale: below the noise of 16-bit recordings of anything
SHORT_S = 0.1  # several encoders give no frame for less
_LFS_STUB = b"version https://git-lfs"
_PLACES_SHOWN = 3

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: `code` for programs, `message` for people, the ids of the clips concerned."""

    code: str
    severity: Severity
    message: str
    clips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found; `counts` are clips a split or fold, `faults` what the card says of the dataset itself."""

    task: str
    source: str
    clips: int
    counts: dict[str, int]
    problems: tuple[Problem, ...]
    faults: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found that makes a score wrong or impossible."""
        return not any(problem.severity == "error" for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Return the report as `data check --json` prints it."""
        return {
            "task": self.task,
            "source": self.source,
            "clips": self.clips,
            "counts": self.counts,
            "problems": [
                {
                    "code": problem.code,
                    "severity": problem.severity,
                    "message": problem.message,
                    "clips": list(problem.clips),
                }
                for problem in self.problems
            ],
        }


@dataclass(frozen=True, slots=True)
class _Look:
    """What one clip turned out to be; `trouble` is (code, message) where it cannot be used."""

    content: str | None = None
    duration_s: float | None = None
    silent: bool = False
    trouble: tuple[str, str] | None = None


def check_dataset(
    dataset: Dataset, *, decode: bool = True, progress: Callable[[int, int], None] | None = None
) -> CheckReport:
    """Check counts, audio, duplicates, groups, classes and labels of a dataset.

    Without `decode`, files are read and their headers parsed, but what cannot be decoded, is silent, or is the same
    audio in another file format goes unseen. `progress` is called with (clips done, clips).
    """
    looks: list[_Look] = []
    # The decoders release the interpreter's lock, so that threads are enough.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for number, look in enumerate(pool.map(lambda clip: _look(clip, decode), dataset.clips), start=1):
            looks.append(look)
            if progress is not None:
                progress(number, len(dataset.clips))
    problems = [Problem("reading", "warning", text) for text in dataset.problems]
    problems += [
        *_counts(dataset),
        *_audio(dataset, looks),
        *_duplicates(dataset, looks),
        *_recordings(dataset),
        *_groups(dataset),
        *_classes(dataset),
        *_events(dataset, looks),
    ]
    counts = Counter(_place(clip) for clip in dataset.clips)
    ordered = {place: counts[place] for place in sorted(counts, key=_place_key)}
    return CheckReport(
        dataset.card.name, dataset.source, len(dataset.clips), ordered, tuple(problems), dataset.card.faults
    )


def _look(clip: Clip, decode: bool) -> _Look:
    if isinstance(clip.audio, AudioFile) and not _is_file(clip.audio.path):
        return _Look(trouble=("missing", f"{clip.audio} is missing"))
    try:
        data = read_bytes(clip.audio)
        encoded = data if isinstance(clip.audio, (AudioFile, AudioMember)) else None
        if data.startswith(_LFS_STUB):
            text = f"{clip.audio} is a git-lfs pointer, not audio; fetch the files with git lfs pull"
            return _Look(trouble=("unreadable", text))
        header = read_header(clip.audio, encoded)
        if not decode:
            content = clip_key(sha256_bytes(data), clip.start_s, clip.end_s).hex()
            end = header.duration_s if clip.end_s is None else min(clip.end_s, header.duration_s)
            return _Look(content, max(0.0, end - (clip.start_s or 0.0)))
        samples = decode_audio(clip.audio, header.rate, start_s=clip.start_s, end_s=clip.end_s, data=encoded)
    except AudioError as error:
        return _Look(trouble=("unreadable", str(error)))
    silent = bool(np.max(np.abs(samples)) < SILENT_PEAK)
    content = sha256_bytes(f"{header.rate} ".encode() + samples.tobytes())
    return _Look(content, len(samples) / header.rate, silent)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # for example a name that is too long for the file system
        return False


def _place(clip: Clip) -> str:
    return clip.split or clip.fold or ""


def _place_key(place: str) -> tuple[int, int, str]:
    order = ("train", "valid", "test")
    return (0, order.index(place), place) if place in order else natural_key(place)


def _counts(dataset: Dataset) -> Iterator[Problem]:
    size = dataset.card.size
    if size is None:
        return
    # What X-ARES packed is not published; only the publisher's own files are held against the publisher's counts.
    severity: Severity = "warning" if dataset.origin == "shards" else "error"
    if len(dataset.clips) != size.clips:
        yield Problem("count", severity, f"{len(dataset.clips)} clips, and the card says {size.clips}")
    found = Counter(_place(clip) for clip in dataset.clips)
    for place, expected in (size.splits or {}).items():
        if found[place] != expected:
            yield Problem("count", severity, f"{found[place]} clips in {place!r}, and the card says {expected}")


def _audio(dataset: Dataset, looks: list[_Look]) -> Iterator[Problem]:
    troubles: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for clip, look in zip(dataset.clips, looks, strict=True):
        if look.trouble is not None:
            troubles[look.trouble[0]].append((clip.id, look.trouble[1]))
        elif look.silent:
            troubles["silent"].append((clip.id, str(clip.audio)))
        elif look.duration_s is not None and look.duration_s < SHORT_S:
            troubles["short"].append((clip.id, f"{clip.audio} lasts {look.duration_s:.3f} s"))
    texts = {
        "missing": "files are missing",
        "unreadable": "clips cannot be decoded",
        "silent": f"clips are silent (peak below {SILENT_PEAK:g})",
        "short": f"clips are shorter than {SHORT_S} s",
    }
    for code, text in texts.items():
        if troubles[code]:
            severity: Severity = "error" if code in ("missing", "unreadable") else "warning"
            ids = tuple(name for name, _ in troubles[code])
            yield Problem(code, severity, f"{len(ids)} {text}, first: {troubles[code][0][1]}", ids)


def _duplicates(dataset: Dataset, looks: list[_Look]) -> Iterator[Problem]:
    same: dict[str, list[Clip]] = defaultdict(list)
    for clip, look in zip(dataset.clips, looks, strict=True):
        if look.content is not None and not look.silent:
            same[look.content].append(clip)
    across, within = [], []
    for clips in same.values():
        if len(clips) > 1:
            (across if len({_place(clip) for clip in clips}) > 1 else within).append(clips)
    where = "folds" if dataset.card.folds is not None else "splits"
    tested = any("test" in {clip.split for clip in clips} or clips[0].fold is not None for clips in across)
    leak: Severity = "error" if tested and not _tolerates(dataset, "duplicates") else "warning"
    findings: tuple[tuple[str, list[list[Clip]], str, Severity], ...] = (
        ("duplicate-across", across, f"across {where}", leak),
        ("duplicate", within, "within a split or fold", "warning"),
    )
    for code, found, text, severity in findings:
        if found:
            ids = tuple(clip.id for clips in found for clip in clips)
            example = ", ".join(f"{clip.id} ({_place(clip)})" for clip in found[0][:_PLACES_SHOWN])
            yield Problem(code, severity, f"{len(found)} recordings occur more than once {text}: {example}", ids)


def _recordings(dataset: Dataset) -> Iterator[Problem]:
    """Stretches of one file in two parts: not the same audio, but the same recording."""
    places: dict[str, set[str]] = defaultdict(set)
    members: dict[str, list[str]] = defaultdict(list)
    for clip in dataset.clips:
        if clip.start_s is not None or clip.end_s is not None:
            places[str(clip.audio)].add(_place(clip))
            members[str(clip.audio)].append(clip.id)
    crossing = [name for name, found in places.items() if len(found) > 1]
    if crossing:
        ids = tuple(clip for name in crossing for clip in members[name])
        text = f"{len(crossing)} files have stretches in more than one split or fold, first: {crossing[0]}"
        yield Problem("recording-across", "warning", text, ids)


def _groups(dataset: Dataset) -> Iterator[Problem]:
    places: dict[str, set[str]] = defaultdict(set)
    members: dict[str, list[str]] = defaultdict(list)
    for clip in dataset.clips:
        if clip.group is not None:
            places[clip.group].add(_place(clip))
            members[clip.group].append(clip.id)
    crossing = sorted(group for group, found in places.items() if len(found) > 1)
    if crossing:
        ids = tuple(clip for group in crossing for clip in members[group])
        example = f"{crossing[0]!r} is in {', '.join(sorted(places[crossing[0]], key=_place_key))}"
        # A group in training and validation spoils a choice; one that is also tested spoils the score.
        tested = dataset.card.folds is not None or any("test" in places[group] for group in crossing)
        severity: Severity = "error" if tested and not _tolerates(dataset, "groups-cross") else "warning"
        text = f"{len(crossing)} of {len(places)} groups ({dataset.card.group}) cross splits or folds: {example}"
        yield Problem("group-across", severity, text, ids)


def _tolerates(dataset: Dataset, finding: str) -> bool:
    return finding in dataset.card.tolerated


def _names(clip: Clip) -> tuple[str, ...]:
    if isinstance(clip.labels, str):
        return (clip.labels,)
    return tuple(dict.fromkeys(item.label if isinstance(item, Event) else item for item in clip.labels))


def _classes(dataset: Dataset) -> Iterator[Problem]:
    card = dataset.card
    if card.kind in ("retrieval", "transcription"):
        return
    holders: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for clip in dataset.clips:
        for name in _names(clip):
            holders[name][_place(clip)].append(clip.id)
    vocabulary = load_vocabulary(card.vocabulary) if card.vocabulary else ()
    unknown = sorted(set(holders) - set(vocabulary)) if vocabulary else []
    if unknown:
        ids = tuple(clip for name in unknown for found in holders[name].values() for clip in found)
        known = f"{len(vocabulary)} classes of {card.vocabulary}"
        yield Problem("label-unknown", "error", f"labels are not among the {known}: {_some(unknown)}", ids)
    yield from _untrained(dataset, holders)
    parts = ("train", "valid", "test") if card.folds is None else card.folds
    present = {_place(clip) for clip in dataset.clips}
    for part in parts:
        absent = sorted(name for name in (vocabulary or holders) if part not in holders.get(name, {}))
        if absent and part in present:
            text = f"{len(absent)} of {len(vocabulary or holders)} classes have no clip in {part!r}: {_some(absent)}"
            yield Problem("class-missing", "warning", text)


def _untrained(dataset: Dataset, holders: Mapping[str, Mapping[str, list[str]]]) -> Iterator[Problem]:
    """Classes that are tested and never trained: no probe can score there."""
    if dataset.card.folds is None:
        untrained = sorted(name for name, found in holders.items() if "test" in found and "train" not in found)
        ids = tuple(clip for name in untrained for clip in holders[name]["test"])
    else:
        untrained = sorted(name for name, found in holders.items() if len(found) == 1)
        ids = tuple(clip for name in untrained for found in holders[name].values() for clip in found)
    if untrained:
        text = f"{len(untrained)} classes are tested and have no clip to train on: {_some(untrained)}"
        severity: Severity = "error" if dataset.card.kind == "single-label" else "warning"
        yield Problem("class-untrained", severity, text, ids)


def _events(dataset: Dataset, looks: list[_Look]) -> Iterator[Problem]:
    if dataset.card.kind != "frame-multi-label":
        return
    late = [
        clip.id
        for clip, look in zip(dataset.clips, looks, strict=True)
        if look.duration_s is not None
        and any(isinstance(event, Event) and event.onset_s >= look.duration_s for event in clip.labels)
    ]
    if late:
        yield Problem("event-outside", "warning", f"{len(late)} clips have events after their end", tuple(late))


def _some(names: Iterable[str], shown: int = 5) -> str:
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(repr(name) for name in listed[:shown]) + more
