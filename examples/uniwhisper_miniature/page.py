"""The experiment's tables in Markdown, and the page that they are written into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uniwhisper.evaluate import Difference, interval
from uniwhisper_miniature.experiment import Outcome, Scores
from uniwhisper_miniature.speech import Transcribed
from uwbench.api import InputError
from uwbench.base.atomic import write_atomically

BEGIN = "<!-- experiment: written by the command -->"
END = "<!-- end of experiment -->"
_TITLES = {
    "held out": "Data sets that training never heard, original encoder and trained one on the same test clips:",
    "other takes": "Spoken digits: other takes by the speakers that training heard:",
    "other recordings": "Street sounds: other recordings of the classes that training heard:",
}


def report(outcome: Outcome) -> list[str]:
    """Return the tables: the arms, each scope's tasks, the arms compared, and transcribed speech."""
    lines = ["Training, and the mean score on validation clips by the trained weights' share in the encoder:", ""]
    lines += _arms(outcome.arms)
    for scope, title in _TITLES.items():
        lines += ["", title, "", *_head("arm | alpha | task | probe | original | trained | difference [95 %]", 4)]
        for arm in outcome.arms:
            lines += [f"| {arm.arm} | {arm.alpha:g} | {_row(row)} |" for row in _shown(arm.scopes[scope])]
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
    return lines + _speech(outcome)


def _arms(arms: Sequence[Scores]) -> list[str]:
    alphas = list(dict.fromkeys(alpha for arm in arms for alpha in arm.valid))
    lines = _head(f"arm | steps | audio | {' | '.join(f'alpha {alpha}' for alpha in alphas)} | chosen", 1)
    for arm in arms:
        scores = " | ".join(f"{100 * arm.valid[alpha]:.1f}" for alpha in alphas)
        lines.append(f"| {arm.arm} | {arm.steps} | {arm.audio_s / 60:.0f} min | {scores} | {arm.alpha:g} |")
    return lines


def _speech(outcome: Outcome) -> list[str]:
    kinds = list(outcome.speech)
    lines = _head(" | ".join(["arm | alpha", *(f"{kind}, right | word errors" for kind in kinds)]), 2)
    rows: list[tuple[str, str, dict[str, Transcribed]]] = [("original encoder", "", outcome.speech)]
    rows += [(arm.arm, alpha, said) for arm in outcome.arms for alpha, said in arm.speech.items()]
    for arm, alpha, said in rows:
        cells = [f"{said[kind].right} of {said[kind].clips} | {100 * said[kind].wer:.0f} %" for kind in kinds]
        lines.append(f"| {arm} | {alpha} | {' | '.join(cells)} |")
    words = ", ".join(f"{outcome.speech[kind].words} in {kind}" for kind in kinds)
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
