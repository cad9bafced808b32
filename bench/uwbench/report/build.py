"""A board made of the results in folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

from uwbench.base.registry import suggestion
from uwbench.cards.find import names_of
from uwbench.cards.protocol import Bootstrap, Protocol
from uwbench.cards.suite import Suite
from uwbench.errors import UsageError
from uwbench.methods import METHODS, in_order
from uwbench.report.board import Board, BoardModel, BoardTask, Cell, OffBoard, Row
from uwbench.report.elsewhere import commands_elsewhere, results_elsewhere
from uwbench.report.labels import labels_of
from uwbench.report.origins import bundles_of, disagreements
from uwbench.report.references import Published, load_references
from uwbench.report.rows import average_rows
from uwbench.report.selection import card_of, collect, data_of, model_key, select, suite_of
from uwbench.report.ties import TaskDraws, draw_tasks
from uwbench.results.averages import Method
from uwbench.results.contamination import SEEN, judge
from uwbench.results.record import Contamination, Result, TaskInfo

_BOOTSTRAP = Bootstrap(resamples=1000, level=0.95, seed=0)  # for protocols without a card


def build_board(
    results: Path | Sequence[Path],
    *,
    suite: Suite | None = None,
    protocol: str = "uwbench-1",
    references: bool = True,
    ties: bool = True,
    contaminated: Literal["keep", "drop"] = "keep",
    margin: float | None = None,
    methods: Sequence[Method] | None = None,
    usual: Sequence[Path] = (),
) -> Board:
    """Collect the results under one or several folders into a board of `protocol`, a name or the path of its file.

    Without a suite, the board takes the smallest built-in suite that has all the tasks, or else the tasks that have
    results. Failed and limited results are listed and not scored. Of two results for the same model and task, from
    several machines, the newer counts. With `contaminated="drop"`, scores of tasks that the model has seen something of
    are listed and not shown. `methods` are those to show, by default all. If nothing is left, `elsewhere` says where
    there are results: under other protocols, or in the `usual` folders. Averages that differ by less than `margin` are
    practically equal. Raises UsageError if a folder does not exist.
    """
    folders = [results] if isinstance(results, Path) else list(results)
    card = card_of(protocol)
    name = card.name if card is not None else protocol
    every, problems = collect(folders, lambda: commands_elsewhere(name, folders, usual))
    if card is None and all(result.protocol.name != name for _, result in every):
        known = names_of("protocol")
        raise UsageError(f"unknown protocol {name!r}", where="--protocol", remedy=suggestion(name, known))
    selected, off, version = select(every, name, card)
    bundles = bundles_of(folders)
    suite = suite or suite_of([result.task.name for _, result in selected.values()])
    flags = {key: _contamination(result) for key, (_, result) in selected.items()}
    if contaminated == "drop":
        seen = [key for key, flag in flags.items() if flag.flag in SEEN]
        off += [(selected.pop(key)[1], f"{flags[key].flag}: {'; '.join(flags[key].because)}") for key in seen]
    tasks = _tasks([result for _, result in selected.values()], suite)
    infos = {task.info.name: task.info for task in tasks}
    labels = labels_of({model_key(result): result.model for _, result in every})
    disagreeing = disagreements(selected, every, labels, bundles)
    settings = _settings(selected, card)
    cells, other_methods = _cells(selected, infos, flags, bundles, disagreeing, settings)
    off += other_methods
    shown = tuple(cell for cell in cells if methods is None or cell.method in methods)
    if cells and not shown:
        asked = ",".join(methods or ())
        remedy = f"uwbench run -m MODEL -t TASK --method {asked}"
        raise UsageError("no result has a score by a method asked for", where=f"--method {asked}", remedy=remedy)
    cells = shown
    bootstrap = card.bootstrap if card is not None else _BOOTSTRAP
    draws = _draws(cells, infos, bootstrap, card) if ties else {}
    rows = average_rows(cells, infos, suite, draws)
    return Board(
        suite=suite,
        protocol=name,
        protocol_version=version,
        bootstrap=bootstrap,
        models=_models(selected, labels, rows),
        tasks=tasks,
        cells=cells,
        rows=rows,
        off=tuple(
            OffBoard(labels[model_key(result)], result.task.name, result.status, reason) for result, reason in off
        ),
        problems=tuple(problems),
        references=_references(suite) if references else (),
        elsewhere=() if selected else results_elsewhere(name, folders, usual),
        draws=draws,
        caveats=card.caveats if card is not None else (),
        margin=margin,
        asked_for=tuple(methods or ()),
    )


def _references(suite: Suite) -> tuple[Published, ...]:
    """Return the published numbers if they share a task with the suite."""
    references = load_references()
    published = {entry.task for row in references for entry in row.entries}
    return references if published & set(suite.tasks) else ()


def _tasks(results: Sequence[Result], suite: Suite) -> tuple[BoardTask, ...]:
    by_name: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.run.started):
        by_name.setdefault(result.task.name, []).append(result)
    order = [name for name in suite.tasks if name in by_name] + sorted(set(by_name) - set(suite.tasks))
    tasks = []
    for name in order:
        data = Counter(data_of(result) for result in by_name[name]).most_common(1)[0][0]
        info = next(result.task for result in reversed(by_name[name]) if data_of(result) == data)
        tasks.append(BoardTask(info, name in suite.tasks, info.data_sha256))
    return tuple(tasks)


def _contamination(result: Result) -> Contamination:
    """Return the flag by the facts known today, which may be more than when the task was scored."""
    folds = any(score.per_fold for score in result.scores.values())
    task, model = result.task, result.model
    return judge(task.name, model.name, model.training_data, folds=folds, taken_from=task.taken_from)


def _cells(
    selected: Mapping[tuple[str, str], tuple[Path, Result]],
    infos: Mapping[str, TaskInfo],
    flags: Mapping[tuple[str, str], Contamination],
    bundles: Mapping[Path, str],
    disagreeing: Mapping[tuple[str, str], tuple[str, ...]],
    settings: Mapping[Method, dict[str, Any] | None],
) -> tuple[tuple[Cell, ...], list[tuple[Result, str]]]:
    """Return the scores on the board, and the results of methods that it cannot show, with the reason."""
    cells: list[Cell] = []
    off: list[tuple[Result, str]] = []
    for (model, task), (path, result) in sorted(selected.items()):
        info = infos[task]
        same = data_of(result) == (info.data_sha256, info.metric, info.weight, info.chance)
        off += [(result, f"scored by {name}, which is unknown here") for name in result.scores if name not in METHODS]
        for method in in_order(result.scores):
            score, flag = result.scores[method], flags[(model, task)]
            if not _agree(score.settings, settings[method]):
                off.append((result, f"its score by {method} was made with other settings"))
                continue
            lines = disagreeing.get((model, task), ())
            about = (result.run, path, flag, result.leaked, (*result.notes, *lines), result.robustness)
            about = (*about, bundles.get(path.parents[3]), lines)
            cells.append(Cell(model, task, method, score, result.task.n, result.status, same, *about))
    return tuple(cells), off


def _settings(
    selected: Mapping[tuple[str, str], tuple[Path, Result]], card: Protocol | None
) -> dict[Method, dict[str, Any] | None]:
    """Return each method's settings on the board: the card's if a score was made with them, else the newest score's."""
    of_scores: dict[Method, list[dict[str, Any] | None]] = {}
    for _, result in sorted(selected.values(), key=lambda entry: entry[1].run.started):
        for method, score in result.scores.items():
            of_scores.setdefault(method, []).append(score.settings)
    on_card = card.methods if card is not None else {}
    return {
        method: on_card[method]
        if method in on_card and any(_agree(on_card[method], of_score) for of_score in settings)
        else settings[-1]
        for method, settings in of_scores.items()
    }


def _agree(first: dict[str, Any] | None, second: dict[str, Any] | None) -> bool:
    """Return True if two settings of a method score alike: their version and all else that both have is equal.

    A setting that only one has was added later, as a limit for sizes that were too large before; one that moves a score
    raises the version.
    """
    if first is None or second is None:
        return first is second
    return all(first.get(name) == second.get(name) for name in {"version"} | (first.keys() & second.keys()))


def _draws(
    cells: Sequence[Cell], infos: Mapping[str, TaskInfo], bootstrap: Bootstrap, card: Protocol | None
) -> dict[Method, dict[str, TaskDraws]]:
    paths: dict[str, dict[str, dict[Method, Path]]] = {}
    for cell in cells:
        if cell.same_data:
            paths.setdefault(cell.task, {}).setdefault(cell.model, {})[cell.method] = cell.path

    def of_folds(method: Method) -> str:
        return card.metric_of_folds(method) if card is not None else "pooled"

    return draw_tasks(paths, infos, bootstrap, of_folds)


def _models(
    selected: Mapping[tuple[str, str], tuple[Path, Result]], labels: Mapping[str, str], rows: Sequence[Row]
) -> tuple[BoardModel, ...]:
    by_model: dict[str, list[Result]] = {}
    for (model, _), (_, result) in selected.items():
        by_model.setdefault(model, []).append(result)
    headline = {(row.model, row.method): row for row in rows if row.scope == "suite" and row.average.name == "weighted"}

    def place(model: str) -> tuple[float, ...]:
        first = next((row for method in METHODS if (row := headline.get((model, method))) is not None), None)
        if first is None:
            return (1, 0, 0)
        return (0, -len(first.average.tasks), -first.average.score)

    return tuple(
        _model(model, labels[model], by_model[model]) for model in sorted(by_model, key=lambda m: (place(m), m))
    )


def _model(key: str, label: str, results: Sequence[Result]) -> BoardModel:
    speeds = [result.run.speed for result in results if result.run.speed]
    names = set.intersection(*(set(speed) for speed in speeds)) if speeds else set()
    newest = max(results, key=lambda result: result.run.started)
    return BoardModel(
        key=key,
        label=label,
        info=newest.model,
        speed={name: median(speed[name] for speed in speeds) for name in sorted(names)} or None,
        device=newest.run.device,
    )
