"""A disk that is full at each write in turn, a small disk, and a read-only cache."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from kills import only_task, whole
from layer import full_from, watch
from world import Tally, Verdict, World, compare, contents, entered, expect, finished_work_is_kept

_NO_LIMIT = 1 << 40


def full_disk_extract(world: World, tries: int) -> Tally:
    """Fill the disk from the n-th write of an extraction on: every n with frames, which writes both kinds of parts, and
    some without. If `tries` is not zero, take that many in all.
    """
    tally = Tally("disk full at each write of extract")
    for make in (world.extract, world.extract_frames):
        count = _count(world, make(world.new("cache")), lambda words: Path(words[words.index("--cache") + 1]))
        some = tries // 2 or (0 if make == world.extract_frames else 40)
        for number in _spread(count, some):
            cache = world.new("cache")
            words = make(cache)
            ended = _run_full(world, words, cache, number)
            before = entered(cache)
            verdict = expect(ended == "", ended) + whole(world.cache, cache) + world.finish(words)
            verdict += finished_work_is_kept(before, cache)
            tally.add(verdict + compare(only_task(contents(world.cache), words), contents(cache)))
            shutil.rmtree(cache)
    return tally


def full_disk_probe(world: World, tries: int) -> Tally:
    """Fill the disk from the n-th write of a probe on, first into an empty folder, then over earlier results."""
    tally = Tally("disk full at each write of probe")
    expected = contents(world.results)
    words = world.probe(world.cache, world.new("results"))
    count = _count(world, words, lambda words: Path(words[words.index("--results") + 1]))
    for earlier in (False, True):
        for number in _spread(count, tries // 2 + 1 if tries else 0):
            results = world.copy_of(world.results) if earlier else world.new("results")
            words = world.probe(world.cache, results)
            ended = _run_full(world, words, results, number)
            left = compare(expected, contents(results))
            verdict = expect(ended == "", ended) + Verdict(left.lost if earlier else (), left.wrong)
            tally.add(verdict + world.finish(words) + compare(expected, contents(results)))
    return tally


def full_disk_leaderboard(world: World, tries: int) -> Tally:
    """Fill the disk from the n-th write of a leaderboard on, over an earlier one."""
    tally = Tally("disk full at each write of leaderboard")
    expected = contents(world.boards)
    words = world.leaderboard(world.results, world.new("boards"))
    count = _count(world, words, lambda words: Path(words[words.index("--output") + 1]).parent)
    for kind in ("csv",) if tries else ("html", "csv", "md"):
        for number in _spread(count, tries):
            boards = world.copy_of(world.boards)
            words = world.leaderboard(world.results, boards, kind)
            ended = _run_full(world, words, boards, number)
            verdict = expect(ended == "", ended) + compare(expected, contents(boards))
            tally.add(verdict + world.finish(words) + compare(expected, contents(boards)))
    return tally


def full_small_disk(world: World, tries: int) -> Tally:
    """Fill a file system of a few kilobytes, then enlarge it. Without the right to mount one, nothing is tried."""
    tally = Tally("a small disk runs full during extract")
    size = sum(path.stat().st_size for path in world.cache.rglob("*") if path.is_file())
    for number in range(tries):
        place = world.new("disk")
        place.mkdir()
        kilobytes = max(4, size * (number + 1) // tries // 1024)
        if not _mount(place, f"size={kilobytes}k"):
            tally.notes.append("no right to mount a file system here")
            return tally
        try:
            cache = place / "cache"
            words = (world.extract_frames if number % 2 else world.extract)(cache)
            ended = world.run(words)
            before = entered(cache)
            verdict = expect(ended.is_clear and ended.code in (0, 1), f"exit {ended.code}, {ended.err}")
            verdict += whole(world.cache, cache)
            if not _mount(place, "remount,size=64m"):
                verdict += expect(False, "the disk could not be made larger")
            verdict += world.finish(words) + finished_work_is_kept(before, cache)
            tally.add(verdict + compare(only_task(contents(world.cache), words), contents(cache)))
        finally:
            subprocess.run(["umount", str(place)], check=False)
    return tally


def read_only_cache(world: World, tries: int) -> Tally:
    """Use a read-only cache: it scores what it holds, also after a scan of the audio, and reports what it lacks."""
    tally = Tally("read-only cache")
    expected = contents(world.results)
    for number in range(tries):
        cache = world.copy_of(world.cache)
        if number % 2:
            for path in cache.glob("clips/*.scan.parquet"):
                path.unlink()  # the scan of the audio cannot be saved, and need not be
        undo = _make_read_only(cache)
        before = contents(cache)
        try:
            results = world.new("results")
            verdict = world.finish(world.probe(cache, results)) + compare(expected, contents(results))
            verdict += world.finish(world.extract(cache))
            verdict += _scores_in_one_go(world, cache, expected)
            lacking = world.run(world.extract(cache, model="mfcc"))
            verdict += expect(lacking.code == 1 and lacking.is_clear, f"exit {lacking.code}: {lacking.err}")
            tally.add(verdict + compare(before, contents(cache)))
        finally:
            undo()
    return tally


def _scores_in_one_go(world: World, cache: Path, expected: dict[str, str]) -> Verdict:
    """Run extraction and probe as one command."""
    results = world.new("results")
    words = ["run", *world.extract(cache)[1:], "--results", str(results), "--quiet"]
    return world.finish(words) + compare(expected, contents(results))


def _count(world: World, words: list[str], of: Callable[[list[str]], Path]) -> int:
    """Return the number of calls of a command that a full disk could refuse."""
    counted = world.new("count")
    folder = of(words)
    folder.mkdir(parents=True, exist_ok=True)
    ended = world.run(words, before=lambda: _fill(folder, _NO_LIMIT, counted))
    if ended.code != 0:
        raise RuntimeError(f"{words[0]} failed while its writes were counted: {ended.err}")
    return int(counted.read_text())


def _spread(count: int, tries: int) -> range:
    """Return every number below `count`, or about `tries` of them if `tries` is not zero."""
    return range(0, count, max(1, count // tries) if tries else 1)


def _run_full(world: World, words: list[str], folder: Path, number: int) -> str:
    """Run a command for which the disk is full after `number` calls; return what is wrong with its end, if anything."""
    folder.mkdir(parents=True, exist_ok=True)
    ended = world.run(words, before=lambda: _fill(folder, number, None))
    if ended.code == 0:
        return ""  # it did not need the write; the comparisons that follow check that
    if ended.code != 1 or not ended.is_clear or "No space left" not in ended.err:
        return f"full after {number} calls: exit {ended.code}, {ended.err}"
    return ""


def _fill(folder: Path, number: int, counted: Path | None) -> None:
    before, note = full_from(number, counted or folder)
    if counted is not None:
        atexit.register(note)
    watch(folder, before, lambda *_: None)


def _mount(place: Path, options: str) -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _make_read_only(folder: Path) -> Callable[[], None]:
    """Make a folder read-only: by a mount for root, whom file modes do not stop, else by modes. Return the undo."""
    if os.geteuid() == 0:
        bind = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, check=False)
        if bind.returncode != 0:
            raise RuntimeError(f"root may not mount here, so nothing can be made read-only: {bind.stderr.decode()}")
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        return lambda: subprocess.run(["umount", str(folder)], check=True) and None
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)

    def undo() -> None:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)

    return undo
