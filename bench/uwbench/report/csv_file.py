"""The board as CSV, one table in which the column `kind` says what a line is."""

from __future__ import annotations

import csv
import io

from uwbench.errors import printable
from uwbench.report.board import Board
from uwbench.report.curves import curve_rows, layer_rows
from uwbench.report.geometry import geometry_rows
from uwbench.report.ranks import EVERY, certainty, rank_envelopes
from uwbench.report.robustness import corrupted_rows, noise_limits
from uwbench.results.averages import Method

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
