"""Kill or stop a process at a random moment, then run the same command again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from world import Child, Tally, Verdict, World, compare, contents, entered, expect, finished_work_is_kept

STOPS_WITHIN_S = 2.0


def kill_extract(world: World, tries: int) -> Tally:
    """Kill -9 while clips are encoded, with and without frames in turn."""
    tally = Tally("kill -9 during extract")
    for number, moment in enumerate(world.moments("extract", tries)):
        make = world.extract_frames if number % 2 else world.extract
        tally.add(_disturbed_extract(world, make, moment, _kill)[0])
    return tally


def kill_probe(world: World, tries: int) -> Tally:
    """Kill -9 while a task is scored, into an empty folder and over earlier results in turn."""
    tally = Tally("kill -9 during probe")
    expected = contents(world.results)
    for number, moment in enumerate(world.moments("probe", tries)):
        results = world.copy_of(world.results) if number % 2 else world.new("results")
        words = world.probe(world.cache, results)
        _at(world.start(words), moment, _kill)
        # Whatever is there now must be whole: every file equals that of the undisturbed run.
        tally.add(
            Verdict(wrong=compare(expected, contents(results)).wrong)
            + world.finish(words)
            + compare(expected, contents(results))
        )
    return tally


def kill_report(world: World, tries: int) -> Tally:
    """Kill -9 while leaderboards are written, into an empty folder and over an earlier one in turn."""
    tally = Tally("kill -9 during leaderboard")
    for number, moment in enumerate(world.moments("leaderboard", tries)):
        kind = ("html", "csv", "md")[number % 3]
        name = f"board.{kind}"
        expected = {name: contents(world.boards)[name]}
        boards = world.new("boards")
        if number % 2:
            boards.mkdir()
            (boards / name).write_bytes((world.boards / name).read_bytes())
        words = world.leaderboard(world.results, boards, kind)
        _at(world.start(words), moment, _kill)
        tally.add(
            Verdict(wrong=compare(expected, contents(boards)).wrong)
            + world.finish(words)
            + compare(expected, contents(boards))
        )
    return tally


def stop_extract(world: World, tries: int) -> Tally:
    """SIGINT and SIGTERM while clips are encoded: the command ends in time, and the next run goes on."""
    tally = Tally("SIGINT and SIGTERM during extract")
    worst = 0.0
    for number, moment in enumerate(world.moments("extract", tries)):
        send = (signal.SIGINT, signal.SIGTERM)[number % 2]
        verdict, took = _disturbed_extract(world, world.extract, moment, _stop(send))
        worst = max(worst, took)
        tally.add(verdict + expect(took < STOPS_WITHIN_S, f"took {took:.2f} s to stop"))
    tally.notes.append(f"slowest stop {worst:.2f} s")
    return tally


def stop_probe(world: World, tries: int) -> Tally:
    """SIGINT and SIGTERM while a task is scored."""
    tally = Tally("SIGINT and SIGTERM during probe")
    expected = contents(world.results)
    worst = 0.0
    for number, moment in enumerate(world.moments("probe", tries)):
        results = world.new("results")
        words = world.probe(world.cache, results)
        took = _at(world.start(words), moment, _stop((signal.SIGINT, signal.SIGTERM)[number % 2]))
        worst = max(worst, took)
        tally.add(
            Verdict(wrong=compare(expected, contents(results)).wrong)
            + expect(took < STOPS_WITHIN_S, f"took {took:.2f} s to stop")
            + world.finish(words)
            + compare(expected, contents(results))
        )
    tally.notes.append(f"slowest stop {worst:.2f} s")
    return tally


def _disturbed_extract(
    world: World, make: Callable[[Path], list[str]], moment: float, disturb: Callable[[Child], None]
) -> tuple[Verdict, float]:
    """Disturb an extraction, check what it left, and run it again; return also the seconds it took to stop."""
    cache = world.new("cache")
    words = make(cache)
    took = _at(world.start(words), moment, disturb)
    before = entered(cache)
    verdict = whole(world.cache, cache) + world.finish(words) + finished_work_is_kept(before, cache)
    return verdict + compare(only_task(contents(world.cache), words), contents(cache)), took


def whole(undisturbed: Path, cache: Path) -> Verdict:
    """Report every visible part, and everything that manifests name, that is not as in the undisturbed cache."""
    expected, wrong = contents(undisturbed), []
    for name, digest in contents(cache).items():
        if not name.endswith("manifest.json") and expected.get(name) != digest:
            wrong.append(f"{name} after the fault")
    for manifest in cache.glob("*/*/manifest.json"):
        undisturbed_manifest = json.loads((undisturbed / manifest.relative_to(cache)).read_bytes())
        wrong.extend(
            f"{manifest.parent.name}: {part['name']} after the fault"
            for part in json.loads(manifest.read_bytes())["parts"]
            if part not in undisturbed_manifest["parts"] or not (manifest.parent / part["name"]).is_file()
        )
    return Verdict(wrong=tuple(wrong))


def only_task(files: dict[str, str], words: Sequence[str]) -> dict[str, str]:
    """Return the part of a cache's contents that an extract command makes."""
    task = Path(words[words.index("-t") + 1]).parent.name
    model = words[words.index("-m") + 1]
    return {
        name: digest
        for name, digest in files.items()
        if (name.startswith("clips/") and f"/{task}-" in name)
        or (name.startswith(f"{model}-") and (f"/{task}/" in name or name.endswith("encoder.json")))
    }


def _at(child: Child, moment: float, disturb: Callable[[Child], None]) -> float:
    """Disturb a command some seconds after its start; return the seconds until it ended."""
    while time.monotonic() - child.started < moment and not child.is_over():
        time.sleep(0.0005)
    began = time.monotonic()
    if not child.is_over():
        disturb(child)
    child.wait()
    return time.monotonic() - began


def _kill(child: Child) -> None:
    os.kill(child.pid, signal.SIGKILL)


def _stop(number: int) -> Callable[[Child], None]:
    def send(child: Child) -> None:
        os.kill(child.pid, number)

    return send
