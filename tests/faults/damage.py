"""Damaged parts, clips that change, clocks set back, caches that move."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from kills import only_task
from world import Tally, Verdict, World, compare, contents, expect


def part_truncated(world: World, tries: int) -> Tally:
    """Cut a part short at a random byte."""

    def cut(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: world.random.randrange(len(data))])

    return _damaged(world, tries, "a part cut short", cut)


def part_flipped(world: World, tries: int) -> Tally:
    """Flip one random bit of a part, so that its size stays."""

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[world.random.randrange(len(data))] ^= 1 << world.random.randrange(8)
        path.write_bytes(data)

    return _damaged(world, tries, "a bit of a part flipped", flip)


def part_of_another_version(world: World, tries: int) -> Tally:
    """Replace a part by one with other columns and, once, a manifest by one of a later schema."""
    import pyarrow as pa

    def other_columns(path: Path) -> None:
        with pa.ipc.open_file(path) as reader:
            part = reader.read_all()
        part = part.drop_columns(["frames" if "frames" in part.column_names else "key"])
        with pa.ipc.new_file(path, part.schema) as writer:
            writer.write_table(part)

    tally = _damaged(world, tries, "a part or manifest of another version", other_columns)
    cache = world.copy_of(world.cache)
    manifest = next(cache.glob("*/digits/manifest.json"))
    record = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**record, "schema": record["schema"] + 1}))
    results = world.new("results")
    verdict = _found_by_verify(world, cache)
    for words in (world.probe(cache, results), world.extract(cache)):
        ended = world.run(words)
        verdict += expect(ended.code != 0 and ended.is_clear and "another version" in ended.err, ended.err)
    tally.add(verdict + expect(not contents(results), "a manifest of another version was scored"))
    return tally


def clip_changed(world: World, tries: int) -> Tally:
    """Change or remove a clip during the run: it is named and left out; once put back, all is as undisturbed."""
    tally = Tally("a clip changed or removed during the run")
    clips = sorted((world.digits.parent / "recordings").iterdir())
    for number in range(tries):
        clip, other = world.random.sample(clips, 2)
        original = clip.read_bytes()
        cache = world.new("cache")
        words = world.extract(cache)

        def change_during_the_run(clip: Path = clip, other: Path = other, remove: bool = number % 2 == 0) -> None:
            """Change the clip between the scan of the clips and their decoding."""
            from uwbench.pipeline import run

            plan = run.make_plans

            def plan_and_change(*args, **named):
                planned = plan(*args, **named)
                if remove:
                    clip.unlink()
                else:
                    clip.write_bytes(other.read_bytes())
                return planned

            run.make_plans = plan_and_change

        try:
            ended = world.run(words, before=change_during_the_run)
            verdict = expect(
                ended.code == 1 and ended.is_clear and clip.name in ended.err, f"not reported: {ended.err}"
            )
            results = world.new("results")
            probed = world.run(world.probe(cache, results))
            verdict += expect(probed.code == 1 and probed.is_clear, f"scored without the clip: {probed.err}")
        finally:
            clip.write_bytes(original)
        verdict += world.finish(words)
        results = world.new("results")
        verdict += world.finish(world.probe(cache, results))
        tally.add(verdict + compare(contents(world.results), contents(results)))
        shutil.rmtree(cache)
    return tally


def clock_set_back(world: World, tries: int) -> Tally:
    """Set the clock back or forward between runs, then change a clip but not its size and time: it is noticed."""
    tally = Tally("clock set back or forward")
    clips = sorted((world.digits.parent / "recordings").iterdir())
    sizes: dict[int, list[Path]] = {}
    for clip in clips:
        sizes.setdefault(clip.stat().st_size // 4096, []).append(clip)
    pairs = [group[:2] for group in sizes.values() if len(group) > 1]
    for number in range(tries):
        clip, other = world.random.choice(pairs)
        original, status = clip.read_bytes(), clip.stat()
        shift = (-400 * 86_400, 400 * 86_400)[number % 2]
        cache = world.new("cache")
        words = world.extract(cache)
        verdict = world.finish(words, _clock(shift))
        before = contents(cache)
        verdict += compare(only_task(contents(world.cache), words), before)
        try:
            data = other.read_bytes()[: len(original)].ljust(len(original), b"\0")
            clip.write_bytes(data)
            os.utime(clip, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if the clock had been set back
            verdict += world.finish(words)
            again = json.dumps(contents(cache))
            fresh = world.new("cache")
            verdict += world.finish(world.extract(fresh))
            tables = {name for name in contents(fresh) if name.startswith("clips/")}
            verdict += expect(tables <= json.loads(again).keys(), "a clip changed and the cache did not notice")
        finally:
            clip.write_bytes(original)
            os.utime(clip, ns=(status.st_atime_ns, status.st_mtime_ns))
        tally.add(verdict)
    return tally


def cache_moved(world: World, tries: int) -> Tally:
    """Move the cache, name it by a relative path, change its and the clips' times, copy the clips elsewhere."""
    tally = Tally("cache moved, relative, copied, other times")
    expected = contents(world.results)
    for number in range(tries):
        cache = world.copy_of(world.cache)
        for path in cache.rglob("*"):
            os.utime(path, (1e9 + number, 1e9 + number))
        path_to_cache = Path(os.path.relpath(cache, world.folder)) if number % 2 else cache
        results = world.new("results")
        clips = world.digits.parent
        if number >= tries // 2:
            elsewhere = world.new("elsewhere") / "digits"
            clips = Path(shutil.copytree(clips, elsewhere, copy_function=shutil.copyfile))
        words = world.extract(path_to_cache)
        words[words.index("-t") + 1] = str(clips / "manifest.csv")
        ended = world.run(words)
        verdict = expect(ended.code == 0 and "everything was cached" in ended.out, f"{ended.out} {ended.err}")
        verdict += world.finish(world.probe(path_to_cache, results)) + compare(expected, contents(results))
        vectors = {name: digest for name, digest in contents(world.cache).items() if not name.startswith("clips/")}
        tally.add(verdict + compare(vectors, {k: v for k, v in contents(cache).items() if not k.startswith("clips/")}))
    return tally


def _damaged(world: World, tries: int, fault: str, harm: Callable[[Path], None]) -> Tally:
    """Damage a part: verify finds it, no command scores it, extract makes it again and no other part."""
    tally = Tally(fault)
    for number in range(tries):
        cache = world.copy_of(world.cache)
        task = "spoken" if number % 3 == 2 else "digits"
        part = world.random.choice(sorted(cache.glob(f"*/{task}/*.arrow")))
        harm(part)
        verdict = _found_by_verify(world, cache, part.name)
        if task == "digits":
            results = world.new("results")
            ended = world.run(world.probe(cache, results))
            scored = [path for path in results.rglob("*.json") if json.loads(path.read_bytes())["status"] != "failed"]
            verdict += expect(ended.code == 1 and ended.is_clear and not scored, f"damage was scored: {ended.err}")
        others = {path: path.stat().st_mtime_ns for path in cache.glob("*/*/*.arrow") if path != part}
        verdict += world.finish((world.extract_frames if task == "spoken" else world.extract)(cache))
        again = [path.name for path, at in others.items() if path.stat().st_mtime_ns != at and not _twin(path, part)]
        tally.add(verdict + Verdict(lost=tuple(again)) + compare(contents(world.cache), contents(cache)))
        shutil.rmtree(cache)
    return tally


def _twin(path: Path, part: Path) -> bool:
    """Tell whether two files are the vectors and the frames of one part, which are made together."""
    return path.parent == part.parent and path.name.split("-", 1)[1] == part.name.split("-", 1)[1]


def _found_by_verify(world: World, cache: Path, name: str = "") -> Verdict:
    ended = world.run(["cache", "verify", "--cache", str(cache)])
    named = name in ended.out + ended.err
    return expect(ended.code == 1 and "Traceback" not in ended.err and named, f"verify did not find it: {ended.out}")


def _clock(shift_s: float) -> Callable[[], None]:
    """Return a function that shifts a child's clock."""

    def shift() -> None:
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + shift_s
        time.time_ns = lambda: now_ns() + int(shift_s * 1e9)

    return shift
