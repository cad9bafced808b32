"""The board as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from uwbench.errors import escaped
from uwbench.report.board import Board
from uwbench.report.curves import curve_rows, layer_rows
from uwbench.report.geometry import geometry_rows
from uwbench.report.ranks import certainty, rank_envelopes
from uwbench.report.robustness import corrupted_rows, noise_limits


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
