"""Many processes on one cache, and decoding threads that die."""

from __future__ import annotations

import shutil
from pathlib import Path

from kills import only_task
from world import Tally, World, compare, contents, expect


def same_task_by_two(world: World, tries: int) -> Tally:
    """Let two processes extract one task into one cache."""
    return _crowd(world, tries, "two processes, the same task", [world.extract] * 2)


def same_task_by_eight(world: World, tries: int) -> Tally:
    """Let eight processes extract one task into one cache."""
    return _crowd(world, tries, "eight processes, the same task", [world.extract] * 8)


def different_tasks_by_eight(world: World, tries: int) -> Tally:
    """Let eight processes extract two tasks with two models into one cache, two processes for each pair."""

    def mfcc(cache: Path) -> list[str]:
        return world.extract(cache, model="mfcc")

    def mfcc_frames(cache: Path) -> list[str]:
        words = world.extract_frames(cache)
        words[words.index("-m") + 1] = "mfcc"
        return words

    makers = [world.extract, world.extract_frames, mfcc, mfcc_frames] * 2
    return _crowd(world, tries, "eight processes, different tasks and models", makers)


def decoder_dies(world: World, tries: int) -> Tally:
    """Kill a decoding thread by an unexpected error at a random clip: it is reported, and what was written stays."""
    tally = Tally("a decoding worker dies")
    for _ in range(tries):
        cache = world.new("cache")
        words = world.extract(cache)
        fatal = world.random.randrange(40, 180)

        def dying(fatal: int = fatal) -> None:
            import uwbench.extraction.encode as stage

            decode, calls = stage.decode_clip, iter(range(1 << 30))

            def decode_or_die(*args, **named):
                if next(calls) == fatal:
                    raise OSError(5, "Input/output error")
                return decode(*args, **named)

            stage.decode_clip = decode_or_die

        ended = world.run(words, before=dying)
        verdict = expect(ended.code == 1 and ended.is_clear, f"exit {ended.code}: {ended.err}")
        verdict += world.finish(words)
        tally.add(verdict + compare(only_task(contents(world.cache), words), contents(cache)))
        shutil.rmtree(cache)
    return tally


def _crowd(world: World, tries: int, fault: str, makers: list) -> Tally:
    tally = Tally(fault)
    alone = world.new("cache")
    for words in {tuple(make(alone)) for make in makers}:
        ended = world.run(words)
        if ended.code != 0:
            raise RuntimeError(f"the undisturbed {words} failed: {ended.err}")
    expected = contents(alone)
    for _ in range(tries):
        cache = world.new("cache")
        children = [world.start(make(cache)) for make in makers]
        verdict = expect(True, "")
        for child in children:
            ended = child.wait()
            verdict += expect(ended.code == 0, f"exit {ended.code}: {ended.err}")
        after = world.run(makers[0](cache))
        verdict += expect("everything was cached" in after.out, f"the next run found something to do: {after.out}")
        tally.add(verdict + compare(expected, contents(cache)))
        shutil.rmtree(cache)
    return tally
