"""The board as CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict

from uwbench.errors import escaped, printable
from uwbench.methods import METHODS, metric_name
from uwbench.report.board import Board, Cell, Row
from uwbench.report.curves import curve_rows, layer_rows
from uwbench.report.geometry import geometry_rows
from uwbench.report.ranks import EVERY, certainty, rank_envelopes
from uwbench.report.robustness import corrupted_rows, noise_limits, robustness_tables
from uwbench.results.averages import AVERAGES, Method
from uwbench.results.contamination import MEANINGS, SEEN
from uwbench.results.record import Flag

METHOD_NAMES: dict[Method, str] = {name: info.title for name, info in METHODS.items()}
NOTE = (
    "Scores are in [0, 1], higher is better, with 95 % bootstrap intervals. Place is 1 + the number of models that are "
    "significantly better (paired bootstrap, Holm): models of one place are tied. Ranks is the 95 % interval of the "
    "true rank, which ends at the number of models that are not significantly worse. An average over other tasks or "
    "other data than the rest carries no rank."
)
ROBUSTNESS_NOTE = (
    "Change of the score when the test clips are corrupted and the probes are those of clean clips, with the 95 % "
    "interval of a bootstrap over the same clips."
)
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
GEOMETRY_NOTE = (
    "Rank correlation (Kendall's tau-b) of each figure of the vectors' geometry with scores: over the models of a task "
    "or over the layers of a model, three at least; the mean over these sets, with the least and the greatest. A "
    "figure that goes with the scores of these models need not do so for others."
)
CSV_FIELDS: tuple[str, ...] = (
    "model",
    "fingerprint",
    "method",
    "protocol",
    "protocol_version",
    "suite",
    "kind",
    "name",
    "score",
    "low",
    "high",
    "tasks",
    "of",
    "rank",
    "place",
    "rank_low",
    "rank_high",
    "n",
    "metric",
    "status",
    "source",
    "contamination",
    "because",
    "corruption",
    "drop",
    "drop_low",
    "drop_high",
    "cosine",
    "snr_db",
    "bound",
    "shots",
    "clips",
    "layer",
    "equal_from",
)


def render_json(board: Board) -> str:
    """Return `{"scores": [...], "averages": [...]}` as strict JSON; `tasks` is the number of tasks in an average.

    If models are ranked, `pairs` has their order under each method and under every one, and `rank_correlations` how
    far the methods agree; `rank_envelopes` has each model's ranks over the methods. `curves` and `layers` have the
    points of curves over labelled clips and the scores by layer, if there are some. `caveats` are the protocol's, if it
    has any. With scores by `geometry`, `geometry_correlations` has how its figures go with scores. If test clips were
    corrupted, `robustness` has a row for each score on them and `noise_limits` the ratio of signal to noise at which 5
    points (0.05) are lost.
    """
    scores = [
        {
            "model": board.label(cell.model),
            "task": cell.task,
            "method": cell.method,
            "protocol": board.protocol,
            "metric": cell.score.metric,
            "score": cell.score.main_score,
            "low": None if cell.score.ci95 is None else cell.score.ci95[0],
            "high": None if cell.score.ci95 is None else cell.score.ci95[1],
            "status": cell.state,
            "contamination": cell.contamination.flag,
            "because": [*cell.contamination.because, *cell.notes],
        }
        for cell in board.cells
    ]
    averages = [
        {
            "model": board.label(row.model),
            "method": row.method,
            "protocol": board.protocol,
            "suite": board.suite.name,
            "average": row.average.name,
            "score": row.average.score,
            "low": row.average.low,
            "high": row.average.high,
            "tasks": len(row.average.tasks),
            "rank": row.rank,
            "rank_low": None if row.standing is None else row.standing.place,
            "rank_high": None if row.standing is None else row.standing.last,
        }
        for row in board.rows
        if row.scope == "suite"
    ]
    lists: dict[str, Sequence[object]] = {"scores": scores, "averages": averages}
    if board.caveats:
        lists["caveats"] = board.caveats
    sure = certainty(board)
    if sure.pairs:
        lists |= {"pairs": [asdict(row) for row in sure.pairs]}
        lists |= {"rank_correlations": [asdict(row) for row in sure.correlations]}
    more = {"rank_envelopes": rank_envelopes(board), "curves": curve_rows(board), "layers": layer_rows(board)}
    more |= {"geometry_correlations": geometry_rows(board)}
    lists |= {name: [asdict(row) for row in rows] for name, rows in more.items() if rows}
    if rows := corrupted_rows(board):
        lists["robustness"] = [asdict(row) for row in rows]
        lists["noise_limits"] = [
            {"model": board.label(cell.model), "task": cell.task, "method": cell.method, **limit.model_dump()}
            for cell, limit in noise_limits(board)
        ]
    text = json.dumps(lists, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{escaped(text)}\n"


def render_csv(board: Board) -> str:
    """Return one line per score, point of a curve, layer, score on corrupted clips, average, pair and published number.

    The column `kind` tells them apart.

    A text that a spreadsheet would read as a formula gets an apostrophe in front.
    """
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, CSV_FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    of_scores = [*_score_rows(board), *_curve_rows(board), *_corrupted_rows(board)]
    of_models = [*_average_rows(board), *_envelope_rows(board), *_pair_rows(board), *_geometry_rows(board)]
    for row in [*of_scores, *of_models, *_published_rows(board)]:
        writer.writerow({field: _plain(value) for field, value in row.items()})
    return out.getvalue()


def _score_rows(board: Board) -> list[dict[str, object]]:
    return [
        {
            **_model_fields(board, cell.model, cell.method),
            "kind": "task",
            "name": cell.task,
            "score": cell.score.main_score,
            "low": cell.score.ci95[0] if cell.score.ci95 else "",
            "high": cell.score.ci95[1] if cell.score.ci95 else "",
            "n": cell.n,
            "metric": cell.score.metric,
            "status": cell.state,
            "contamination": cell.contamination.flag,
            "because": "; ".join([*cell.contamination.because, *cell.notes]),
        }
        for cell in board.cells
    ]


def _curve_rows(board: Board) -> list[dict[str, object]]:
    keys = {board.label(model.key): model.key for model in board.models}
    return [
        *(
            {
                **_model_fields(board, keys[row.model], row.method),
                "kind": "curve",
                "name": row.task,
                "score": row.score,
                "low": _blank(row.low),
                "high": _blank(row.high),
                "metric": row.metric,
                "shots": "all" if row.shots is None else row.shots,
                "clips": row.clips,
            }
            for row in curve_rows(board)
        ),
        *(
            {
                **_model_fields(board, keys[row.model], row.method),
                "kind": "layer",
                "name": row.task,
                "score": row.score,
                "metric": row.metric,
                "layer": row.name,
            }
            for row in layer_rows(board)
        ),
    ]


def _envelope_rows(board: Board) -> list[dict[str, object]]:
    """Return each model's ranks over all methods: from the best to the worst in `name`."""
    common = {"protocol": board.protocol, "suite": board.suite.name, "kind": "ranks over methods"}
    return [
        {
            **common,
            "model": row.model,
            "method": EVERY,
            "name": f"{row.best} to {row.worst}",
            "rank_low": _blank(row.low),
            "rank_high": _blank(row.high),
            "n": row.methods,
        }
        for row in rank_envelopes(board)
    ]


def _corrupted_rows(board: Board) -> list[dict[str, object]]:
    keys = {board.label(model.key): model.key for model in board.models}
    limits = [
        {
            **_model_fields(board, cell.model, cell.method),
            "kind": "noise limit",
            "name": cell.task,
            "corruption": f"noise:{limit.colour}",
            "snr_db": limit.snr_db,
            "bound": limit.bound,
        }
        for cell, limit in noise_limits(board)
    ]
    return [
        {
            **_model_fields(board, keys[row.model], row.method),
            "kind": "corrupted",
            "name": row.task,
            "score": row.score,
            "n": row.clips,
            "corruption": row.corruption,
            "drop": row.drop,
            "drop_low": row.low,
            "drop_high": row.high,
            "cosine": row.cosine,
        }
        for row in corrupted_rows(board)
    ] + limits


def _average_rows(board: Board) -> list[dict[str, object]]:
    return [
        {
            **_model_fields(board, row.model, row.method),
            "kind": "average" if row.scope == "suite" else f"average of {row.scope}",
            "name": row.average.name,
            "score": row.average.score,
            "low": _blank(row.average.low),
            "high": _blank(row.average.high),
            "tasks": len(row.average.tasks),
            "of": row.average.of,
            "rank": _blank(row.rank),
            "place": "" if row.standing is None else row.standing.place,
            "rank_low": "" if row.standing is None else row.standing.place,
            "rank_high": "" if row.standing is None else row.standing.last,
        }
        for row in board.rows
    ]


def _pair_rows(board: Board) -> list[dict[str, object]]:
    """Return the pairs of ranked models: the first is the model, the second the name, the score their difference."""
    sure, common = certainty(board), {"protocol": board.protocol, "suite": board.suite.name}
    return [
        *(
            {
                **common,
                "model": row.model,
                "method": row.method,
                "kind": "pair",
                "name": row.other,
                "score": _blank(row.difference),
                "low": _blank(row.low),
                "high": _blank(row.high),
                "status": row.verdict,
                "equal_from": _blank(row.equal_from),
            }
            for row in sure.pairs
        ),
        *(
            {
                **common,
                "method": row.method,
                "kind": "rank correlation",
                "name": row.other,
                "score": row.tau,
                "low": row.low,
                "high": row.high,
                "n": row.models,
            }
            for row in sure.correlations
        ),
    ]


def _geometry_rows(board: Board) -> list[dict[str, object]]:
    """Return the rank correlations of geometry: the figure is the name, and `because` says over what they are."""
    return [
        {
            "method": row.method,
            "protocol": board.protocol,
            "suite": board.suite.name,
            "kind": "geometry correlation",
            "name": row.figure,
            "score": row.tau,
            "low": row.low,
            "high": row.high,
            "n": row.sets,
            "because": f"over {row.over}",
        }
        for row in geometry_rows(board)
    ]


def _published_rows(board: Board) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for published in board.references:
        common = {
            "model": published.model,
            "method": published.method,
            "protocol": published.protocol,
            "source": published.source,
        }
        for entry in published.entries:
            rows.append({**common, "kind": "published task", "name": entry.task, "score": entry.score})
        for name, score in published.printed.items():
            rows.append({**common, "kind": "published average", "name": name, "score": score})
        for name, average in published.averages.items():
            count = len(average.tasks)
            row = {"kind": "recomputed average", "name": name, "score": average.score, "tasks": count, "of": count}
            rows.append({**common, **row})
    return rows


def _model_fields(board: Board, model: str, method: Method) -> dict[str, object]:
    return {
        "model": board.label(model),
        "fingerprint": board.model(model).info.fingerprint,
        "method": method,
        "protocol": board.protocol,
        "protocol_version": board.protocol_version,
        "suite": board.suite.name,
    }


def _plain(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, str):
        return f"'{printable(value)}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else printable(value)
    return value


def _blank(value: float | None) -> object:
    return "" if value is None else value


def render_markdown(board: Board) -> str:
    """Return the board as GitHub Markdown: averages, task scores, what is off the board, published numbers."""
    lines = [
        f"# {_text(board.suite.title)}",
        "",
        f"Protocol `{board.protocol}`, version {board.protocol_version}. {NOTE}",
    ]
    for method in board.methods:
        lines += ["", f"## {METHOD_NAMES[method]}: averages", "", *_averages_table(board, method)]
        lines += ["", f"## {METHOD_NAMES[method]}: tasks", "", *_tasks_table(board, method)]
        for title, head, rows in robustness_tables(board, method):
            lines += ["", f"### {METHOD_NAMES[method]}: {_text(title)}, corrupted", "", ROBUSTNESS_NOTE, ""]
            lines += _table([_text(name) for name in head], [[_text(cell) for cell in row] for row in rows])
    if rows := geometry_rows(board):
        lines += ["", "## Geometry and scores", "", GEOMETRY_NOTE, ""]
        lines += _table(
            ["figure", "method", "over", "tau-b", "least", "greatest", "sets"],
            [
                [
                    row.figure,
                    METHOD_NAMES[row.method],
                    row.over,
                    *(f"{v:.2f}" for v in (row.tau, row.low, row.high)),
                    str(row.sets),
                ]
                for row in rows
            ],
        )
    if not board.models:
        lines += ["", "No result of this protocol is here yet."]
    elif board.caveats:
        lines += ["", "## Caveats of the protocol", "", *(f"- {_text(caveat)}" for caveat in board.caveats)]
    if board.notes:
        lines += ["", "## Notes on the data", "", *(f"- {_text(note)}" for note in board.notes)]
    if board.off or board.problems:
        lines += ["", "## Off the board", ""]
        lines += [f"- {_text(off.model)}, {_text(off.task)} ({off.status}): {_text(off.reason)}" for off in board.off]
        lines += [f"- {_text(problem)}" for problem in board.problems]
    if board.references:
        lines += ["", "## Published numbers, not run here", "", *_published_table(board)]
    return "\n".join(lines) + "\n"


def _averages_table(board: Board, method: Method) -> list[str]:
    rows = []
    for model in board.models:
        headline = board.row(model.key, method, "weighted")
        if headline is None:
            continue
        cells = [_interval(board.row(model.key, method, name)) for name in AVERAGES]
        count = f"{len(headline.average.tasks)} of {headline.average.of}"
        standing = headline.standing
        rank, place = _blank(headline.rank), "" if standing is None else str(standing.place)
        rows.append([str(rank), place, ranks_text(headline), _text(model.label), *cells, count])
    rows.sort(key=lambda row: (row[0] == "", int(row[0] or 0)))
    return _table(["Rank", "Place", "Ranks", "Model", *(text.name for text in AVERAGES.values()), "Tasks"], rows)


def _tasks_table(board: Board, method: Method) -> list[str]:
    rows = []
    for task in board.tasks:
        cells = []
        for model in board.models:
            cell = board.cell(model.key, task.info.name, method)
            if cell is None:
                cells.append("–")
            else:
                mark = "" if cell.same_data and cell.status == "ok" else "*"
                mark += marks(cell)
                cells.append(_number(cell.score.main_score, cell.score.ci95) + mark)
        outside = "" if task.in_suite else " (outside the suite)"
        metric = metric_name(METHODS[method].metric or task.info.metric)
        rows.append([_text(task.info.title) + outside, task.info.domain, _text(metric), str(task.info.n), *cells])
    lines = _table(["Task", "Domain", "Metric", "n", *(_text(model.label) for model in board.models)], rows)
    if any(not cell.same_data or cell.status != "ok" for cell in board.cells if cell.method == method):
        lines += ["", "\\* scored without some clips, or on other data than the board's other models."]
    for line in legend(board, method):
        lines += ["", _text(line)]
    return lines


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


def _published_table(board: Board) -> list[str]:
    rows = []
    for published in board.references:
        printed = "; ".join(f"{_text(name)} {score:.3f}" for name, score in published.printed.items()) or "–"
        recomputed = "; ".join(f"{name} {average.score:.3f}" for name, average in published.averages.items()) or "–"
        count = str(len(published.entries)) if published.entries else "–"
        rows.append([_text(published.source), _text(published.model), published.method, printed, recomputed, count])
    return _table(["Source", "Model", "Method", "Averages as published", "Recomputed from its tasks", "Tasks"], rows)


def _interval(row: Row | None) -> str:
    if row is None:
        return "–"
    average = row.average
    return _number(average.score, None if average.low is None or average.high is None else (average.low, average.high))


def _number(score: float, bounds: tuple[float, float] | None) -> str:
    return f"{score:.3f}" if bounds is None else f"{score:.3f} ({bounds[0]:.3f}–{bounds[1]:.3f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _text(text: str) -> str:
    """Return `text` escaped so that neither Markdown nor HTML interprets it."""
    safe = printable(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", safe)
