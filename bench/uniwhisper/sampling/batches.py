"""Turn a plan into examples: read audio by byte range; choose crop, augmentation, instruction and answer by hash.

An unreadable clip does not stop a run: the next clip of its dataset that fits replaces it, always the same one, and the
log counts it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from uniwhisper.config import Augment, Wording
from uniwhisper.data.answers import list_labels
from uniwhisper.data.draws import uniform
from uniwhisper.data.examples import MAX_SAMPLES, SAMPLE_RATE, Example, Question
from uniwhisper.data.rows import Row, RowTable
from uniwhisper.data.shards import read_audio
from uniwhisper.data.templates import DEFAULT_WORDING, ask
from uniwhisper.sampling.augment import Key, a_stretch_answers, augmented, is_mixed, names_sources, together
from uniwhisper.sampling.clips import WHOLE_TASKS
from uniwhisper.sampling.schedule import Draw, Planner
from uwbench.api import AudioError, DataError, UsageError

if TYPE_CHECKING:
    import numpy as np

Options = Mapping[tuple[str, str], Sequence[str]]
_MOST_STAND_INS = 100
_NOT_AUGMENTED = Augment()
_SLACK_S = 0.1  # tolerance for audio longer than its row says


@dataclass(frozen=True)
class PlannedBatches:
    """`examples.Batches` of a plan over a table of rows, with questions worded by `wording` and audio as in `augment`.

    `options` are the possible answers to a question by dataset and `Row.question`, for wording that lists them.
    """

    table: RowTable
    planner: Planner
    wording: Wording = DEFAULT_WORDING
    options: Options = field(default_factory=dict)
    augment: Augment = _NOT_AUGMENTED

    @property
    def steps(self) -> int:
        return self.planner.steps

    def micro_batches(self, step: int, rank: int, world: int) -> list[list[Example]]:
        """Return a rank's micro-batches in a step; raise UsageError if they do not divide evenly."""
        if self.planner.sizes.micro_batches % world:
            raise UsageError(
                f"{self.planner.sizes.micro_batches} micro-batches per step cannot be divided among {world} processes",
                where="run.micro_batch_s",
                remedy="choose batch_s and micro_batch_s whose quotient is a multiple of the processes",
            )
        return [[self._example(drawn) for drawn in micro] for micro in self.planner.draws(step)[rank::world]]

    def _example(self, drawn: Draw) -> Example:
        try:
            return self._read(drawn, replaced=False)
        except AudioError as error:
            print(f"uniwhisper: {error}; another clip stands in", file=sys.stderr)
        for _, unit in zip(range(_MOST_STAND_INS), self.planner.stand_ins(drawn), strict=False):
            try:
                return self._read(Draw(unit, drawn.visit, drawn.pad30), replaced=True)
            except AudioError:
                continue
        name = self.planner.units.names[self.planner.units.dataset[drawn.unit]]
        raise DataError(
            "no readable clip can replace an unreadable one",
            where=name,
            remedy="check the shards: uniwhisper check",
        )

    def _read(self, drawn: Draw, *, replaced: bool) -> Example:
        rows = [self.table[index] for index in self.planner.questions(drawn)]
        key = (self.planner.seed, drawn.visit, rows[0].id)
        audio = heard(rows[0], self.planner.seed, drawn.visit, whole=any(row.task in WHOLE_TASKS for row in rows))
        mixed = self._mixed(drawn, audio, key) if is_mixed(self.augment, key) else None
        if mixed is None:
            questions = tuple(self._ask(row, drawn.visit) for row in rows)
        else:
            audio, questions = mixed
        cut = mixed is None and all(a_stretch_answers(row) for row in rows)
        return Example(
            row=rows[0].id,
            dataset=rows[0].dataset,
            audio=augmented(audio, self.augment, key, cut=cut),
            questions=questions,
            domain=rows[0].domain,
            pad30=drawn.pad30,
            replaced=replaced,
        )

    def _mixed(self, drawn: Draw, audio: np.ndarray, key: Key) -> tuple[np.ndarray, tuple[Question, ...]] | None:
        """Return a clip heard together with another one, and the questions that the labels of both answer.

        None if the clip is asked for no labels, or none of the clips that fit is both audible and asked the same.
        """
        naming = self._naming(drawn.unit)
        asked = {row.question: index for index, row in naming.items()}
        for unit in self.planner.partners(drawn) if asked else ():
            others = {asked[row.question]: row for row in self._naming(unit).values() if row.question in asked}
            if not others:
                continue
            try:
                other = heard(next(iter(others.values())), self.planner.seed, drawn.visit, whole=False)
            except AudioError as error:
                print(f"uniwhisper: {error}; another clip is mixed in", file=sys.stderr)
                continue
            if (both := together(audio, other, self.augment, key)) is not None:
                turn = self.planner.questions(drawn, sorted(others))
                return both, tuple(self._ask_both(naming[row], others[row], drawn.visit) for row in turn)
        return None

    def _naming(self, unit: int) -> dict[int, Row]:
        """Return the rows of a unit that ask what sounds."""
        rows = {index: self.table[index] for index in self.planner.units.rows_of(unit)}
        return {index: row for index, row in rows.items() if names_sources(row)}

    def _ask_both(self, row: Row, other: Row, visit: int) -> Question:
        """Return the question about two clips heard together: its answer lists the labels of both."""
        question = self._ask(row, visit)
        parts = (question.answer, self._ask(other, visit).answer)
        return replace(question, answer=list_labels(parts, self.planner.seed, visit, row.id), parts=parts)

    def _ask(self, row: Row, visit: int) -> Question:
        options = self.options.get((row.dataset, row.question), ())
        return ask(row, self.planner.seed, visit, wording=self.wording, options=options)


def heard(row: Row, seed: int, visit: int, *, whole: bool) -> np.ndarray:
    """Return a row's audio as float32 at 16 kHz; of a long clip, 30 s from a start that depends on the visit.

    With `whole` nothing is cropped. Raises AudioError if the audio is unreadable or longer than its row says, which the
    plan does not allow for.
    """
    audio = read_audio(row)
    seconds = len(audio) / SAMPLE_RATE
    if seconds > row.duration_s + _SLACK_S:
        raise AudioError(f"lasts {seconds:.2f} s, its row says {row.duration_s:.2f} s", where=row.id)
    if whole or len(audio) <= MAX_SAMPLES:
        return audio
    start = int(uniform(seed, visit, row.id, "crop") * (len(audio) - MAX_SAMPLES + 1))
    return audio[start : start + MAX_SAMPLES]
