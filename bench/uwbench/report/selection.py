"""Which results are on a board: of those in the folders, the newest made under one protocol and its rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from uwbench.base.hashing import SHORT
from uwbench.cards.find import find_protocol, find_suite, names_of
from uwbench.cards.protocol import Protocol
from uwbench.cards.suite import Suite
from uwbench.errors import UsageError
from uwbench.results.record import Result, find_results

AT_HAND = "at-hand"  # name of the suite made of the tasks that have results


def collect(
    folders: Sequence[Path], elsewhere: Callable[[], Sequence[str]]
) -> tuple[list[tuple[Path, Result]], list[str]]:
    """Read the results in folders; return them with their paths, and a line for each file that cannot be read."""
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


def select(
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
            other = "" if data_of(older) == data_of(result) else ", on other data; -t NAME=PATH keeps two tasks apart"
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


def data_of(result: Result) -> tuple[str | None, str, float, float]:
    """Return what two results of a task must have in common to be comparable."""
    task = result.task
    return task.data_sha256, task.metric, task.weight, task.chance


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
