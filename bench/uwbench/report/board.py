"""The board: results of one protocol collected into one frozen record, which every format is written from.

Averages over different task sets, or over different data of a task, are never ranked together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Literal

from uwbench.base.hashing import SHORT
from uwbench.base.registry import suggestion
from uwbench.cards.find import find_protocol, find_suite, names_of
from uwbench.cards.protocol import Bootstrap, Protocol
from uwbench.cards.suite import Suite
from uwbench.errors import UsageError
from uwbench.methods import HEADLINE, METHODS, in_order
from uwbench.report.elsewhere import commands_elsewhere, results_elsewhere
from uwbench.report.labels import labels_of
from uwbench.report.origins import bundles_of, disagreements
from uwbench.report.references import Published, load_references
from uwbench.report.ties import Standing, TaskDraws, draw_tasks, stand
from uwbench.results.averages import AVERAGES, Average, Entry, Method, average_entries, entry_of
from uwbench.results.contamination import SEEN, judge
from uwbench.results.record import Contamination, ModelInfo, Result, Robustness, Run, Score, TaskInfo, find_results

AT_HAND = "at-hand"  # name of the suite made of the tasks that have results
_BOOTSTRAP = Bootstrap(resamples=1000, level=0.95, seed=0)  # for protocols without a card


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
    every, problems = _collect(folders, lambda: commands_elsewhere(name, folders, usual))
    if card is None and all(result.protocol.name != name for _, result in every):
        known = names_of("protocol")
        raise UsageError(f"unknown protocol {name!r}", where="--protocol", remedy=suggestion(name, known))
    selected, off, version = _select(every, name, card)
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
    rows = _rows(cells, infos, suite, draws)
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


def model_key(result: Result) -> str:
    """Return a model's key: the folder of its results."""
    return f"{result.model.slug}/{result.model.fingerprint[:SHORT]}"


def suite_of(tasks: Iterable[str]) -> Suite:
    """Return the smallest built-in suite that has all of `tasks`, or else a suite of just these."""
    names = sorted(set(tasks))
    if names:
        for suite in sorted(map(find_suite, names_of("suite")), key=lambda suite: (len(suite.tasks), suite.name)):
            if set(names) <= set(suite.tasks):
                return suite
    return Suite(name=AT_HAND, version=1, title="The tasks at hand", tasks=tuple(names) or ("none",))


def card_of(protocol: str) -> Protocol | None:
    """Return a protocol's card by its name or file; None if it is a name without a card."""
    if protocol in names_of("protocol") or protocol.endswith((".yaml", ".yml")):
        return find_protocol(protocol)
    return None


def _references(suite: Suite) -> tuple[Published, ...]:
    """Return the published numbers if they share a task with the suite."""
    references = load_references()
    published = {entry.task for row in references for entry in row.entries}
    return references if published & set(suite.tasks) else ()


def _collect(
    folders: Sequence[Path], elsewhere: Callable[[], Sequence[str]]
) -> tuple[list[tuple[Path, Result]], list[str]]:
    results, problems = [], []
    for folder in folders:
        if not folder.is_dir():
            commands = elsewhere()
            remedy = f"there are {'; '.join(commands)}" if commands else "run uwbench run first"
            raise UsageError("this folder of results does not exist", where=folder, remedy=remedy)
        readable, unreadable = find_results(folder)
        results += readable
        problems += unreadable
    return results, problems


def _select(
    every: Sequence[tuple[Path, Result]], protocol: str, card: Protocol | None
) -> tuple[dict[tuple[str, str], tuple[Path, Result]], list[tuple[Result, str]], int]:
    """Return the results on the board by model and task, the others with a reason, and the protocol's version."""
    of_protocol = [(path, result) for path, result in every if result.protocol.name == protocol]
    version = max((result.protocol.version for _, result in of_protocol), default=1)
    newest: dict[str, int] = {}
    for _, result in of_protocol:
        newest[result.task.name] = max(newest.get(result.task.name, 0), result.task.version)
    rules = _rules(card, [r for _, r in of_protocol if r.protocol.version == version])
    selected: dict[tuple[str, str], tuple[Path, Result]] = {}
    off: list[tuple[Result, str]] = []
    for path, result in sorted(of_protocol, key=lambda item: item[1].run.started):
        reason = _reason_off(result, version, rules, newest[result.task.name])
        if reason is not None:
            off.append((result, reason))
            continue
        key = (model_key(result), result.task.name)
        if key in selected:
            older = selected[key][1]
            if older == result:  # one result in two folders
                continue
            other = "" if _data_of(older) == _data_of(result) else ", on other data; -t NAME=PATH keeps two tasks apart"
            off.append((older, f"a newer result is on the board ({result.run.started}){other}"))
        selected[key] = (path, result)
    return selected, [item for item in off if not _is_mended(item[0], selected)], version


def _is_mended(result: Result, selected: Mapping[tuple[str, str], tuple[Path, Result]]) -> bool:
    """Return True for a failure whose task was scored later."""
    later = selected.get((model_key(result), result.task.name))
    return result.status == "failed" and later is not None and later[1].run.started > result.run.started


def _rules(card: Protocol | None, results: Sequence[Result]) -> str | None:
    """Return the hash of the protocol on the board: the card's if results were made under it, else the newest's."""
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
    """Return what two results of a task must have in common to be comparable."""
    task = result.task
    return task.data_sha256, task.metric, task.weight, task.chance


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
        same = _data_of(result) == (info.data_sha256, info.metric, info.weight, info.chance)
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


def _rows(
    cells: Sequence[Cell],
    infos: Mapping[str, TaskInfo],
    suite: Suite,
    draws: Mapping[Method, Mapping[str, TaskDraws]],
) -> tuple[Row, ...]:
    rows: list[Row] = []
    for method in METHODS:
        by_model: dict[str, dict[str, Cell]] = {}
        for cell in cells:
            if cell.method == method and cell.task in suite.tasks:
                by_model.setdefault(cell.model, {})[cell.task] = cell
        for scope, names in _scopes(by_model, infos, suite).items():
            rows += _scope_rows(by_model, infos, method, scope, names, draws.get(method, {}))
    return tuple(rows)


def _scopes(
    by_model: Mapping[str, Mapping[str, Cell]], infos: Mapping[str, TaskInfo], suite: Suite
) -> dict[str, tuple[str, ...]]:
    """Return the sets of tasks that averages are taken over."""
    scopes = {"suite": suite.tasks}
    shared = [
        name
        for name in suite.tasks
        if by_model and all(name in cells and cells[name].same_data for cells in by_model.values())
    ]
    if shared:
        scopes["shared"] = tuple(shared)
    for domain in ("speech", "sound", "music"):
        names = tuple(name for name in suite.tasks if name in infos and infos[name].domain == domain)
        if names:
            scopes[f"domain:{domain}"] = names
    return scopes


def _scope_rows(
    by_model: Mapping[str, Mapping[str, Cell]],
    infos: Mapping[str, TaskInfo],
    method: Method,
    scope: str,
    names: Sequence[str],
    draws: Mapping[str, TaskDraws],
) -> list[Row]:
    in_scope = {model: [cells[name] for name in names if name in cells] for model, cells in by_model.items()}
    in_scope = {model: cells for model, cells in in_scope.items() if cells}
    main = _main_set(in_scope.values())
    entries = {model: [entry_of(infos[cell.task], cell.score) for cell in cells] for model, cells in in_scope.items()}
    computed = {model: average_entries(of_model, of=len(names)) for model, of_model in entries.items()}
    ranked = {model: entries[model] for model, cells in in_scope.items() if _task_set(cells) == main}
    rows = []
    for name in AVERAGES:
        standings = stand(ranked, draws, name)
        for model in in_scope:
            average = computed[model][name]
            above = sum(computed[rival][name].score > average.score for rival in ranked)
            rank = 1 + above if model in ranked else None
            rows.append(Row(model, method, scope, average, rank, standings.get(model)))
    return rows


def _task_set(cells: Sequence[Cell]) -> frozenset[str]:
    """Return what two averages must have in common to be ranked: the tasks; other data counts as another task."""
    return frozenset(cell.task if cell.same_data else f"{cell.task} of {cell.model}" for cell in cells)


def _main_set(models: Iterable[Sequence[Cell]]) -> frozenset[str] | None:
    """Return the task set that is ranked: the one with most tasks, then with most models; None if two are equal."""
    sets = Counter(_task_set(cells) for cells in models)
    order = sorted(sets, key=lambda tasks: (len(tasks), sets[tasks]), reverse=True)
    if len(order) > 1 and (len(order[0]), sets[order[0]]) == (len(order[1]), sets[order[1]]):
        return None
    return order[0] if order else None


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
