"""The board: results of one protocol in one frozen record, which every format is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from uwbench.cards.protocol import Bootstrap
from uwbench.cards.suite import Suite
from uwbench.methods import HEADLINE, in_order
from uwbench.report.references import Published
from uwbench.report.ties import Standing, TaskDraws
from uwbench.results.averages import Average, Entry, Method, entry_of
from uwbench.results.record import Contamination, ModelInfo, Robustness, Run, Score, TaskInfo


@dataclass(frozen=True, slots=True)
class BoardModel:
    """A model on the board: `key` is its folder of results, `label` its name, made unique on the board."""

    key: str
    label: str
    info: ModelInfo
    speed: dict[str, float] | None  # clips_per_s and audio_s_per_s, medians over the encoded tasks
    device: str | None


@dataclass(frozen=True, slots=True)
class BoardTask:
    """A task on the board; `data` is the hash of the data that most results were scored on."""

    info: TaskInfo
    in_suite: bool
    data: str | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One model's score on one task by one method; `same_data` is False if most models were scored on other data."""

    model: str
    task: str
    method: Method
    score: Score
    n: int
    status: str
    same_data: bool
    run: Run
    path: Path
    contamination: Contamination
    leaked: int  # tested clips that are among the training clips
    notes: tuple[str, ...]
    robustness: Robustness | None = None  # of all methods of the result; None: no clip was corrupted
    bundle: str | None = None  # name and short hash of the verified bundle that the result is from
    disagreements: tuple[str, ...] = ()  # sentences on other results of the same revision; also in `notes`

    @property
    def state(self) -> str:
        """The status, what else keeps the score from being compared, and the bundle that it is from."""
        leak = f", {self.leaked} test clips in training" if self.leaked else ""
        other = "" if self.same_data else ", other data"
        disagrees = ", results of this revision disagree" if self.disagreements else ""
        return self.status + leak + other + disagrees + (f", from bundle {self.bundle}" if self.bundle else "")


@dataclass(frozen=True, slots=True)
class Row:
    """One model's average. `scope` is `suite`, `shared` (the tasks that all models have) or `domain:NAME`.

    `rank` counts the better models with the same tasks and data, from 1; models with other tasks or data have none.
    `standing` has the 95 % interval of its true rank and lists the models that it is tied with.
    """

    model: str
    method: Method
    scope: str
    average: Average
    rank: int | None
    standing: Standing | None


@dataclass(frozen=True, slots=True)
class OffBoard:
    """A result that is not on the board, and the reason."""

    model: str
    task: str
    status: str
    reason: str


@dataclass(frozen=True)
class Board:
    """Everything that any format shows; models are ordered by the headline average, tasks by the suite."""

    suite: Suite
    protocol: str
    protocol_version: int
    bootstrap: Bootstrap
    models: tuple[BoardModel, ...]
    tasks: tuple[BoardTask, ...]
    cells: tuple[Cell, ...]
    rows: tuple[Row, ...]
    off: tuple[OffBoard, ...]
    problems: tuple[str, ...]
    references: tuple[Published, ...]
    elsewhere: tuple[str, ...]  # of an empty board: where there are results, and the command that shows them
    draws: Mapping[Method, Mapping[str, TaskDraws]]  # paired bootstrap draws per task, if it has predictions
    caveats: tuple[str, ...] = ()  # of the protocol
    margin: float | None = None  # models whose averages differ by less are practically equal; None: none are called so
    asked_for: tuple[Method, ...] = ()  # methods that the reader named

    @cached_property
    def infos(self) -> dict[str, TaskInfo]:
        """The tasks by name."""
        return {task.info.name: task.info for task in self.tasks}

    @cached_property
    def _models(self) -> dict[str, BoardModel]:
        return {model.key: model for model in self.models}

    @cached_property
    def _cells(self) -> dict[tuple[str, str, Method], Cell]:
        return {(cell.model, cell.task, cell.method): cell for cell in self.cells}

    @cached_property
    def _rows(self) -> dict[tuple[str, Method, str, str], Row]:
        return {(row.model, row.method, row.average.name, row.scope): row for row in self.rows}

    def cell(self, model: str, task: str, method: Method) -> Cell | None:
        """Return a model's score on a task, if it has one."""
        return self._cells.get((model, task, method))

    def row(self, model: str, method: Method, average: str, scope: str = "suite") -> Row | None:
        """Return a model's average, if it has one."""
        return self._rows.get((model, method, average, scope))

    def model(self, key: str) -> BoardModel:
        """Return the model whose results are in the folder `key`."""
        return self._models[key]

    def label(self, key: str) -> str:
        """Return a model's label on this board."""
        return self._models[key].label

    def entry(self, cell: Cell) -> Entry:
        """Return a score's entry in an average."""
        return entry_of(self.infos[cell.task], cell.score)

    @property
    def notes(self) -> list[str]:
        """The notes on the data of each task, once for all models that share them."""
        models: dict[tuple[str, str], list[str]] = {}
        for cell in self.cells:
            for note in cell.notes:
                models.setdefault((cell.task, note), []).append(self.label(cell.model))
        of_task = {task: {self.label(cell.model) for cell in self.cells if cell.task == task} for task, _ in models}
        return [
            f"{task}: {note}" if set(labels) == of_task[task] else f"{task}, {', '.join(dict.fromkeys(labels))}: {note}"
            for (task, note), labels in models.items()
        ]

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods with a score on the board, in the order of the registry."""
        return in_order(cell.method for cell in self.cells)

    @property
    def first_methods(self) -> tuple[Method, ...]:
        """The methods that a terminal shows: those asked for, else the headline's, or all if the board has none."""
        wanted = self.asked_for or HEADLINE
        return tuple(method for method in self.methods if method in wanted) or self.methods
