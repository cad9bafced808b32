"""Check training data before a run: audio against rows, answers, licences, duplicates, closed sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uniwhisper.data.answers import SEPARATOR, clean, is_corrupt
from uniwhisper.data.convert import read_classes
from uniwhisper.data.examples import SAMPLE_RATE
from uniwhisper.data.facts import language_names
from uniwhisper.data.rows import Row, RowTable, open_rows
from uniwhisper.data.shards import read_audio
from uniwhisper.data.templates import draw, find_form
from uniwhisper.data.wording import read_wording
from uwbench.api import AudioError, InputError, UsageError

LONGEST_ANSWER = 256  # tokens
_NAMED = 3  # example rows per fault
_PROSE = ("transcript", "caption", "text")
_STREAMINFO = 26  # bytes of a FLAC file up to its sample count


@dataclass(slots=True)
class Check:
    """One check: the number of rows or clips it checked, the number with a fault, and the first of these."""

    name: str
    seen: int = 0
    faults: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, where: str, fault: str | None) -> None:
        """Count one checked row or clip, with its fault or None."""
        self.seen += 1
        if fault is not None:
            self.faults += 1
            if len(self.examples) < _NAMED:
                self.examples.append(f"{where}: {fault}")


def validate(
    folders: Sequence[Path],
    *,
    allow: Sequence[str] = (),
    tokens: Callable[[str], int] | None = None,
    decode: bool = False,
) -> list[Check]:
    """Run all checks on folders of training data and return their results.

    `allow` are licences beside those of `wording/licences.yaml`, as the rows name them. `tokens` counts the tokens of
    an answer; without it an answer is counted by its bytes, of which no byte-level tokenizer makes more tokens. With
    `decode`, every clip is decoded and compared with its hash; without, its FLAC header is compared with its row.
    Raises InputError where a folder holds no rows or its index is damaged.
    """
    table = open_rows(folders)
    checks = {name: Check(name) for name in _NAMES}
    classes: dict[tuple[str, str], set[str]] = {}
    for folder in folders:
        for dataset, questions in read_classes(folder).items():
            for question, answers in questions.items():
                classes.setdefault((dataset, question), set()).update(answers)
    of_kinds = {"language": set(language_names().values()), "gender": {"female", "male"}}
    permitted = (*read_wording("licences")["allowed"], *allow)
    ids: set[str] = set()
    heard: set[tuple[str, int]] = set()
    for row in table:
        checks["unique ids"].note(row.id, "is there twice" if row.id in ids else None)
        ids.add(row.id)
        checks["questions"].note(row.id, _question_fault(row))
        checks["answers"].note(row.id, _answer_fault(row))
        checks["answer length"].note(row.id, _length_fault(row, tokens))
        checks["licences"].note(row.id, _licence_fault(row.licence, permitted))
        closed = classes.get((row.dataset, row.question)) or of_kinds.get(_kind(row) or "")
        if closed is not None:
            checks["closed sets"].note(row.id, _class_fault(row, closed))
        place = (row.audio.shard, row.audio.offset)
        if place not in heard:
            heard.add(place)
            checks["audio"].note(row.id, _decoded_fault(row) if decode else _header_fault(row))
    _find_duplicates(table, checks["one split an audio"])
    return list(checks.values())


_NAMES = (
    "unique ids",
    "questions",
    "answers",
    "answer length",
    "closed sets",
    "licences",
    "audio",
    "one split an audio",
)


def _question_fault(row: Row) -> str | None:
    try:
        find_form(row.task, row.slots.get("form"))
        if row.instruction is None:
            draw(row.task, row.slots, 0, 0, row.id)
        elif not clean(row.instruction):
            return "its instruction is empty"
    except (InputError, UsageError) as error:
        return error.what
    return None


def _answer_fault(row: Row) -> str | None:
    if not row.answers:
        return "has no answer"
    for text in row.answers:
        if not clean(text):
            return "an answer is empty"
        if clean(text) != text:
            return f"{text!r} is not in normal form"
        if _kind(row) in _PROSE and is_corrupt(text):
            return f"{text[:40]!r} is not text"
    return None


def _kind(row: Row) -> str | None:
    try:
        return find_form(row.task, row.slots.get("form")).answer
    except UsageError:
        return None


def _length_fault(row: Row, tokens: Callable[[str], int] | None) -> str | None:
    for text in row.answers:
        count = len(text.encode()) if tokens is None else tokens(text)
        if count > LONGEST_ANSWER:
            unit = "bytes, and a tokenizer was not given" if tokens is None else "tokens"
            return f"{count} {unit}; at most {LONGEST_ANSWER} tokens"
    return None


def _licence_fault(licence: str, permitted: Sequence[str]) -> str | None:
    for name in permitted:
        if re.fullmatch(rf"{re.escape(name)}(?:[ -]\d+(?:\.\d+)*)?", licence, re.IGNORECASE):
            return None
    return f"{licence!r} is not on the list of licences"


def _class_fault(row: Row, closed: set[str]) -> str | None:
    names = {name for text in row.answers for name in (text.split(SEPARATOR) if _kind(row) == "labels" else [text])}
    outside = sorted(names - closed)
    return f"{outside[0]!r} is not one of the {len(closed)} possible answers" if outside else None


def _header_fault(row: Row) -> str | None:
    """Compare a row with the STREAMINFO block that a FLAC file begins with (RFC 9639, section 8.2)."""
    path = Path(row.audio.shard)
    try:
        if row.audio.offset + row.audio.size > path.stat().st_size:
            return f"{path.name} ends before its audio does"
        with path.open("rb") as file:
            file.seek(row.audio.offset)
            head = file.read(_STREAMINFO)
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror or error})"
    if len(head) < _STREAMINFO or head[:4] != b"fLaC":
        return "its audio is no FLAC file"
    packed = int.from_bytes(head[18:26], "big")
    rate, channels, samples = packed >> 44, ((packed >> 41) & 7) + 1, packed & (2**36 - 1)
    if rate != SAMPLE_RATE or channels != 1:
        return f"its audio has {channels} channels at {rate} Hz, not one at {SAMPLE_RATE}"
    return _duration_fault(row, samples)


def _decoded_fault(row: Row) -> str | None:
    try:
        return _duration_fault(row, len(read_audio(row)))
    except AudioError as error:
        return error.what


def _duration_fault(row: Row, samples: int) -> str | None:
    if samples == round(row.duration_s * SAMPLE_RATE):
        return None
    return f"its audio lasts {samples / SAMPLE_RATE:.4f} s, its row says {row.duration_s:.4f} s"


def _find_duplicates(table: RowTable, check: Check) -> None:
    """Record clips whose samples are in two splits, of the same or different datasets."""
    splits, names = table.codes("split")
    places: dict[bytes, tuple[int, str]] = {}
    last = -1
    for index, (clip, content, split) in enumerate(
        zip(table.clip_index.tolist(), table.column("content").to_pylist(), splits.tolist(), strict=True)
    ):
        if clip == last:
            continue
        last = clip
        first, other = places.setdefault(content, (index, names[split]))
        if other == names[split]:
            check.note("", None)
        else:
            check.note(table[index].id, f"the same audio is {table[first].id} of the split {other}")
