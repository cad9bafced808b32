"""Names of methods, and the marks beside ranks and scores with their meaning, as all forms of the board have them."""

from __future__ import annotations

from uwbench.methods import METHODS
from uwbench.report.board import Board, Cell, Row
from uwbench.results.averages import Method
from uwbench.results.contamination import MEANINGS, SEEN
from uwbench.results.record import Flag

METHOD_NAMES: dict[Method, str] = {name: info.title for name, info in METHODS.items()}
TIE_MEANING = "= after a rank: no significant difference from at least one other model (paired bootstrap, Holm)."
RANKS_MEANING = "ranks: 95 % interval of the true rank, for all models at once."
UNRANKED_MEANING = "– as a rank: an average over fewer tasks, or over other data; it is not ranked."
LEAK_MARK = "¶"  # after a score with test clips among its training clips
LEAK_MEANING = f"{LEAK_MARK} test clips are among the training clips: the score is too high."
BUNDLE_MARK = "‖"  # after a score from a bundle
BUNDLE_MEANING = f"{BUNDLE_MARK} from a bundle, scored again on this machine with the same result."
DISAGREES_MARK = "≠"  # after a score that another result of the same revision disagrees with
DISAGREES_MEANING = f"{DISAGREES_MARK} another result of the same revision disagrees; the notes say by how much."
# Put after the score of a contaminated task.
MARKS: dict[Flag, str] = {"same source": "†", "trained on train": "‡", "trained on test": "§"}


def ranks_text(row: Row) -> str:
    """Return the interval of a model's rank, `2` or `1–3`; nothing without predictions."""
    if row.standing is None:
        return ""
    place, last = row.standing.place, row.standing.last
    return str(place) if place == last else f"{place}–{last}"


def marks(cell: Cell) -> str:
    """Return the marks after a score: contamination, test clips among the training clips, bundle, disagreement."""
    leak, bundle = LEAK_MARK if cell.leaked else "", BUNDLE_MARK if cell.bundle else ""
    return MARKS.get(cell.contamination.flag, "") + leak + bundle + (DISAGREES_MARK if cell.disagreements else "")


def legend(board: Board, method: Method) -> list[str]:
    """Return the meaning of each mark that occurs in a table of task scores, and whose training data is unknown."""
    cells = [cell for cell in board.cells if cell.method == method]
    present = {cell.contamination.flag for cell in cells}
    lines = [f"{MARKS[flag]} {flag}: {MEANINGS[flag]}." for flag in SEEN if flag in present]
    if any(cell.leaked for cell in cells):
        lines.append(LEAK_MEANING)
    lines += [BUNDLE_MEANING] if any(cell.bundle for cell in cells) else []
    lines += [DISAGREES_MEANING] if any(cell.disagreements for cell in cells) else []
    unknown = []
    for model in board.models:
        flags = [cell.contamination.flag for cell in cells if cell.model == model.key]
        count = flags.count("unknown")
        if count:
            unknown.append(model.label if count == len(flags) else f"{model.label} ({count} of {len(flags)} tasks)")
    if unknown:
        lines.append(f"Whether these were trained on the tasks' recordings is not known: {', '.join(unknown)}.")
    return lines
