"""Question templates: phrases of the same meaning, of which a hash draws one.

The wording is data (`wording/templates.yaml`). A drawn instruction depends on the seed, the epoch and the row alone, so
that a resumed run asks what the run it resumes would have asked.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import Field

from uniwhisper.config import Wording, validated
from uniwhisper.data.answers import AnswerKind, draw_answer
from uniwhisper.data.draws import pick, uniform
from uniwhisper.data.examples import Question
from uniwhisper.data.rows import Row
from uniwhisper.data.wording import read_wording
from uwbench.api import InputError, UsageError
from uwbench.base.registry import suggestion
from uwbench.base.schema import Closed


class Form(Closed):
    """One question: its phrases (the first is canonical), bare lines, and the kind of answer."""

    answer: AnswerKind
    phrases: tuple[str, ...] = Field(min_length=1)
    bare: tuple[str, ...] = ()


class Template(Form):
    """A task: its question, and other questions of the same task by name."""

    forms: dict[str, Form] = Field(default_factory=dict)


DEFAULT_WORDING = Wording()


@lru_cache(maxsize=1)
def templates() -> dict[str, Template]:
    """Return the templates by task."""
    read: dict[str, Any] = read_wording("templates")
    return {task: validated(Template, fields, "wording/templates.yaml") for task, fields in read.items()}


def find_form(task: str, form: str | None = None) -> Form:
    """Return the question of a task, or one of its forms; raise UsageError for an unknown name."""
    template = templates().get(task)
    if template is None:
        raise UsageError(f"no task {task!r}", remedy=suggestion(task, templates()))
    if form is None:
        return template
    if form not in template.forms:
        raise UsageError(f"the task {task} has no form {form!r}", remedy=suggestion(form, template.forms))
    return template.forms[form]


def draw(
    task: str,
    slots: Mapping[str, str],
    seed: int,
    epoch: int,
    row_id: str,
    *,
    wording: Wording = DEFAULT_WORDING,
    options: Sequence[str] = (),
) -> str:
    """Return an instruction for a task, its blanks filled from `slots`; pure in its arguments.

    The slot `form` names another question of the task; `options` are the possible answers. Raises UsageError for an
    unknown task or form, InputError where every phrase has a blank that `slots` do not fill.
    """
    form = find_form(task, slots.get("form"))
    phrases = _fillable(form.phrases[: wording.phrases], slots)
    bare = _fillable(form.bare, slots)
    share = {"varied": wording.bare_share, "canonical": 0.0, "tag": 1.0}[wording.instructions]
    if bare and (not phrases or uniform(seed, epoch, row_id, "bare") < share):
        phrases = bare
    if not phrases:
        missing = sorted(_blanks(form.phrases[0]) - set(slots))
        raise InputError(f"the task {task} needs {', '.join(missing)}", where=row_id)
    if wording.instructions != "varied":
        phrases = phrases[:1]
    text = phrases[pick(len(phrases), seed, epoch, row_id, "phrase")].format_map(slots)
    if options and uniform(seed, epoch, row_id, "options") < wording.options_prob:
        text += f" Options: {', '.join(options)}."
    return text


def ask(
    row: Row, seed: int, epoch: int, *, wording: Wording = DEFAULT_WORDING, options: Sequence[str] = ()
) -> Question:
    """Return a row's question in an epoch: its own instruction or a drawn one, and one of its answers; pure."""
    instruction = row.instruction
    if instruction is None:
        instruction = draw(row.task, row.slots, seed, epoch, row.id, wording=wording, options=options)
    kind = find_form(row.task, row.slots.get("form")).answer
    return Question(instruction, draw_answer(row.answers, kind, seed, epoch, row.id), row.task, row.question)


def _fillable(phrases: Sequence[str], slots: Mapping[str, str]) -> list[str]:
    return [phrase for phrase in phrases if _blanks(phrase) <= set(slots)]


def _blanks(phrase: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(phrase) if name}
