"""The experiment's tables in Markdown, and the page that they are written into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path

from uniwhisper.evaluate import METHODS, Difference, interval
from uniwhisper_miniature.experiment import Outcome, Scores
from uniwhisper_miniature.speech import Heard
from uniwhisper_miniature.tasks import SOURCES
from uwbench.api import InputError
from uwbench.base.atomic import write_atomically

BEGIN = "<!-- experiment: written by the command -->"
END = "<!-- end of experiment -->"
_SCOPES = ("trained on", "held out", "all")


def report(outcome: Outcome) -> list[str]:
    """Return the tables: averages per run and scope and over held-out sets, both arms, spoken digits, every task."""
    lines = ["Averages over tasks, trained encoder against original:", ""]
    lines += _head("held out | decoder | steps | audio | scope | probe | original | trained | difference [95 %]", 5)
    for run in outcome.runs:
        head = f"| {run.turn} | {run.arm} | {run.steps} | {run.audio_s / 60:.0f} min"
        lines += [
            f"{head} | {scope} | {row.method} | {_scores(row)} | {interval(row)} |"
            for scope in _SCOPES
            for row in _averages(run.scopes.get(scope, ()))
        ]
    lines += _over_sets(outcome.runs)
    if outcome.arms:
        lines += ["", "The same steps with the language model and with another decoder, compared:"]
        lines += ["", *_head("held out | other | scope | probe | other | lm | lm - other [95 %]", 3)]
        lines += [
            f"| {turn} | {other} | {scope} | {row.method} | {_scores(row)} | {interval(row)} |"
            for (turn, other), scopes in outcome.arms.items()
            for scope in _SCOPES
            for row in _averages(scopes.get(scope, ()))
        ]
    lines += ["", "Spoken digits as transcribed by Whisper's original decoder from the encoder's output:", ""]
    lines += _head("held out | decoder in training | exactly right | word error rate", 2)
    lines += ["| original encoder | | " + _spoken(outcome.spoken)]
    lines += [f"| {run.turn} | {run.arm} | {_spoken(run.spoken)}" for run in outcome.runs]
    lines += ["", "Every task:", ""]
    lines += _head("held out | decoder | task | probe | original | trained | difference [95 %]", 4)
    for run in outcome.runs:
        excluded = {row.name for row in run.scopes.get("held out", ())}
        for row in run.scopes["all"]:
            if not _is_average(row):
                name = f"{row.name} (held out)" if row.name in excluded else row.name
                lines.append(f"| {run.turn} | {run.arm} | {name} | {row.method} | {_scores(row)} | {interval(row)} |")
    return lines


def _over_sets(runs: Sequence[Scores]) -> list[str]:
    """Return the mean over the turns that hold out a whole data set, for each arm that ran all of them."""
    sets = [source.name for source in SOURCES]
    lines: list[str] = []
    for arm in dict.fromkeys(run.arm for run in runs):
        by_turn = {run.turn: run for run in runs if run.arm == arm}
        if not set(sets) <= set(by_turn):
            continue
        for method in METHODS:
            rows = [row for name in sets for row in _averages(by_turn[name].scopes["held out"]) if row.method == method]
            if mean := _mean(rows, method):
                lines.append(f"| {arm} | {method} | {_scores(mean)} | {interval(mean)} |")
    if not lines:
        return []
    title = "Mean over the three data sets, each scored when held out (their clips are drawn independently):"
    return ["", title, "", *_head("decoder | probe | original | trained | difference [95 %]", 2), *lines]


def _mean(rows: Sequence[Difference], method: str) -> Difference | None:
    """Return the mean of n independent differences: half-widths of the interval add in quadrature, divided by n."""
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
    """Return a table's header and rule; columns after the first `words` are right-aligned."""
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
    """Replace the text between the page's two marks by the command and its tables; raise InputError without them."""
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
