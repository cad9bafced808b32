"""The experiment's tables in Markdown, and their place in a page, between two marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path

from uniwhisper.experiment import Outcome, Scores
from uniwhisper.experiment_speech import Heard
from uniwhisper.experiment_tasks import SOURCES

from uniwhisper.evaluate import METHODS, Difference, interval
from uwbench.api import InputError
from uwbench.base.atomic import write_atomically

BEGIN = "<!-- experiment: written by the command -->"
END = "<!-- end of experiment -->"
_SCOPES = ("trained on", "held out", "all")


def report(found: Outcome) -> list[str]:
    """Return the tables: averages a run and scope, over the held-out sets, the two arms, spoken digits, every task."""
    lines = ["Averages over tasks, trained encoder against original:", ""]
    lines += _head("held out | decoder | steps | audio | scope | probe | original | trained | difference [95 %]", 5)
    for one in found.runs:
        head = f"| {one.turn} | {one.arm} | {one.steps} | {one.audio_s / 60:.0f} min"
        lines += [
            f"{head} | {scope} | {row.method} | {_scores(row)} | {interval(row)} |"
            for scope in _SCOPES
            for row in _averages(one.scopes.get(scope, ()))
        ]
    lines += _over_sets(found.runs)
    if found.arms:
        lines += ["", "The same steps with a language model and with Whisper's decoder, one encoder against the other:"]
        lines += ["", *_head("held out | scope | probe | whisper | lm | lm - whisper [95 %]", 3)]
        lines += [
            f"| {turn} | {scope} | {row.method} | {_scores(row)} | {interval(row)} |"
            for turn, scopes in found.arms.items()
            for scope in _SCOPES
            for row in _averages(scopes.get(scope, ()))
        ]
    lines += ["", "Spoken digits that Whisper's own decoder, as it was, writes down from the encoder's states:", ""]
    lines += _head("held out | decoder in training | exactly right | word error rate", 2)
    lines += ["| original encoder | | " + _spoken(found.spoken)]
    lines += [f"| {one.turn} | {one.arm} | {_spoken(one.spoken)}" for one in found.runs]
    lines += ["", "Every task:", ""]
    lines += _head("held out | decoder | task | probe | original | trained | difference [95 %]", 4)
    for one in found.runs:
        shut = {row.name for row in one.scopes.get("held out", ())}
        for row in one.scopes["all"]:
            if not _is_average(row):
                name = f"{row.name} (held out)" if row.name in shut else row.name
                lines.append(f"| {one.turn} | {one.arm} | {name} | {row.method} | {_scores(row)} | {interval(row)} |")
    return lines


def _over_sets(runs: Sequence[Scores]) -> list[str]:
    """Return the mean over the turns that hold a whole set out, of an arm that has had them all."""
    sets = [source.name for source in SOURCES]
    lines: list[str] = []
    for arm in dict.fromkeys(one.arm for one in runs):
        own = {one.turn: one for one in runs if one.arm == arm}
        if not set(sets) <= set(own):
            continue
        for method in METHODS:
            rows = [row for name in sets for row in _averages(own[name].scopes["held out"]) if row.method == method]
            if found := _mean(rows, method):
                lines.append(f"| {arm} | {method} | {_scores(found)} | {interval(found)} |")
    if not lines:
        return []
    title = "Each set as the one that was held out, and the mean of the three (their clips are drawn independently):"
    return ["", title, "", *_head("decoder | probe | original | trained | difference [95 %]", 2), *lines]


def _mean(rows: Sequence[Difference], method: str) -> Difference | None:
    """Return the mean of independent differences; its interval's half is the root of the summed squares, over n."""
    count = len(rows)
    if not count:
        return None
    low = high = None
    ends = [(row.low, row.high) for row in rows]
    if all(a is not None and b is not None for a, b in ends):
        middle = sum(row.difference for row in rows) / count
        low = middle - sqrt(sum((row.difference - (row.low or 0.0)) ** 2 for row in rows)) / count
        high = middle + sqrt(sum(((row.high or 0.0) - row.difference) ** 2 for row in rows)) / count
    means = [sum(values) / count for values in zip(*((r.original, r.trained, r.difference) for r in rows), strict=True)]
    return Difference("mean", method, means[0], means[1], means[2], low, high)


def _head(names: str, words: int) -> list[str]:
    """Return a table's head and rule; all but the first `words` columns are numbers."""
    rules = ["---" if place < words else "---:" for place in range(names.count("|") + 1)]
    return [f"| {names} |", f"| {' | '.join(rules)} |"]


def _averages(rows: Sequence[Difference]) -> Iterator[Difference]:
    return (row for row in rows if _is_average(row))


def _is_average(row: Difference) -> bool:
    return row.name.startswith("average")


def _scores(row: Difference) -> str:
    return f"{100 * row.original:.1f} | {100 * row.trained:.1f}"


def _spoken(heard: Heard) -> str:
    return f"{heard.right} of {heard.clips} | {100 * heard.wer:.0f} % |"


def write_tables(page: Path, command: str, lines: Sequence[str]) -> None:
    """Replace what stands between the marks by the command and its tables; raise InputError without the marks."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read", where=page) from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"lacks the marks {BEGIN} and {END}", where=page)
    inner = "\n".join(["", "", f"    {command}", "", *lines, "", ""])
    write_atomically(page, f"{before}{begin}{inner}{end}{after}".encode())
