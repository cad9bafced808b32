"""Convert a benchmark source (a task card, a manifest or a folder) to training data: shards of clips and questions.

`COLUMN:TASK` or `COLUMN:TASK/FORM` maps a column of labels to the question asked about it. A clip is packed once,
however many questions it has. By default only training splits and folds are converted.
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
from uwbench.api import Clip, InputError, Labels, UsageError, find_manifest, load_task, read_manifest
from uwbench.base.atomic import write_atomically
from uwbench.base.json_text import parse_json
from uwbench.base.registry import suggestion

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
    """A request to convert a source.

    `source` is a task as `uwbench` takes it; a card's data lies under `data`. `ask` holds lines `COLUMN:TASK[/FORM]`,
    by default those of `wording/datasets.yaml`. `splits` and `folds` select clips: a source with folds needs
    `folds`, and `test`, or every fold, is refused without `allow_test`. Clips with a label of `exclude` (lines
    `COLUMN=LABEL`, as in
    the source or in words) are left out. `slots` holds lines `TASK.SLOT=TEXT` or `TASK.SLOT=@COLUMN`. `name`, `domain`,
    `licence` and `recording` (the publisher's ids, as in `Facts.source`) override the card and the facts. With an
    `ontology` file (see `ontology.read_ancestors`), labels that another label of the clip implies are removed. With
    `allow_outside`, a manifest's paths may leave its folder.
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
    allow_outside: bool = False


@dataclass(frozen=True, slots=True)
class Conversion:
    """The items to pack, the closed set of answers per question, and the number of clips left out, by reason."""

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


@dataclass(frozen=True, slots=True)
class _Slot:
    """A blank in a task's templates, and its value for each clip."""

    task: str
    name: str
    values: tuple[str | None, ...]


@dataclass(slots=True)
class _Source:
    """The clips of a source, and its columns of labels by name; of a manifest, those read so far."""

    name: str
    clips: tuple[Clip, ...]
    columns: dict[str, tuple[Labels, ...]]
    domain: str
    licence: str
    where: str
    manifest: Path | None = None
    facts: Facts = field(default_factory=Facts)
    allow_outside: bool = False

    def column(self, name: str, kind: AnswerKind = "label") -> tuple[Labels, ...]:
        """Return a column's labels, one per clip, `()` for an empty one; raise UsageError for an unknown column."""
        key = f"{name} {_MANIFEST_KINDS.get(kind, 'single-label')}"
        if self.manifest is None:
            if name not in self.columns:
                raise UsageError(f"has no labels {name!r}", where=self.where, remedy=suggestion(name, self.columns))
            return self.columns[name]
        if key not in self.columns:
            clips = read_manifest(
                self.manifest,
                name,
                kind=_MANIFEST_KINDS.get(kind, "single-label"),
                gaps=True,
                allow_outside=self.allow_outside,
            )
            self.columns[key] = tuple(clip.labels for clip in clips)
        return self.columns[key]


def plan_conversion(request: Request) -> Conversion:
    """Read the labels, without decoding audio, and return the items to pack.

    Raises UsageError for an impossible request, InputError for labels that do not fit their question.
    """
    source = _open(request)
    questions = [_parse_question(line) for line in request.ask or source.facts.ask]
    if not questions:
        raise UsageError("has no questions about its labels", where=source.where, remedy="give --label COLUMN:TASK")
    chosen = _chosen(source, request)
    excluded = _excluded(source, request.exclude)
    slots = [_parse_slot(line, source, questions) for line in request.slots]
    ancestors = read_ancestors(request.ontology) if request.ontology is not None else {}
    answers = {question: _answers(source, question, ancestors) for question in dict.fromkeys(questions)}
    items = []
    for index in chosen:
        if index in excluded:
            continue
        if asked := _questions_about(index, answers, slots):
            items.append(_item(source, source.clips[index], asked))
    if not items:
        raise UsageError("leaves no clip to convert", where=source.where, remedy="check --split, --fold and --exclude")
    _require_askable(items)
    n_excluded = len(excluded & set(chosen))
    return Conversion(
        dataset=source.name,
        items=tuple(items),
        classes={q.name: _classes(q.kind, texts) for q, texts in answers.items() if q.kind in CLOSED_KINDS},
        excluded=n_excluded,
        unasked=len(chosen) - n_excluded - len(items),
    )


def _questions_about(
    index: int, answers: Mapping[_Question, Sequence[tuple[str, ...]]], slots: Sequence[_Slot]
) -> tuple[Asked, ...]:
    """Return a clip's questions: those that its labels answer, with the slots of their task."""
    asked = []
    for question, by_clip in answers.items():
        if by_clip[index]:
            values = {slot.name: slot.values[index] for slot in slots if slot.task == question.task}
            asked.append(_asked(question, by_clip[index], values))
    return tuple(asked)


def convert(
    request: Request,
    output: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Conversion, Packed]:
    """Write the training data of a request to `output`, resuming an interrupted conversion; see `shards.write_shards`.

    Beside the shards, `<dataset>.classes.json` holds each question's closed set of answers over all splits.
    """
    planned = plan_conversion(request)

    def report(count: int) -> None:
        if progress is not None:
            progress(count, len(planned.items))

    packed = write_shards(
        output, planned.items, shard_bytes=shard_bytes, name=planned.dataset, workers=workers, progress=report
    )
    _write_classes(output, planned)
    return planned, packed


def read_classes(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Return a folder's closed sets, `{dataset: {question: answers}}`; raise InputError for a damaged file."""
    classes = {}
    for path in sorted(folder.glob(f"*{CLASSES}")):
        try:
            classes[path.name.removesuffix(CLASSES)] = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read ({error})", where=path) from error
    return classes


def _write_classes(folder: Path, planned: Conversion) -> None:
    text = json.dumps(planned.classes, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    write_atomically(folder / f"{planned.dataset}{CLASSES}", text.encode())


def _open(request: Request) -> _Source:
    manifest = find_manifest(request.source)
    if manifest is not None:
        name = request.name or re.sub(r"[^a-z0-9_-]+", "_", manifest.absolute().parent.name.lower()).strip("_")
        facts = facts_of(name)
        first = (request.ask or facts.ask or ("label:",))[0].partition(":")[0]
        outside = request.allow_outside
        clips = read_manifest(manifest, first, kind="transcription", gaps=True, allow_outside=outside)
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
    return _Source(
        name, clips, columns, domain or "sound", licence, request.source, manifest, facts, request.allow_outside
    )


def _parse_question(line: str) -> _Question:
    column, _, asked = line.rpartition(":")
    if not column or not asked:
        raise UsageError(f"{line!r} is not COLUMN:TASK or COLUMN:TASK/FORM", where="--label")
    task, _, form = asked.partition("/")
    find_form(task, form or None)
    return _Question(column, task, form or None)


def _parse_slot(line: str, source: _Source, questions: Sequence[_Question]) -> _Slot:
    """Parse `TASK.SLOT=TEXT` or `TASK.SLOT=@COLUMN`."""
    target, equals, value = line.partition("=")
    task, _, name = target.partition(".")
    if not (equals and name and value):
        raise UsageError(f"{line!r} is not TASK.SLOT=TEXT or TASK.SLOT=@COLUMN", where="--slot")
    if task not in {question.task for question in questions}:
        raise UsageError(f"nothing asks {task!r}", where="--slot")
    if value.startswith("@"):
        values = [text if isinstance(text, str) else None for text in source.column(value[1:])]
    else:
        values = [value] * len(source.clips)
    if name in ("language", "target"):
        values = [normalise_language(text) for text in values]
    return _Slot(task, name, tuple(values))


def normalise_language(text: str | None) -> str | None:
    """Return the English name of a language, or None for no text."""
    return normalise("language", text, languages=language_names())[0] if text else None


def _chosen(source: _Source, request: Request) -> list[int]:
    """Return the indices of the clips in the requested splits or folds; refuse those that the benchmark tests on."""
    folds = {clip.fold for clip in source.clips if clip.fold is not None}
    if folds:
        if not request.folds:
            raise UsageError(
                f"has folds ({', '.join(sorted(folds))}), each of them a test fold in turn",
                where=source.where,
                remedy="choose the training folds with --fold",
            )
        _require_known(request.folds, folds, "--fold")
        if set(request.folds) == folds and not request.allow_test:
            raise _is_test_data(source, "every fold")
        return [index for index, clip in enumerate(source.clips) if clip.fold in request.folds]
    if request.folds:
        raise UsageError("has splits, no folds", where=source.where)
    _require_known(request.splits, {"train", "valid", "test"}, "--split")
    if "test" in request.splits and not request.allow_test:
        raise _is_test_data(source, "the split test")
    return [index for index, clip in enumerate(source.clips) if clip.split in request.splits]


def _require_known(names: Sequence[str], known: set[str], option: str) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{name!r} is not one of {', '.join(sorted(known))}", where=option)


def _is_test_data(source: _Source, what: str) -> UsageError:
    return UsageError(
        f"{what} is what the benchmark tests on",
        where=source.where,
        remedy="an encoder trained on it cannot be scored there; --allow-test converts it anyway",
    )


def _excluded(source: _Source, lines: Sequence[str]) -> set[int]:
    """Return the indices of clips with an excluded label; raise UsageError for a label that no clip has."""
    excluded: set[int] = set()
    for line in lines:
        column, equals, value = line.partition("=")
        if not (equals and column and value):
            raise UsageError(f"{line!r} is not COLUMN=LABEL", where="--exclude")
        names = source.facts.names(column)
        matches = set()
        for index, labels in enumerate(source.column(column)):
            texts = [labels] if isinstance(labels, str) else [label for label in labels if isinstance(label, str)]
            words = normalise("labels", tuple(texts), names=names)
            if value in texts or any(value in text.split(SEPARATOR) for text in words):
                matches.add(index)
        if not matches:
            raise UsageError(f"no clip has {column} {value!r}", where="--exclude")
        excluded |= matches
    return excluded


def _answers(source: _Source, question: _Question, ancestors: Ancestors) -> list[tuple[str, ...]]:
    """Return the answers to a question, one tuple per clip, empty if the labels give none."""
    labels = source.column(question.column, question.kind)
    if question.kind in ("caption", "text"):
        labels = tuple(_listed(label) for label in labels)
    if question.kind == "labels" and ancestors:
        labels = tuple(_specific(label, ancestors) for label in labels)
    texts = [label for label in labels if isinstance(label, str)]
    # Transcripts all in capitals carry no case.
    lower = question.kind == "transcript" and not any(letter.islower() for text in texts for letter in text)
    names, languages = source.facts.names(question.column), language_names()
    answers: list[tuple[str, ...]] = []
    for clip, label in zip(source.clips, labels, strict=True):
        try:
            answers.append(
                normalise(question.kind, label, names=names, languages=languages, lower=lower) if len(label) else ()
            )
        except InputError as error:
            raise InputError(
                f"{error.what} ({question.column} of {clip.id}, asked as {question.name})",
                where=source.where,
                remedy=error.remedy,
            ) from error
    return answers


def _specific(labels: Labels, ancestors: Ancestors) -> Labels:
    if isinstance(labels, str):
        return labels
    return most_specific([label if isinstance(label, str) else label.label for label in labels], ancestors)


def _listed(labels: Labels) -> Labels:
    """Return the texts of a cell that holds a JSON list, and any other label as it is."""
    if isinstance(labels, str) and labels.startswith("["):
        try:
            texts = parse_json(labels)
        except ValueError:
            return labels
        return tuple(texts) if all(isinstance(text, str) for text in texts) else labels
    return labels


def _asked(question: _Question, answers: tuple[str, ...], slots: Mapping[str, str | None]) -> Asked:
    filled = {name: value for name, value in slots.items() if value}
    if question.form is not None:
        filled["form"] = question.form
    instruction = filled.pop("question", None)
    return Asked(question.task, answers, instruction, filled)


def _require_askable(items: Sequence[Item]) -> None:
    """Raise InputError if every phrase of a template has a blank that a clip does not fill."""
    checked: set[tuple[str, frozenset[str]]] = set()
    for item in items:
        for asked in item.asked:
            kind = (asked.task, frozenset(asked.slots))
            if asked.instruction is None and kind not in checked:
                draw(asked.task, asked.slots, 0, 0, item.clip)
                checked.add(kind)


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
    return tuple(sorted({name for text in single for name in (text.split(SEPARATOR) if kind == "labels" else [text])}))


def count_tasks(items: Sequence[Item]) -> list[tuple[str, int, int]]:
    """Return each question's name, its number of rows and its number of different answers."""
    rows: Counter[str] = Counter()
    answers: dict[str, set[str]] = defaultdict(set)
    for item in items:
        for asked in item.asked:
            form = asked.slots.get("form")
            name = asked.task if form is None else f"{asked.task}/{form}"
            rows[name] += 1
            answers[name].update(asked.answers)
    return [(name, rows[name], len(answers[name])) for name in sorted(rows)]
