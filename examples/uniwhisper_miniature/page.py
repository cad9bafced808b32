"""The experiment's tables in Markdown, and the page that they are written into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uniwhisper.evaluate import Difference, interval
from uniwhisper_miniature.experiment import Outcome
from uniwhisper_miniature.levers import Levers
from uniwhisper_miniature.speech import Transcribed
from uniwhisper_miniature.stages import Chosen, Scores
from uwbench.api import InputError
from uwbench.base.atomic import write_atomically

# The marks in a page between which the tables of the arms, and those of the levers, are written.
ARMS_MARKS = ("<!-- experiment: written by the command -->", "<!-- end of experiment -->")
LEVERS_MARKS = ("<!-- levers: written by the command -->", "<!-- end of levers -->")
_TITLES = {
    "held out": "Data sets that training never heard, original encoder and trained one on the same test clips:",
    "other takes": "Spoken digits: other takes by the speakers that training heard:",
    "other recordings": "Street sounds: other recordings of the classes that training heard:",
}


def report(outcome: Outcome) -> list[str]:
    """Return the tables: the arms, each scope's tasks, the arms compared, and transcribed speech."""
    lines = ["Training, and the mean score on validation clips by the trained weights' share in the encoder:", ""]
    lines += [*_arms(outcome.arms), *_scopes(outcome.arms)]
    if outcome.compared:
        lines += ["", "Averages of the arm lm and of another arm on the same test clips:"]
        lines += ["", *_head("other arm | data sets | probe | other | lm | lm - other [95 %]", 3)]
        for arm, scopes in outcome.compared.items():
            for scope in _TITLES:
                lines += [
                    f"| {arm} | {scope} | {row.method} | {_scores(row)} | {interval(row)} |"
                    for row in scopes[scope]
                    if _is_average(row)
                ]
    lines += ["", "Speech as transcribed by Whisper's original decoder from the encoder's output:", ""]
    return lines + _speech(outcome.speech, outcome.arms)


def report_levers(levers: Levers) -> list[str]:
    """Return the tables of levers: all on validation clips, then the best on test clips and in transcribed speech."""
    lines = [f"The arm {levers.arm}, and the mean score on validation clips by the trained weights' share:"]
    lines += ["", *_arms([tried.chosen for tried in levers.tried], [tried.title for tried in levers.tried])]
    lines += ["", f"Of these, {levers.best.arm} is best on validation clips, and scored on test clips."]
    lines += _scopes([levers.best])
    lines += ["", "Speech as transcribed by Whisper's original decoder from the encoder's output:", ""]
    return lines + _speech(levers.speech, [levers.best])


def _scopes(arms: Sequence[Scores]) -> list[str]:
    lines = []
    for scope, title in _TITLES.items():
        lines += ["", title, "", *_head("arm | alpha | task | probe | original | trained | difference [95 %]", 4)]
        for arm in arms:
            lines += [f"| {arm.arm} | {arm.alpha:g} | {_row(row)} |" for row in _shown(arm.scopes[scope])]
    return lines


def _arms(arms: Sequence[Chosen], titles: Sequence[str] = ()) -> list[str]:
    alphas = list(dict.fromkeys(alpha for arm in arms for alpha in arm.valid))
    names = ["arm", *(["change"] if titles else [])]
    columns = [*names, "steps", "audio", *(f"alpha {alpha}" for alpha in alphas), "chosen"]
    lines = _head(" | ".join(columns), len(names))
    for place, arm in enumerate(arms):
        scores = [f"{100 * arm.valid[alpha]:.1f}" for alpha in alphas]
        cells = [arm.arm, *titles[place : place + 1], f"{arm.steps}", f"{arm.audio_s / 60:.0f} min", *scores]
        lines.append(f"| {' | '.join(cells)} | {arm.alpha:g} |")
    return lines


def _speech(original: dict[str, Transcribed], arms: Sequence[Scores]) -> list[str]:
    kinds = list(original)
    lines = _head(" | ".join(["arm | alpha", *(f"{kind}, right | word errors" for kind in kinds)]), 2)
    rows: list[tuple[str, str, dict[str, Transcribed]]] = [("original encoder", "", original)]
    rows += [(arm.arm, alpha, said) for arm in arms for alpha, said in arm.speech.items()]
    for arm, alpha, said in rows:
        cells = [f"{said[kind].right} of {said[kind].clips} | {100 * said[kind].wer:.0f} %" for kind in kinds]
        lines.append(f"| {arm} | {alpha} | {' | '.join(cells)} |")
    words = ", ".join(f"{original[kind].words} in {kind}" for kind in kinds)
    return [*lines, "", f"Words: {words}. Word errors count words that the decoder invents, and so can exceed 100 %."]


def _shown(rows: Sequence[Difference]) -> list[Difference]:
    """Return the rows of a scope, without the average of a single task."""
    tasks = {row.name for row in rows if not _is_average(row)}
    return [row for row in rows if len(tasks) > 1 or not _is_average(row)]


def _row(row: Difference) -> str:
    name = "average" if _is_average(row) else row.name.removesuffix("_test")
    return f"{name} | {row.method} | {_scores(row)} | {interval(row)}"


def _head(names: str, words: int) -> list[str]:
    """Return a table's header and rule; columns after the first `words` are right-aligned."""
    rules = ["---" if place < words else "---:" for place in range(names.count("|") + 1)]
    return [f"| {names} |", f"| {' | '.join(rules)} |"]


def _is_average(row: Difference) -> bool:
    return row.name.startswith("average")


def _scores(row: Difference) -> str:
    return f"{100 * row.original:.1f} | {100 * row.trained:.1f}"


def write_tables(page: Path, marks: tuple[str, str], command: str, lines: Sequence[str]) -> None:
    """Replace the text between two marks of a page by the command and its tables; raise InputError without them."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read", where=page) from error
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise InputError(f"lacks the marks {marks[0]} and {marks[1]}", where=page)
    inner = "\n".join(["", "", f"    {command}", "", *lines, "", ""])
    write_atomically(page, f"{before}{begin}{inner}{end}{after}".encode())
