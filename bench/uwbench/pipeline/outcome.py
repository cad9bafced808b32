"""The outcome of a run: its results by model and task, and whatever failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uwbench.progress import Reporter

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from uwbench.extraction.extract import Extraction
    from uwbench.results.record import Result

_SHOWN = 4  # tasks that a note names


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task under one model: what was extracted, the result with its file, and what failed."""

    model: str
    task: str
    extracted: bool = False
    extraction: Extraction | None = None  # None although extracted: everything was cached
    result: tuple[Path, Result] | None = None
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # methods that do not apply to the task


@dataclass(frozen=True, slots=True)
class Results:
    """The outcome of a run: results by model and task, what failed, and which tasks were not at hand."""

    runs: tuple[TaskRun, ...] = ()
    missing: tuple[str, ...] = ()  # tasks whose data is not at hand, with the reason
    refused: tuple[str, ...] = ()  # tasks and cached encoders that could not be opened at all, with the reason
    suite: str | None = None
    caveats: tuple[str, ...] = ()  # of the protocol
    methods: tuple[str, ...] = ()  # that the run was asked for; a result may hold scores of earlier runs by others

    @property
    def results(self) -> list[tuple[Path, Result]]:
        """Each result with the path of its file."""
        return [run.result for run in self.runs if run.result is not None]

    @property
    def extractions(self) -> list[tuple[str, str, Extraction | None]]:
        """Model, task and extraction of each task whose embeddings are in the cache; None: all were cached before."""
        return [(run.model, run.task, run.extraction) for run in self.runs if run.extracted]

    @property
    def failures(self) -> list[str]:
        """One line for each failure."""
        return [*self.refused, *(failure for run in self.runs for failure in run.failures)]

    @property
    def notes(self) -> list[str]:
        """One line for each method that was asked for and does not apply to a task."""
        return list(dict.fromkeys(note for run in self.runs for note in run.notes))

    @property
    def exit_code(self) -> int:
        """1 if anything failed, else 0."""
        return 1 if self.failures else 0

    def to_frame(self) -> pd.DataFrame:
        """Return one row per score: model, task, method, score, low, high, n, status, contamination.

        `low` and `high` bound the 95 % interval. A task that failed has one row, without method and score.
        """
        import pandas as pd

        labels = self._labels()
        rows = [row for _, result in self.results for row in _frame_rows(result, labels[result.model.fingerprint])]
        columns = ["model", "task", "method", "score", "low", "high", "n", "status", "contamination"]
        return pd.DataFrame(rows, columns=columns)

    def predictions_frame(self) -> pd.DataFrame:
        """Return one row per prediction: model, task, method, seed, fold, id, group, truth, prediction.

        Truth and prediction are a label, or a list of labels if the task gives a clip several.
        """
        import pandas as pd

        from uwbench.base.json_text import parse_json
        from uwbench.results.record import read_predictions

        columns = ["method", "seed", "fold", "id", "group", "truth", "prediction"]
        frames, labels = [], self._labels()
        for path, result in self.results:
            if result.scores:
                frame = read_predictions(path, columns).to_pandas()
                for column in ("truth", "prediction"):
                    frame[column] = [text and parse_json(text) for text in frame[column]]
                frame.insert(0, "task", result.task.name)
                frame.insert(0, "model", labels[result.model.fingerprint])
                frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["model", "task", *columns])

    def _labels(self) -> dict[str, str]:
        """Return what tables call each model, by its fingerprint."""
        from uwbench.report.labels import labels_of

        return labels_of({result.model.fingerprint: result.model for _, result in self.results})

    def __repr__(self) -> str:
        missing, failed = (f"missing: {line}" for line in self.missing), (f"failed: {line}" for line in self.failures)
        return "\n".join([repr(self.to_frame()), *missing, *failed])

    def view(self, *, verbose: bool = False) -> RenderableType:
        """Return the tables for a terminal: one per model, the averages, and where the results are.

        Tables have the columns that fit into the terminal; with `verbose` all, also what the probes chose.
        """
        from rich.console import Group

        from uwbench.cards.find import find_suite
        from uwbench.report.selection import suite_of
        from uwbench.report.table import run_view

        results = [result for _, result in self.results]
        if not results:
            return Group()
        suite = find_suite(self.suite) if self.suite else suite_of([result.task.name for result in results])
        paths = [path.parent for path, _ in self.results]
        return run_view(results, suite, methods=self.methods, paths=paths, caveats=self.caveats, verbose=verbose)

    def __rich__(self) -> RenderableType:
        return self.view()

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        notes = [*(f"failed: {line}" for line in self.failures), *(f"not at hand: {line}" for line in self.missing)]
        notes += self.caveats
        return "".join([frame.to_html(index=False, na_rep="", float_format="{:.3f}".format), *map(_paragraph, notes)])


def report_notes(runs: Iterable[TaskRun], reporter: Reporter) -> None:
    """Tell which methods do not apply to which tasks: one note per method and reason."""
    tasks: dict[str, dict[str, None]] = {}
    for run in runs:
        for note in run.notes:
            task, _, reason = note.partition(": ")
            tasks.setdefault(reason, {})[task] = None
    for reason, names in tasks.items():
        shown = ", ".join(list(names)[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        reporter.note(f"note: {shown}: {reason}")


def _frame_rows(result: Result, label: str) -> Iterator[dict[str, object]]:
    common = {
        "model": label,
        "task": result.task.name,
        "n": result.task.n,
        "status": result.status,
        "contamination": result.contamination.flag if result.contamination else None,
    }
    if not result.scores:
        yield common
    for method, score in result.scores.items():
        low, high = score.ci95 or (None, None)
        yield {**common, "method": method, "score": score.main_score, "low": low, "high": high}


def _paragraph(text: str) -> str:
    import html

    return f"<p>{html.escape(text)}</p>"
