"""The board: results collected into one frozen record, from which the table, CSV, Markdown, JSON and HTML are written.

A board holds one protocol. Averages over different task sets, or over different data of a task, are never ranked
together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from uwbench.base.hashing import SHORT
from uwbench.cards.find import find_protocol, find_suite, names_of
from uwbench.cards.protocol import Bootstrap, Protocol
from uwbench.cards.suite import Suite
from uwbench.errors import UsageError, printable
from uwbench.report.references import Published, load_references
from uwbench.report.ties import Standing, TaskDraws, draw_tasks, stand
from uwbench.results.averages import AVERAGES, METHODS, Average, Entry, Method, average_entries
from uwbench.results.contamination import SEEN, judge
from uwbench.results.record import Contamination, ModelInfo, Result, Run, Score, TaskInfo, find_results

AT_HAND = "at-hand"  # the suite of whatever tasks the results hold
_BOOTSTRAP = Bootstrap(resamples=1000, level=0.95, seed=0)  # where no card says otherwise


@dataclass(frozen=True, slots=True)
class BoardModel:
    """A model on the board: `key` is its folder of results, `label` its name made unique among the board's."""

    key: str
    label: str
    info: ModelInfo
    speed: dict[str, float] | None  # clips_per_s and audio_s_per_s, the median over the tasks that were encoded
    device: str | None


@dataclass(frozen=True, slots=True)
class BoardTask:
    """A task on the board. `data` is the identity of the data that most results were scored on."""

    info: TaskInfo
    in_suite: bool
    data: str | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One model's score of one task by one method. `same_data` is False where it was scored on other data than most."""

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


@dataclass(frozen=True, slots=True)
class Row:
    """One model's average. `scope` is `suite`, `shared` (the tasks all models hold) or `domain:NAME`.

    `rank` is the place among the models with the same tasks and data, None for models off that set. `standing` says how
    many of them are significantly better, and who is not distinguishable.
    """

    model: str
    method: Method
    scope: str
    average: Average
    rank: int | None
    standing: Standing | None


@dataclass(frozen=True, slots=True)
class OffBoard:
    """A result that is on record and not on the board, and why."""

    model: str
    task: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Board:
    """All that any format shows; models are ordered by the headline average, tasks by the suite."""

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
    draws: Mapping[Method, Mapping[str, TaskDraws]]  # paired bootstrap draws a task, where predictions are at hand

    def cell(self, model: str, task: str, method: Method) -> Cell | None:
        """Return a model's score of a task, if it has one."""
        wanted = (model, task, method)
        return next((cell for cell in self.cells if (cell.model, cell.task, cell.method) == wanted), None)

    def row(self, model: str, method: Method, average: str, scope: str = "suite") -> Row | None:
        """Return a model's average, if it has one."""
        wanted = (model, method, average, scope)
        return next((r for r in self.rows if (r.model, r.method, r.average.name, r.scope) == wanted), None)

    def label(self, model: str) -> str:
        """Return what a model is called on this board."""
        return next(found.label for found in self.models if found.key == model)

    @property
    def methods(self) -> tuple[Method, ...]:
        present = {cell.method for cell in self.cells}
        return tuple(method for method in METHODS if method in present)


def build_board(
    results: Path | Sequence[Path],
    *,
    suite: Suite | None = None,
    protocol: str = "uwbench-1",
    references: bool = True,
    ties: bool = True,
    contaminated: Literal["keep", "drop"] = "keep",
) -> Board:
    """Collect the results under one or several folders into a board of `protocol`, a name or the path of its file.

    Without a suite, the board takes the smallest built-in suite that holds all the tasks found, else the tasks found as
    they are. Failed and limited results are listed and not scored. Of two results of the same model, task and data
    (from several machines) the newer counts. With `contaminated="drop"`, scores of tasks that the model is known to
    have seen something of are listed and not shown. Raises UsageError where a folder does not exist.
    """
    folders = [results] if isinstance(results, Path) else list(results)
    found, problems = _collect(folders)
    rules = _protocol(protocol)
    name = rules.name if rules is not None else protocol
    kept, off, version = _select(found, name, rules)
    suite = suite or suite_of([result.task.name for _, result in kept.values()])
    judged = {key: _contamination(result) for key, (_, result) in kept.items()}
    if contaminated == "drop":
        seen = [key for key, found in judged.items() if found.flag in SEEN]
        off += [(kept.pop(key)[1], f"{judged[key].flag}: {'; '.join(judged[key].because)}") for key in seen]
    tasks = _tasks([result for _, result in kept.values()], suite)
    labels = _labels([result for _, result in found])
    cells = _cells(kept, {task.info.name: task for task in tasks}, judged)
    bootstrap = rules.bootstrap if rules is not None else _BOOTSTRAP
    draws = _draws(cells, tasks, bootstrap, rules) if ties else {}
    rows = _rows(cells, tasks, suite, draws)
    return Board(
        suite=suite,
        protocol=name,
        protocol_version=version,
        bootstrap=bootstrap,
        models=_models(kept, labels, rows),
        tasks=tasks,
        cells=cells,
        rows=rows,
        off=tuple(
            OffBoard(labels[model_key(result)], result.task.name, result.status, reason) for result, reason in off
        ),
        problems=tuple(problems),
        references=_references(suite) if references else (),
        draws=draws,
    )


def model_key(result: Result) -> str:
    """Return the identity of a model among results: the folder its results are in."""
    return f"{result.model.slug}/{result.model.fingerprint[:SHORT]}"


def suite_of(tasks: Iterable[str]) -> Suite:
    """Return the smallest built-in suite that holds all of `tasks`, else a suite of just these."""
    held = sorted(set(tasks))
    if held:
        for name in sorted(names_of("suite"), key=lambda name: (len(find_suite(name).tasks), name)):
            suite = find_suite(name)
            if set(held) <= set(suite.tasks):
                return suite
    return Suite(name=AT_HAND, version=1, title="The tasks at hand", tasks=tuple(held) or ("none",))


def _protocol(protocol: str) -> Protocol | None:
    """Return a protocol's card by its name or file; None where only results know the name."""
    if protocol in names_of("protocol") or protocol.endswith((".yaml", ".yml")):
        return find_protocol(protocol)
    return None


def _references(suite: Suite) -> tuple[Published, ...]:
    """Return the published numbers where the suite holds tasks that they are about."""
    found = load_references()
    published = {entry.task for row in found for entry in row.entries}
    return found if published & set(suite.tasks) else ()


def _collect(folders: Sequence[Path]) -> tuple[list[tuple[Path, Result]], list[str]]:
    found, problems = [], []
    for folder in folders:
        if not folder.is_dir():
            raise UsageError("there is no such folder of results", where=folder, remedy="run uwbench run first")
        here, bad = find_results(folder)
        found += here
        problems += bad
    return found, problems


def _select(
    found: Sequence[tuple[Path, Result]], protocol: str, card: Protocol | None
) -> tuple[dict[tuple[str, str], tuple[Path, Result]], list[tuple[Result, str]], int]:
    """Return the results on the board by model and task, the others with the reason, and the protocol's version."""
    of_protocol = [(path, result) for path, result in found if result.protocol.name == protocol]
    version = max((result.protocol.version for _, result in of_protocol), default=1)
    newest: dict[str, int] = {}
    for _, result in of_protocol:
        newest[result.task.name] = max(newest.get(result.task.name, 0), result.task.version)
    rules = _rules(card, [r for _, r in of_protocol if r.protocol.version == version])
    kept: dict[tuple[str, str], tuple[Path, Result]] = {}
    off: list[tuple[Result, str]] = []
    for path, result in sorted(of_protocol, key=lambda item: item[1].run.started):
        reason = _reason_off(result, version, rules, newest[result.task.name])
        if reason is not None:
            off.append((result, reason))
            continue
        key = (model_key(result), result.task.name)
        if key in kept:
            off.append((kept[key][1], f"a newer result is on the board ({result.run.started})"))
        kept[key] = (path, result)
    return kept, off, version


def _rules(card: Protocol | None, results: Sequence[Result]) -> str | None:
    """Return the hash of the protocol that the board shows: the card's where results hold it, else the newest's."""
    if card is not None and card.sha256() in {result.protocol.sha256 for result in results}:
        return card.sha256()
    newest = max(results, key=lambda result: result.run.started, default=None)
    return None if newest is None else newest.protocol.sha256


def _reason_off(result: Result, version: int, rules: str | None, task_version: int) -> str | None:
    if result.status == "failed":
        return str(result.error.message) if result.error is not None else "failed"
    if result.status == "limited":
        return "made with --limit, on a part of the clips"
    if result.protocol.version != version:
        return f"made under version {result.protocol.version} of the protocol; the board shows version {version}"
    if result.protocol.sha256 != rules:
        return "made under other rules that carry the protocol's name and version"
    if result.task.version != task_version:
        return f"version {result.task.version} of the task; the board shows version {task_version}"
    return None


def _tasks(results: Sequence[Result], suite: Suite) -> tuple[BoardTask, ...]:
    by_name: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.run.started):
        by_name.setdefault(result.task.name, []).append(result)
    order = [name for name in suite.tasks if name in by_name] + sorted(set(by_name) - set(suite.tasks))
    tasks = []
    for name in order:
        data = Counter(_data_of(result) for result in by_name[name]).most_common(1)[0][0]
        info = next(result.task for result in reversed(by_name[name]) if _data_of(result) == data)
        tasks.append(BoardTask(info, name in suite.tasks, info.data_sha256))
    return tuple(tasks)


def _data_of(result: Result) -> tuple[str | None, str, float, float]:
    """Return what two results of a task must have in common to be compared."""
    task = result.task
    return task.data_sha256, task.metric, task.weight, task.chance


def _labels(results: Sequence[Result]) -> dict[str, str]:
    """Return a label a model: its name, and where names meet what tells them apart."""
    infos = {model_key(result): result.model for result in results}
    names = Counter(info.name for info in infos.values())
    labels = {}
    for key, info in infos.items():
        rivals = [other for other in infos.values() if other.name == info.name]
        contexts = Counter(other.context for other in rivals)
        if names[info.name] == 1:
            labels[key] = info.name
        elif info.context is not None and contexts[info.context] == 1:
            labels[key] = f"{info.name} ({info.context})"
        else:
            labels[key] = f"{info.name} [{info.fingerprint[:SHORT]}]"
    return labels


def _contamination(result: Result) -> Contamination:
    """Return the flag by what is known today, which may be more than when the task was scored."""
    folds = any(score.per_fold for score in result.scores.values())
    return judge(result.task.name, result.model.name, result.model.training_data, folds=folds)


def _cells(
    kept: Mapping[tuple[str, str], tuple[Path, Result]],
    tasks: Mapping[str, BoardTask],
    judged: Mapping[tuple[str, str], Contamination],
) -> tuple[Cell, ...]:
    cells = []
    for (model, task), (path, result) in sorted(kept.items()):
        info = tasks[task].info
        same = _data_of(result) == (info.data_sha256, info.metric, info.weight, info.chance)
        for method in METHODS:
            if method in result.scores:
                score, flag = result.scores[method], judged[(model, task)]
                cells.append(
                    Cell(model, task, method, score, result.task.n, result.status, same, result.run, path, flag)
                )
    return tuple(cells)


def _draws(
    cells: Sequence[Cell], tasks: Sequence[BoardTask], bootstrap: Bootstrap, card: Protocol | None
) -> dict[Method, dict[str, TaskDraws]]:
    infos = {task.info.name: task.info for task in tasks}
    paths: dict[Method, dict[str, dict[str, Path]]] = {}
    for cell in cells:
        if cell.same_data:
            paths.setdefault(cell.method, {}).setdefault(cell.model, {})[cell.task] = cell.path
    folds = card.metric_of_folds() if card is not None else dict.fromkeys(METHODS, "pooled")
    return {method: draw_tasks(own, infos, method, bootstrap, folds[method]) for method, own in paths.items()}


def _rows(
    cells: Sequence[Cell],
    tasks: Sequence[BoardTask],
    suite: Suite,
    draws: Mapping[Method, Mapping[str, TaskDraws]],
) -> tuple[Row, ...]:
    infos = {task.info.name: task.info for task in tasks}
    rows: list[Row] = []
    for method in METHODS:
        held: dict[str, dict[str, Cell]] = {}
        for cell in cells:
            if cell.method == method and cell.task in suite.tasks:
                held.setdefault(cell.model, {})[cell.task] = cell
        for scope, names in _scopes(held, infos, suite).items():
            rows += _scope_rows(held, infos, method, scope, names, draws.get(method, {}))
    return tuple(rows)


def _scopes(
    held: Mapping[str, Mapping[str, Cell]], infos: Mapping[str, TaskInfo], suite: Suite
) -> dict[str, tuple[str, ...]]:
    """Return the sets of tasks that averages are taken over."""
    scopes = {"suite": suite.tasks}
    shared = [
        name for name in suite.tasks if held and all(name in own and own[name].same_data for own in held.values())
    ]
    if shared:
        scopes["shared"] = tuple(shared)
    for domain in ("speech", "sound", "music"):
        names = tuple(name for name in suite.tasks if name in infos and infos[name].domain == domain)
        if names:
            scopes[f"domain:{domain}"] = names
    return scopes


def _scope_rows(
    held: Mapping[str, Mapping[str, Cell]],
    infos: Mapping[str, TaskInfo],
    method: Method,
    scope: str,
    names: Sequence[str],
    draws: Mapping[str, TaskDraws],
) -> list[Row]:
    found = {model: [own[name] for name in names if name in own] for model, own in held.items()}
    found = {model: own for model, own in found.items() if own}
    main = _main_set(found.values())
    entries = {model: [_entry(cell, infos[cell.task]) for cell in own] for model, own in found.items()}
    computed = {model: average_entries(own, of=len(names)) for model, own in entries.items()}
    ranked = {model: entries[model] for model, own in found.items() if main is not None and _task_set(own) == main}
    rows = []
    for name in AVERAGES:
        standings = stand(ranked, draws, name)
        for model in found:
            average = computed[model][name]
            above = sum(computed[other][name].score > average.score for other in ranked)
            rank = 1 + above if model in ranked else None
            rows.append(Row(model, method, scope, average, rank, standings.get(model)))
    return rows


def _entry(cell: Cell, info: TaskInfo) -> Entry:
    low, high = cell.score.ci95 or (None, None)
    return Entry(cell.task, info.domain, info.weight, info.chance, cell.score.main_score, low, high)


def _task_set(cells: Sequence[Cell]) -> frozenset[str]:
    """Return what two averages must have in common to be ranked: the tasks; other data makes another task."""
    return frozenset(cell.task if cell.same_data else f"{cell.task} of {cell.model}" for cell in cells)


def _main_set(found: Iterable[Sequence[Cell]]) -> frozenset[str] | None:
    """Return the task set that is ranked: that of most tasks, then of most models; None where two sets tie for it."""
    sets = Counter(_task_set(cells) for cells in found)
    order = sorted(sets, key=lambda tasks: (len(tasks), sets[tasks]), reverse=True)
    if len(order) > 1 and (len(order[0]), sets[order[0]]) == (len(order[1]), sets[order[1]]):
        return None
    return order[0] if order else None


def _models(
    kept: Mapping[tuple[str, str], tuple[Path, Result]], labels: Mapping[str, str], rows: Sequence[Row]
) -> tuple[BoardModel, ...]:
    by_model: dict[str, list[Result]] = {}
    for (model, _), (_, result) in kept.items():
        by_model.setdefault(model, []).append(result)
    headline = {(row.model, row.method): row for row in rows if row.scope == "suite" and row.average.name == "weighted"}

    def place(model: str) -> tuple[float, ...]:
        found = [headline.get((model, method)) for method in METHODS]
        first = next((row for row in found if row is not None), None)
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
        label=printable(label),
        info=newest.model,
        speed={name: median(speed[name] for speed in speeds) for name in sorted(names)} or None,
        device=newest.run.device,
    )
