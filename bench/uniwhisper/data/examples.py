"""The trainer's input: decoded clips with their questions, in micro-batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

SAMPLE_RATE = 16_000
MAX_SAMPLES = 30 * SAMPLE_RATE
MIN_SAMPLES = SAMPLE_RATE  # shorter clips are padded to one second


@dataclass(frozen=True, slots=True)
class Question:
    """An instruction about a clip, the answer to learn, their task, and the question's name (see `Row.question`).

    `parts` are the answers of the clips that are heard together, where there are several; `answer` lists their labels.
    """

    instruction: str
    answer: str
    task: str
    name: str = ""
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """A clip, `(samples,)` float32 mono at 16 kHz of at most 30 s, and its questions.

    `pad30` asks for silence up to 30 s; `replaced` marks a clip that replaces an unreadable one.
    """

    row: str
    dataset: str
    audio: np.ndarray
    questions: tuple[Question, ...]
    domain: str = ""
    pad30: bool = False
    replaced: bool = False


class Batches(Protocol):
    """Training data by step.

    A global step holds the same examples in every world: its micro-batches, in their order, are dealt out to the
    ranks, and each rank gets as many as the others. `steps` is the number of steps there are, None without an end.
    """

    @property
    def steps(self) -> int | None: ...

    def micro_batches(self, step: int, rank: int, world: int) -> list[list[Example]]:
        """Return a rank's micro-batches in global step `step`; a pure function of its arguments."""
        ...
