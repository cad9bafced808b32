"""Check a dataset on disk (`uwbench data check`): does it match its card, and can its clips be used?

An error means that a score would be wrong or impossible; a warning is worth knowing. Nothing is changed or left out.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from uwbench.audio.clip import AudioFile, AudioMember, Clip, Event, read_bytes
from uwbench.audio.decode import decode as decode_audio
from uwbench.audio.decode import read_header
from uwbench.audio.scan import END_TOLERANCE_S
from uwbench.base.hashing import clip_key, sha256_bytes
from uwbench.cards.card import Tolerated
from uwbench.cards.find import load_vocabulary
from uwbench.errors import AudioError
from uwbench.sources.dataset import Dataset, label_names, natural_key

SILENT_PEAK = 1e-4  # -80 dB below full scale, which is below the noise of any 16-bit recording
SHORT_S = 0.1  # several encoders return no frame for less
_LFS_STUB = b"version https://git-lfs"
_EXAMPLES = 3

Severity = Literal["error", "warning"]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found: `code` is for programs, `message` for people, `clips` are the ids concerned."""

    code: str
    severity: Severity
    message: str
    clips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of a check: `counts` are clips per split or fold, `faults` are those that the card lists."""

    task: str
    source: str
    clips: int
    counts: dict[str, int]
    findings: tuple[Finding, ...]
    faults: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as `data check --json` prints it."""
        return {
            "task": self.task,
            "source": self.source,
            "clips": self.clips,
            "counts": self.counts,
            "problems": [asdict(finding) | {"clips": list(finding.clips)} for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class _Inspection:
    """One clip after reading it: `content` identifies its audio, `fault` is (code, message) if it cannot be used."""

    content: str | None = None
    duration_s: float | None = None
    silent: bool = False
    fault: tuple[str, str] | None = None


def check_dataset(
    dataset: Dataset, *, decode: bool = True, progress: Callable[[int, int], None] | None = None
) -> CheckReport:
    """Check the counts, audio, duplicates, groups, classes and labels of a dataset.

    Without `decode`, only the files' bytes and headers are read. This misses clips that cannot be decoded or are
    silent, and duplicates in another file format. `progress` is called with the number of clips checked and of all.
    """
    inspections: list[_Inspection] = []
    # Threads are enough, because the decoders release the GIL.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for number, inspection in enumerate(pool.map(lambda clip: _inspect(clip, decode), dataset.clips), start=1):
            inspections.append(inspection)
            if progress is not None:
                progress(number, len(dataset.clips))
    findings = [
        *(Finding("reading", "warning", text) for text in dataset.problems),
        *_counts(dataset),
        *_audio(dataset, inspections),
        *_duplicates(dataset, inspections),
        *_recordings(dataset),
        *_groups(dataset),
        *_classes(dataset),
        *_events(dataset, inspections),
    ]
    counts = Counter(map(_subset, dataset.clips))
    ordered = {subset: counts[subset] for subset in sorted(counts, key=_subset_order)}
    return CheckReport(
        dataset.card.name, dataset.source, len(dataset.clips), ordered, tuple(findings), dataset.card.faults
    )


def _inspect(clip: Clip, decode: bool) -> _Inspection:
    if isinstance(clip.audio, AudioFile) and not _is_file(clip.audio.path):
        return _Inspection(fault=("missing", f"{clip.audio} is missing"))
    try:
        data = read_bytes(clip.audio)
        encoded = data if isinstance(clip.audio, (AudioFile, AudioMember)) else None
        if data.startswith(_LFS_STUB):
            text = f"{clip.audio} is a git-lfs pointer and not audio; fetch the files with git lfs pull"
            return _Inspection(fault=("unreadable", text))
        header = read_header(clip.audio, encoded)
        if not decode:
            content = clip_key(sha256_bytes(data), clip.start_s, clip.end_s).hex()
            end = header.duration_s if clip.end_s is None else min(clip.end_s, header.duration_s)
            if clip.start_s is not None and end <= clip.start_s:
                return _Inspection(fault=("unreadable", f"{clip.audio}: ends before the clip starts"))
            return _Inspection(content, end - (clip.start_s or 0.0))
        samples = decode_audio(clip.audio, header.rate, start_s=clip.start_s, end_s=clip.end_s, data=encoded)
    except AudioError as error:
        return _Inspection(fault=("unreadable", str(error)))
    silent = bool(np.max(np.abs(samples)) < SILENT_PEAK)
    content = sha256_bytes(f"{header.rate} ".encode() + samples.tobytes())
    return _Inspection(content, len(samples) / header.rate, silent)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # for example a name that is too long for the file system
        return False


def _subset(clip: Clip) -> str:
    """Return the split or fold of a clip."""
    return clip.split or clip.fold or ""


def _subset_order(subset: str) -> tuple[int, int, str]:
    order = ("train", "valid", "test")
    return (0, order.index(subset), subset) if subset in order else natural_key(subset)


def _grouped(pairs: Iterable[tuple[Key | None, Clip]]) -> dict[Key, list[Clip]]:
    """Return the clips of each key; clips whose key is None are left out."""
    clips_of: dict[Key, list[Clip]] = defaultdict(list)
    for key, clip in pairs:
        if key is not None:
            clips_of[key].append(clip)
    return clips_of


def _crosses(clips: Iterable[Clip]) -> bool:
    return len(set(map(_subset, clips))) > 1


def _leak_severity(dataset: Dataset, clips: Iterable[Clip], tolerated: Tolerated) -> Severity:
    """Return "error" if clips that cross splits or folds are tested, which spoils the score, unless the card allows it.

    A leak from training to validation alone only spoils the choice of a probe, which is a warning.
    """
    tested = any(clip.split == "test" or clip.fold is not None for clip in clips)
    return "error" if tested and tolerated not in dataset.card.tolerated else "warning"


def _counts(dataset: Dataset) -> Iterator[Finding]:
    size = dataset.card.size
    if size is None:
        return
    # The publisher's counts hold for the publisher's files; X-ARES does not say which of them it packed.
    severity: Severity = "warning" if dataset.origin == "shards" else "error"
    if len(dataset.clips) != size.clips:
        yield Finding("count", severity, f"{len(dataset.clips)} clips, but the card says {size.clips}")
    counts = Counter(map(_subset, dataset.clips))
    for subset, expected in (size.splits or {}).items():
        if counts[subset] != expected:
            yield Finding("count", severity, f"{counts[subset]} clips in {subset!r}, but the card says {expected}")


def _audio(dataset: Dataset, inspections: list[_Inspection]) -> Iterator[Finding]:
    faults: dict[str, list[tuple[str, str]]] = defaultdict(list)  # code -> (clip id, message)
    for clip, inspection in zip(dataset.clips, inspections, strict=True):
        if inspection.fault is not None:
            faults[inspection.fault[0]].append((clip.id, inspection.fault[1]))
        elif inspection.silent:
            faults["silent"].append((clip.id, str(clip.audio)))
        elif inspection.duration_s is not None and inspection.duration_s < SHORT_S:
            faults["short"].append((clip.id, f"{clip.audio} lasts {inspection.duration_s:.3f} s"))
        if inspection.duration_s is not None and clip.end_s is not None:
            early_s = clip.end_s - (clip.start_s or 0.0) - inspection.duration_s
            if early_s > END_TOLERANCE_S:
                faults["end-outside"].append((clip.id, f"{clip.audio} ends {early_s:.3f} s before {clip.id}"))
    texts: tuple[tuple[str, Severity, str], ...] = (
        ("missing", "error", "files are missing"),
        ("unreadable", "error", "clips cannot be decoded"),
        ("silent", "warning", f"clips are silent (peak below {SILENT_PEAK:g})"),
        ("short", "warning", f"clips are shorter than {SHORT_S} s"),
        ("end-outside", "warning", "clips end after their recording"),
    )
    for code, severity, text in texts:
        if faults[code]:
            ids = tuple(clip_id for clip_id, _ in faults[code])
            yield Finding(code, severity, f"{len(ids)} {text}, first: {faults[code][0][1]}", ids)


def _duplicates(dataset: Dataset, inspections: list[_Inspection]) -> Iterator[Finding]:
    contents = (None if inspection.silent else inspection.content for inspection in inspections)
    repeated = [clips for clips in _grouped(zip(contents, dataset.clips, strict=True)).values() if len(clips) > 1]
    across = [clips for clips in repeated if _crosses(clips)]
    within = [clips for clips in repeated if not _crosses(clips)]
    leak = _leak_severity(dataset, _flat(across), "duplicates")
    subsets = "splits" if dataset.card.folds is None else "folds"
    results: tuple[tuple[str, list[list[Clip]], str, Severity], ...] = (
        ("duplicate-across", across, f"across {subsets}", leak),
        ("duplicate", within, "within a split or fold", "warning"),
    )
    for code, copies, text, severity in results:
        if copies:
            example = ", ".join(f"{clip.id} ({_subset(clip)})" for clip in copies[0][:_EXAMPLES])
            message = f"{len(copies)} recordings occur more than once {text}: {example}"
            yield Finding(code, severity, message, _ids(_flat(copies)))


def _recordings(dataset: Dataset) -> Iterator[Finding]:
    """Report files with stretches in several splits or folds: not the same audio, but the same recording."""
    stretches = [clip for clip in dataset.clips if clip.start_s is not None or clip.end_s is not None]
    clips_of = _grouped((str(clip.audio), clip) for clip in stretches)
    crossing = {name: clips for name, clips in clips_of.items() if _crosses(clips)}
    if crossing:
        text = f"{len(crossing)} files have stretches in more than one split or fold, first: {next(iter(crossing))}"
        yield Finding("recording-across", "warning", text, _ids(_flat(crossing.values())))


def _groups(dataset: Dataset) -> Iterator[Finding]:
    clips_of = _grouped((clip.group, clip) for clip in dataset.clips)
    crossing = {group: clips_of[group] for group in sorted(clips_of) if _crosses(clips_of[group])}
    if crossing:
        first, clips = next(iter(crossing.items()))
        example = f"{first!r} is in {', '.join(sorted(set(map(_subset, clips)), key=_subset_order))}"
        severity = _leak_severity(dataset, _flat(crossing.values()), "groups-cross")
        text = f"{len(crossing)} of {len(clips_of)} groups ({dataset.card.group}) cross splits or folds: {example}"
        yield Finding("group-across", severity, text, _ids(_flat(crossing.values())))


def _classes(dataset: Dataset) -> Iterator[Finding]:
    card = dataset.card
    if card.kind in ("retrieval", "transcription"):
        return
    ids: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))  # class -> split or fold -> clip ids
    for clip in dataset.clips:
        for name in dict.fromkeys(label_names(clip.labels)):
            ids[name][_subset(clip)].append(clip.id)
    vocabulary = load_vocabulary(card.vocabulary) if card.vocabulary else ()
    unknown = sorted(set(ids) - set(vocabulary)) if vocabulary else []
    if unknown:
        clips = tuple(clip_id for name in unknown for clip_ids in ids[name].values() for clip_id in clip_ids)
        text = f"labels are not among the {len(vocabulary)} classes of {card.vocabulary}: {_listed(unknown)}"
        yield Finding("label-unknown", "error", text, clips)
    yield from _untrained(dataset, ids)
    classes = vocabulary or ids
    present = set(map(_subset, dataset.clips))
    for subset in ("train", "valid", "test") if card.folds is None else card.folds:
        absent = sorted(name for name in classes if subset not in ids.get(name, {}))
        if absent and subset in present:
            text = f"{len(absent)} of {len(classes)} classes have no clip in {subset!r}: {_listed(absent)}"
            yield Finding("class-missing", "warning", text)


def _untrained(dataset: Dataset, ids: Mapping[str, Mapping[str, list[str]]]) -> Iterator[Finding]:
    """Report classes that are tested but have no training clip, so that no probe can predict them."""
    if dataset.card.folds is None:
        untrained = sorted(name for name, subsets in ids.items() if "test" in subsets and "train" not in subsets)
        clips = tuple(clip_id for name in untrained for clip_id in ids[name]["test"])
    else:
        untrained = sorted(name for name, subsets in ids.items() if len(subsets) == 1)
        clips = tuple(clip_id for name in untrained for clip_ids in ids[name].values() for clip_id in clip_ids)
    if untrained:
        severity: Severity = "error" if dataset.card.kind == "single-label" else "warning"
        text = f"{len(untrained)} classes are tested but have no training clip: {_listed(untrained)}"
        yield Finding("class-untrained", severity, text, clips)


def _events(dataset: Dataset, inspections: list[_Inspection]) -> Iterator[Finding]:
    if dataset.card.kind != "frame-multi-label":
        return
    late = [
        clip.id
        for clip, inspection in zip(dataset.clips, inspections, strict=True)
        if inspection.duration_s is not None
        and any(isinstance(event, Event) and event.onset_s >= inspection.duration_s for event in clip.labels)
    ]
    if late:
        yield Finding("event-outside", "warning", f"{len(late)} clips have events after their end", tuple(late))


def _flat(groups: Iterable[list[Clip]]) -> list[Clip]:
    return [clip for clips in groups for clip in clips]


def _ids(clips: Iterable[Clip]) -> tuple[str, ...]:
    return tuple(clip.id for clip in clips)


def _listed(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
