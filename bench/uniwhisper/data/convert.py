"""From the benchmark's sources to training data: a task card, a manifest or a folder becomes shards of questions.

Which column of labels is asked about as which task is said in one place (`COLUMN:TASK` or `COLUMN:TASK/FORM`); a clip
is packed once however many questions it gets. Only training splits and folds are taken unless one says otherwise.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from uniwhisper.data.answers import CLOSED_KINDS, SEPARATOR, AnswerKind, normalise
from uniwhisper.data.facts import Facts, facts_of, language_names
from uniwhisper.data.ontology import Ancestors, most_specific, read_ancestors
from uniwhisper.data.shards import SHARD_BYTES, Asked, Item, Packed, write_shards
from uniwhisper.data.templates import draw, find_form
from uwbench.api import (
    Clip,
    InputError,
    Labels,
    UsageError,
    find_manifest,
    load_task,
    parse_json,
    read_manifest,
    suggestion,
    write_atomically,
)

CLASSES = ".classes.json"

_ManifestKind = Literal["single-label", "multi-label", "frame-multi-label", "transcription"]
_MANIFEST_KINDS: dict[AnswerKind, _ManifestKind] = {
    "labels": "multi-label",
    "events": "frame-multi-label",
    "transcript": "transcription",
    "caption": "transcription",
    "text": "transcription",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What to convert.

    `source` is what `uwbench` takes as a task, a card's under `data`. `ask` are lines `COLUMN:TASK[/FORM]`; empty: what
    `wording/datasets.yaml` knows. `splits` and `folds` are those to take: folds are needed where the source has them,
    and `test`, or every fold, is refused without `allow_test`. `exclude` are lines `COLUMN=LABEL`, as in the source or
    in words, whose clips are left out altogether. `slots` are lines `TASK.SLOT=TEXT` or `TASK.SLOT=@COLUMN`. `name`,
    `domain`, `licence` and `recording` (the publisher's ids, as `Facts.source`) replace what the card or the facts say.
    By an `ontology` file (see `ontology.read_ancestors`), labels lose those that others of the same clip imply.
    """

    source: str
    data: Path | None = None
    ask: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train",)
    folds: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    name: str | None = None
    domain: str | None = None
    licence: str | None = None
    recording: str | None = None
    allow_test: bool = False
    ontology: Path | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is to be packed: items, the closed set of answers a question, and how many clips were left out and why."""

    dataset: str
    items: tuple[Item, ...]
    classes: Mapping[str, tuple[str, ...]]
    excluded: int
    unasked: int


@dataclass(frozen=True, slots=True)
class _Question:
    column: str
    task: str
    form: str | None

    @property
    def name(self) -> str:
        return self.task if self.form is None else f"{self.task}/{self.form}"

    @property
    def kind(self) -> AnswerKind:
        return find_form(self.task, self.form).answer


@dataclass(slots=True)
class _Source:
    """The clips of a source, and its columns of labels by name; `fixed` says that there are no others."""

    name: str
    clips: tuple[Clip, ...]
    columns: dict[str, tuple[Labels, ...]]
    domain: str
    licence: str
    where: str
    manifest: Path | None = None
    facts: Facts = field(default_factory=Facts)

    def column(self, name: str, kind: AnswerKind = "label") -> tuple[Labels, ...]:
        """Return the labels of a column, clip by clip; empty ones are `()`. Raises UsageError for an unknown column."""
        key = f"{name} {_MANIFEST_KINDS.get(kind, 'single-label')}"
        if self.manifest is None:
            if name not in self.columns:
                raise UsageError(f"has no labels {name!r}", where=self.where, remedy=suggestion(name, self.columns))
            return self.columns[name]
        if key not in self.columns:
            clips = read_manifest(self.manifest, name, kind=_MANIFEST_KINDS.get(kind, "single-label"), gaps=True)
            self.columns[key] = tuple(clip.labels for clip in clips)
        return self.columns[key]


def plan_conversion(request: Request) -> Conversion:
    """Read labels, decode nothing, and return what is to be packed.

    Raises UsageError for a request that cannot be, InputError for labels that are not of their question's kind.
    """
    source = _open(request)
    questions = [_parse_question(line) for line in request.ask or source.facts.ask]
    if not questions:
        raise UsageError(
            "nothing says what to ask about its labels", where=source.where, remedy="give --label COLUMN:TASK"
        )
    taken = _taken(source, request)
    shut = _excluded(source, request.exclude)
    slots = [_parse_slot(line, source, questions) for line in request.slots]
    ancestors = read_ancestors(request.ontology) if request.ontology is not None else {}
    answers = {question: _answers(source, question, ancestors) for question in dict.fromkeys(questions)}
    items, unasked = [], 0
    for index in taken:
        if index in shut:
            continue
        asked = tuple(
            _asked(
                question, found[index], {name: values[index] for task, name, values in slots if task == question.task}
            )
            for question, found in answers.items()
            if found[index]
        )
        if not asked:
            unasked += 1
            continue
        items.append(_item(source, source.clips[index], asked))
    _require_askable(items)
    if not items:
        raise UsageError(
            "leaves no clip to convert", where=source.where, remedy="look at --split, --fold and --exclude"
        )
    classes = {q.name: _classes(q.kind, found) for q, found in answers.items() if q.kind in CLOSED_KINDS}
    return Conversion(source.name, tuple(items), classes, len(shut & set(taken)), unasked)


def convert(
    request: Request,
    output: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Conversion, Packed]:
    """Write the training data of a request to `output`, going on where it was stopped; see `shards.write_shards`.

    Beside the shards, `<dataset>.classes.json` holds the closed set of answers of each question, over all splits.
    """
    planned = plan_conversion(request)

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, len(planned.items))

    packed = write_shards(
        output, planned.items, shard_bytes=shard_bytes, name=planned.dataset, workers=workers, progress=tell
    )
    _write_classes(output, planned)
    return planned, packed


def read_classes(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Return the closed sets of a folder, `{dataset: {question: answers}}`; raise InputError where one is damaged."""
    found = {}
    for path in sorted(folder.glob(f"*{CLASSES}")):
        try:
            found[path.name.removesuffix(CLASSES)] = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read ({error})", where=path) from error
    return found


def _write_classes(folder: Path, planned: Conversion) -> None:
    text = json.dumps(planned.classes, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    write_atomically(folder / f"{planned.dataset}{CLASSES}", text.encode())


def _open(request: Request) -> _Source:
    manifest = find_manifest(request.source)
    if manifest is not None:
        name = request.name or re.sub(r"[^a-z0-9_-]+", "_", manifest.absolute().parent.name.lower()).strip("_")
        facts = facts_of(name)
        first = (request.ask or facts.ask or ("label:",))[0].partition(":")[0]
        clips = read_manifest(manifest, first, kind="transcription", gaps=True)
        domain, licence = request.domain or facts.domain, request.licence or facts.licence
        columns: dict[str, tuple[Labels, ...]] = {}
    else:
        dataset = load_task(request.source, data=request.data)
        name, clips = request.name or dataset.card.name, dataset.clips
        facts = facts_of(name)
        domain, licence = (
            request.domain or dataset.card.domain,
            request.licence or dataset.card.licence or facts.licence,
        )
        columns = {dataset.card.labels or "label": tuple(clip.labels for clip in clips)}
    if not licence:
        raise UsageError("has no licence on record", where=request.source, remedy="give --licence TEXT")
    if request.recording:
        facts = facts.model_copy(update={"source": request.recording})
    return _Source(name, clips, columns, domain or "sound", licence, request.source, manifest, facts)


def _parse_question(line: str) -> _Question:
    column, _, asked = line.rpartition(":")
    if not column or not asked:
        raise UsageError(f"{line!r} is not COLUMN:TASK or COLUMN:TASK/FORM", where="--label")
    task, _, form = asked.partition("/")
    find_form(task, form or None)
    return _Question(column, task, form or None)


def _parse_slot(line: str, source: _Source, questions: Sequence[_Question]) -> tuple[str, str, tuple[str | None, ...]]:
    """Return a task, the name of its slot, and what fills it clip by clip."""
    target, equals, value = line.partition("=")
    task, _, name = target.partition(".")
    if not (equals and name and value):
        raise UsageError(f"{line!r} is not TASK.SLOT=TEXT or TASK.SLOT=@COLUMN", where="--slot")
    if task not in {question.task for question in questions}:
        raise UsageError(f"nothing asks {task!r}", where="--slot")
    if value.startswith("@"):
        found = [text if isinstance(text, str) else None for text in source.column(value[1:])]
    else:
        found = [value] * len(source.clips)
    if name in ("language", "target"):
        return task, name, tuple(normalise_language(text) for text in found)
    return task, name, tuple(found)


def normalise_language(text: str | None) -> str | None:
    """Return the English name of a language for a slot; None for none."""
    return normalise("language", text, languages=language_names())[0] if text else None


def _taken(source: _Source, request: Request) -> list[int]:
    """Return the clips of the splits or folds asked for; refuse what the benchmark tests on."""
    folds = {clip.fold for clip in source.clips if clip.fold is not None}
    if folds:
        if not request.folds:
            raise UsageError(
                f"has folds ({', '.join(sorted(folds))}), each of them a test fold in turn",
                where=source.where,
                remedy="say with --fold which to train on",
            )
        _require_known(request.folds, folds, "--fold")
        if set(request.folds) == folds and not request.allow_test:
            raise _tests(source, "every fold")
        return [index for index, clip in enumerate(source.clips) if clip.fold in request.folds]
    if request.folds:
        raise UsageError("has splits, no folds", where=source.where)
    _require_known(request.splits, {"train", "valid", "test"}, "--split")
    if "test" in request.splits and not request.allow_test:
        raise _tests(source, "the split test")
    return [index for index, clip in enumerate(source.clips) if clip.split in request.splits]


def _require_known(given: Sequence[str], known: set[str], option: str) -> None:
    for one in given:
        if one not in known:
            raise UsageError(f"{one!r} is not one of {', '.join(sorted(known))}", where=option)


def _tests(source: _Source, what: str) -> UsageError:
    return UsageError(
        f"{what} is what the benchmark tests on",
        where=source.where,
        remedy="an encoder trained on it cannot be scored there; --allow-test converts it all the same",
    )


def _excluded(source: _Source, lines: Sequence[str]) -> set[int]:
    """Return the clips that a label shuts out; raise UsageError for a label that no clip has."""
    shut: set[int] = set()
    for line in lines:
        column, equals, value = line.partition("=")
        if not (equals and column and value):
            raise UsageError(f"{line!r} is not COLUMN=LABEL", where="--exclude")
        names = source.facts.names(column)
        found = set()
        for index, labels in enumerate(source.column(column)):
            texts = [labels] if isinstance(labels, str) else [one for one in labels if isinstance(one, str)]
            words = normalise("labels", tuple(texts), names=names)
            if value in texts or any(value in text.split(SEPARATOR) for text in words):
                found.add(index)
        if not found:
            raise UsageError(f"no clip has {column} {value!r}", where="--exclude")
        shut |= found
    return shut


def _answers(source: _Source, question: _Question, ancestors: Ancestors) -> list[tuple[str, ...]]:
    """Return the answers to a question, clip by clip; none where the labels give none."""
    labels = source.column(question.column, question.kind)
    if question.kind in ("caption", "text"):
        labels = tuple(_listed(one) for one in labels)
    if question.kind == "labels" and ancestors:
        labels = tuple(_specific(one, ancestors) for one in labels)
    texts = [one for one in labels if isinstance(one, str)]
    # A set written in capitals throughout says nothing about case.
    lower = question.kind == "transcript" and not any(one.islower() for text in texts for one in text)
    names, languages = source.facts.names(question.column), language_names()
    found = []
    for clip, one in zip(source.clips, labels, strict=True):
        try:
            found.append(
                normalise(question.kind, one, names=names, languages=languages, lower=lower) if len(one) else ()
            )
        except InputError as error:
            raise InputError(
                f"{error.what} ({question.column} of {clip.id}, asked as {question.name})",
                where=source.where,
                remedy=error.remedy,
            ) from error
    return found


def _specific(labels: Labels, ancestors: Ancestors) -> Labels:
    if isinstance(labels, str):
        return labels
    return most_specific([one if isinstance(one, str) else one.label for one in labels], ancestors)


def _listed(labels: Labels) -> Labels:
    """Return the texts of a cell that holds a JSON list of them."""
    if isinstance(labels, str) and labels.startswith("["):
        try:
            found = parse_json(labels)
        except ValueError:
            return labels
        return tuple(found) if all(isinstance(one, str) for one in found) else labels
    return labels


def _asked(question: _Question, answers: tuple[str, ...], slots: Mapping[str, str | None]) -> Asked:
    filled = {name: value for name, value in slots.items() if value}
    if question.form is not None:
        filled["form"] = question.form
    instruction = filled.pop("question", None)
    return Asked(question.task, answers, instruction, filled)


def _require_askable(items: Sequence[Item]) -> None:
    """Raise InputError where a template's every phrase has a blank that a clip does not fill."""
    seen: set[tuple[str, frozenset[str]]] = set()
    for item in items:
        for asked in item.asked:
            kind = (asked.task, frozenset(asked.slots))
            if asked.instruction is None and kind not in seen:
                draw(asked.task, asked.slots, 0, 0, item.clip)
                seen.add(kind)


def _item(source: _Source, clip: Clip, asked: tuple[Asked, ...]) -> Item:
    return Item(
        dataset=source.name,
        split=clip.split or "train",
        clip=clip.id,
        domain=source.domain,
        licence=source.licence,
        audio=clip.audio,
        asked=asked,
        source=source.facts.source_of(clip.id, clip.group),
        start_s=clip.start_s,
        end_s=clip.end_s,
    )


def _classes(kind: AnswerKind, answers: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    single = {text for texts in answers for text in texts}
    return tuple(sorted({one for text in single for one in (text.split(SEPARATOR) if kind == "labels" else [text])}))


def count_tasks(items: Sequence[Item]) -> list[tuple[str, int, int]]:
    """Return, for each question, its name, how many rows ask it and how many different answers they have."""
    rows: Counter[str] = Counter()
    answers: dict[str, set[str]] = defaultdict(set)
    for item in items:
        for asked in item.asked:
            form = asked.slots.get("form")
            name = asked.task if form is None else f"{asked.task}/{form}"
            rows[name] += 1
            answers[name].update(asked.answers)
    return [(name, rows[name], len(answers[name])) for name in sorted(rows)]
