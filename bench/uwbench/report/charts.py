"""Figures as Vega-Lite, one specification per figure; Vega draws them on the page and vl-convert in files.

A specification calls its data `rows`, which `chart_rows` returns. Colours are safe for colour-blind readers (Okabe and
Ito 2008), and shapes differ too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uwbench.report.board import Board
from uwbench.report.legend import METHOD_NAMES
from uwbench.results.averages import AVERAGES, Method

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7A5FA8")
FIGURES = ("averages", "heatmap", "profile", "throughput", "size", "layers")

FIT = {"type": "fit-x", "contains": "padding"}  # as wide as the page gives, as high as the rows need

Spec = dict[str, Any]

THROUGHPUT = ("clips_per_s", "Clips encoded per second")
SIZE = ("parameters", "Parameters (millions)")
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")


def colour_scale(labels: Sequence[str]) -> Spec:
    """Return the scale that gives each model the same colour in every figure."""
    return {"domain": list(labels), "range": [PALETTE[i % len(PALETTE)] for i in range(len(labels))]}


def chart_rows(board: Board, figure: str, method: Method, average: str) -> list[dict[str, Any]]:
    """Return the rows of a figure, one per mark."""
    if figure in ("averages", "throughput", "size"):
        return _average_rows(board, method, average)
    rows = []
    for cell in board.cells:
        if cell.method != method:
            continue
        low, high = cell.score.ci95 or (None, None)
        common = {"model": board.label(cell.model), "task": cell.task}
        if figure == "layers":
            layers = cell.score.layers or {}
            rows += [{**common, "layer": i, "name": name, "score": layers[name]} for i, name in enumerate(layers)]
        else:
            rows.append({**common, "score": cell.score.main_score, "low": low, "high": high})
    return rows


def _average_rows(board: Board, method: Method, average: str) -> list[dict[str, Any]]:
    rows = []
    for model in board.models:
        row = board.row(model.key, method, average)
        if row is None:
            continue
        speed = model.speed or {}
        tasks = f"{len(row.average.tasks)} of {row.average.of}"
        rows.append(
            {
                "model": model.label,
                "label": model.label if row.rank is not None else f"{model.label} ({tasks})",
                "ranked": row.rank is not None,
                "score": row.average.score,
                "low": row.average.low,
                "high": row.average.high,
                "tasks": tasks,
                "clips_per_s": speed.get("clips_per_s"),
                "parameters": None if model.info.parameters is None else model.info.parameters / 1e6,
            }
        )
    return sorted(rows, key=lambda row: (not row["ranked"], -row["score"]))


def chart(board: Board, figure: str, method: Method, average: str, rows: Sequence[Spec]) -> Spec:
    """Return the specification, without rows, of a figure in FIGURES; its axes fit `rows`, those of `chart_rows`."""
    labels = [model.label for model in board.models]
    score = f"{AVERAGES[average].name} average, {METHOD_NAMES[method]}"
    tasks = [task.info.name for task in board.tasks]
    body = {
        "averages": lambda: averages_chart(score),
        "heatmap": lambda: heatmap_chart(labels, tasks),
        "profile": lambda: profile_chart(labels, tasks),
        "throughput": lambda: scatter_chart(labels, *THROUGHPUT, score, rows),
        "size": lambda: scatter_chart(labels, *SIZE, score, rows),
        "layers": lambda: layers_chart(labels),
    }[figure]()
    return {"$schema": SCHEMA, "data": {"name": "rows"}, **body}


def page_charts(board: Board) -> dict[str, Any]:
    """Return the specifications that the page fills: with rows, the chosen average for `@score`, the axis of a cost.

    Charts of a cost have two: for the whole scale of scores, and fitted to the points.
    """
    labels = [model.label for model in board.models]
    tasks = [task.info.name for task in board.tasks]
    costs = {
        name: {
            "whole": scatter_chart(labels, *cost, "@score", front=True),
            "fitted": scatter_chart(labels, *cost, "@score", front=True, whole=False),
        }
        for name, cost in (("throughput", THROUGHPUT), ("size", SIZE))
    }
    bodies = {
        "averages": averages_chart("@score"),
        "heatmap": heatmap_chart(labels, tasks),
        "profile": profile_chart(labels, tasks),
        "layers": layers_chart(labels),
        "curves": curves_chart(labels),
        "drops": drops_chart(labels),
        "confusion": confusion_chart(),
        "difference": difference_chart(),
    }
    return {**{name: {"$schema": SCHEMA, "data": {"name": "rows"}, **body} for name, body in bodies.items()}, **costs}


def averages_chart(score: str) -> Spec:
    """Return a dot with an interval per model: ranked ones by score, then, hollow, those with other tasks or data."""
    y = {"field": "label", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 260}}
    tooltip = _tooltip("model", "score", "low", "high", "tasks")
    return {
        "width": "container",
        "autosize": FIT,
        "height": {"step": 30},
        "encoding": {"y": y},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.45},
                "encoding": {"x": _unit("low", score), "x2": {"field": "high"}},
            },
            *_points({"x": _unit("score", score), "tooltip": tooltip}, size=90),
        ],
    }


def _points(encoding: Spec, *, size: int) -> list[Spec]:
    """Return the layers of points by `encoding`: filled for ranked models, hollow for the others."""
    return [
        {
            "transform": [{"filter": "datum.ranked" if ranked else "!datum.ranked"}],
            "mark": {"type": "point", "filled": ranked, "size": size, "opacity": 1, "strokeWidth": 2},
            "encoding": encoding,
        }
        for ranked in (True, False)
    ]


def heatmap_chart(labels: Sequence[str], tasks: Sequence[str]) -> Spec:
    """Return a heat map of tasks by models, with the scores as text."""
    return {
        "width": "container",
        "autosize": FIT,
        "height": {"step": 30},
        "encoding": {
            "x": {"field": "model", "type": "nominal", "sort": list(labels), "title": None, "axis": _slanted()},
            "y": {"field": "task", "type": "nominal", "sort": list(tasks), "title": None},
        },
        "layer": [
            {
                "mark": {"type": "rect", "cornerRadius": 2},
                "encoding": {
                    "color": {
                        "field": "score",
                        "type": "quantitative",
                        "title": "Score",
                        "scale": {"scheme": "viridis", "domain": [0, 1]},
                        "legend": {"orient": "top", "direction": "horizontal", "gradientLength": 160},
                    },
                    "tooltip": _tooltip("model", "task", "score", "low", "high"),
                },
            },
            {
                "mark": {"type": "text", "fontSize": 11},
                "encoding": {
                    "text": {"field": "score", "type": "quantitative", "format": ".2f"},
                    "color": {"condition": {"test": "datum.score > 0.55", "value": "#111"}, "value": "#fff"},
                },
            },
        ],
    }


def profile_chart(labels: Sequence[str], tasks: Sequence[str]) -> Spec:
    """Return one line per model over the tasks, with intervals."""
    x = {"field": "task", "type": "nominal", "sort": list(tasks), "title": None, "axis": _slanted()}
    return {
        "width": "container",
        "autosize": FIT,
        "height": 300,
        "encoding": {"x": x, "color": _colour(labels)},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.35},
                "encoding": {"y": _unit("low", "Score"), "y2": {"field": "high"}},
            },
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"y": _unit("score", "Score")}},
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                "encoding": {
                    "y": _unit("score", "Score"),
                    "shape": _shape(labels),
                    "tooltip": _tooltip("model", "task", "score", "low", "high"),
                },
            },
        ],
    }


def scatter_chart(
    labels: Sequence[str],
    field: str,
    title: str,
    score: str,
    rows: Sequence[Spec] = (),
    *,
    front: bool = False,
    whole: bool | None = None,
) -> Spec:
    """Return quality against a cost on a logarithmic axis, with intervals; `rows` are the points.

    The cost's axis spans a factor of two beyond the points, and with fewer than three points the score's is 0 to 1
    (`whole`): an axis fitted to one or two of them would show differences that are none. With `front`, a line and names
    mark the points whose `front` is true; the name stands at the side `name_at`.
    """
    costs = [row[field] for row in rows if row[field]]
    scale: Spec = {"type": "log", "nice": False}
    if costs:
        scale["domain"] = [min(costs) / 2, max(costs) * 2]
    x = {
        "field": field,
        "type": "quantitative",
        "scale": scale,
        "title": title,
        "axis": {"tickCount": 5, "grid": False},
    }
    zero = len(costs) < 3 if whole is None else whole
    colour = _colour(labels)
    points = {
        "y": _unit("score", score, zero=zero),
        "color": colour,
        "shape": _shape(labels),
        "tooltip": [*_tooltip("model", "score", "low", "high", "tasks"), {"field": field, "title": title}],
    }
    on_front = {"transform": [{"filter": "datum.front"}]}
    y = {"y": _unit("score", score, zero=zero)}
    dashes = {"type": "line", "strokeDash": [4, 3], "strokeWidth": 1.5, "color": "#8a8f98"}
    line = {**on_front, "mark": dashes, "encoding": y}
    names = [
        {
            "transform": [{"filter": f"datum.front && datum.name_at === '{side}'"}],
            "mark": {"type": "text", "align": align, "dx": shift, "dy": -9, "fontSize": 12, "limit": 170},
            "encoding": {**y, "text": {"field": "model"}},
        }
        for side, align, shift in (("left", "right", -9), ("right", "left", 9))
    ]
    return {
        "$schema": SCHEMA,
        "data": {"name": "rows"},
        "width": "container",
        "autosize": FIT,
        "height": 300,
        "transform": [{"filter": f"isValid(datum.{field}) && datum.{field} > 0"}],
        "encoding": {"x": x},
        "layer": [
            *([line] if front else []),
            {
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.45},
                "encoding": {"y": _unit("low", score, zero=zero), "y2": {"field": "high"}, "color": colour},
            },
            *_points(points, size=110),
            *(names if front else []),
        ],
    }


def layers_chart(labels: Sequence[str]) -> Spec:
    """Return scores by layer, one panel per task and one line per model."""
    return {
        "facet": {"field": "task", "type": "nominal", "title": None},
        "columns": 3,
        "spec": {
            "width": 230,
            "height": 150,
            "mark": {"type": "line", "point": True},
            "encoding": {
                "x": {
                    "field": "name",
                    "type": "ordinal",
                    "sort": {"field": "layer"},
                    "title": "Layer",
                    "axis": {"labelAngle": 0, "labelOverlap": True},
                },
                "y": _unit("score", "Score", zero=False),
                "color": _colour(labels),
                "tooltip": [*_tooltip("model", "task", "score"), {"field": "name", "title": "layer"}],
            },
        },
    }


def curves_chart(labels: Sequence[str]) -> Spec:
    """Return scores by the number of labelled clips, with intervals: one panel per task and one line per model."""
    x = {
        "field": "clips",
        "type": "quantitative",
        "scale": {"type": "log", "base": 2, "nice": False},
        "title": "Labelled clips",
        "axis": {"grid": False, "labelOverlap": True, "format": ".3~s"},
    }
    tooltip = [
        *_tooltip("model", "task"),
        {"field": "shots", "title": "per class"},
        {"field": "clips", "format": ".4~r"},
    ]
    return {
        "facet": {"field": "task", "type": "nominal", "title": None},
        "columns": 3,
        "spec": {
            "width": 230,
            "height": 190,
            "encoding": {"x": x, "color": _colour(labels)},
            "layer": [
                {
                    "mark": {"type": "area", "opacity": 0.15},
                    "encoding": {"y": _unit("low", "Score", zero=False), "y2": {"field": "high"}},
                },
                {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"y": _unit("score", "Score", zero=False)}},
                {
                    "mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
                    "encoding": {
                        "y": _unit("score", "Score", zero=False),
                        "shape": _shape(labels),
                        "tooltip": [*tooltip, *_tooltip("score", "low", "high")],
                    },
                },
            ],
        },
    }


def drops_chart(labels: Sequence[str]) -> Spec:
    """Return what each corruption costs a score, with intervals, one mark per model; the page supplies the rows."""
    y = {"field": "corruption", "type": "nominal", "sort": None, "title": None}
    x = {"type": "quantitative", "title": "Drop of the score", "axis": {"tickCount": 6}}
    offset = {"field": "model", "type": "nominal", "scale": {"domain": list(labels), "paddingOuter": 0.8}}
    return {
        "width": "container",
        "autosize": FIT,
        "height": {"step": 13, "for": "offset"},
        "encoding": {"y": y, "yOffset": offset, "color": _colour(labels)},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.5},
                "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {
                    "x": {"field": "drop", **x},
                    "shape": _shape(labels),
                    "tooltip": _tooltip("model", "corruption", "score", "drop", "low", "high"),
                },
            },
            {
                "data": {"values": [{}]},
                "mark": {"type": "rule", "strokeDash": [4, 4]},
                "encoding": {"x": {"datum": 0, **x}, "y": None, "yOffset": None, "color": {"value": "#8a8f98"}},
            },
        ],
    }


def confusion_chart() -> Spec:
    """Return the share of each true class by predicted class; the page supplies the rows."""
    return {
        "$schema": SCHEMA,
        "data": {"name": "rows"},
        "width": {"step": 34},
        "height": {"step": 26},
        "mark": {"type": "rect"},
        "encoding": {
            "x": {"field": "predicted", "type": "nominal", "sort": None, "title": "Predicted", "axis": _slanted()},
            "y": {"field": "truth", "type": "nominal", "sort": None, "title": "True"},
            "color": {
                "field": "share",
                "type": "quantitative",
                "title": "Share of the class",
                "scale": {"scheme": "viridis", "domain": [0, 1]},
                "legend": {"orient": "top", "direction": "horizontal", "gradientLength": 160},
            },
            "tooltip": [
                {"field": "truth", "title": "true"},
                {"field": "predicted"},
                {"field": "share", "format": ".1%"},
                {"field": "count", "format": ".1f", "title": "clips"},
            ],
        },
    }


def difference_chart() -> Spec:
    """Return the difference between two models per task, with intervals; the page supplies the rows."""
    y = {"field": "task", "type": "nominal", "sort": {"field": "difference", "order": "descending"}, "title": None}
    x = {"type": "quantitative", "title": "Difference in score", "axis": {"tickCount": 6}}
    sign = {"condition": {"test": "datum.sure", "value": PALETTE[0]}, "value": "#8a8f98"}
    return {
        "$schema": SCHEMA,
        "data": {"name": "rows"},
        "width": "container",
        "autosize": FIT,
        "height": {"step": 26},
        "layer": [
            {"mark": {"type": "rule", "strokeDash": [4, 4]}, "encoding": {"x": {"datum": 0, **x}}},
            {
                "mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.5},
                "encoding": {"y": y, "x": {"field": "low", **x}, "x2": {"field": "high"}, "color": sign},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
                "encoding": {
                    "y": y,
                    "x": {"field": "difference", **x},
                    "color": sign,
                    "tooltip": _tooltip("task", "difference", "low", "high", "p"),
                },
            },
        ],
    }


def _unit(field: str, title: str, *, zero: bool = True) -> Spec:
    scale: Spec = {"domain": [0, 1]} if zero else {"zero": False, "nice": True}
    axis = {"tickCount": 6, "format": ".2~f"}
    return {"field": field, "type": "quantitative", "scale": scale, "title": title, "axis": axis}


def _colour(labels: Sequence[str]) -> Spec:
    legend = {"orient": "bottom", "title": None, "labelLimit": 180, "symbolOpacity": 1}
    return {"field": "model", "type": "nominal", "scale": colour_scale(labels), "legend": legend}


def _shape(labels: Sequence[str]) -> Spec:
    shapes = [_SHAPES[i % len(_SHAPES)] for i in range(len(labels))]
    return {"field": "model", "type": "nominal", "scale": {"domain": list(labels), "range": shapes}}


def _slanted() -> Spec:
    return {"labelAngle": -35, "labelLimit": 140}


def _tooltip(*fields: str) -> list[Spec]:
    numbers = {"score", "low", "high", "difference", "drop", "p"}
    return [{"field": name, "format": ".3f"} if name in numbers else {"field": name} for name in fields]
