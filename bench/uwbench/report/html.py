"""The board as one HTML file that works offline: data, styles, program and Vega are inside it.

Data reaches the page as JSON in which `<`, `>` and `&` are escaped, and the program shows it as text, never as markup.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwbench.encoders.catalogue import CATALOGUE
from uwbench.errors import escaped
from uwbench.methods import METHODS, metric_name
from uwbench.report.board import Board, BoardModel, BoardTask, Cell
from uwbench.report.charts import PALETTE, page_charts
from uwbench.report.compare import DrawnAverages, compare_models, shared_cells
from uwbench.report.detail import Detail, read_details
from uwbench.report.ranks import certainty, rank_envelopes, ranking_methods
from uwbench.report.references import Published
from uwbench.report.sensitivity import sensitivity
from uwbench.report.table import chosen_text
from uwbench.results.averages import AVERAGES, Method
from uwbench.results.contamination import MEANINGS
from uwbench.results.record import CurvePoint
from uwbench.results.robustness import limit_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_PROGRAM = ("dom.js", "state.js", "mix.js", "board.js", "choose.js", "methods.js", "curves.js", "views.js")
_PAIRS = 190  # comparisons on the page, a few kilobytes each: all pairs of the first 20 models


def render_html(board: Board, *, audio: Mapping[str, Path] | None = None) -> str:
    """Return the board as one self-contained page.

    `audio` maps a task to the folder that its clip ids are paths in. The hardest clips of such a task get a player that
    reads the file from there, so the page contains the path of the folder.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    files = importlib.resources.files("uwbench.report") / "page"
    texts = {file.name: file.read_text(encoding="utf-8") for file in files.iterdir() if file.is_file()}
    program = "\n".join(texts[name] for name in _PROGRAM)
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(texts["board.html.j2"])
    return template.render(
        title=board.suite.title,
        protocol=board.protocol,
        version=board.protocol_version,
        caveats=board.caveats,
        style=Markup(texts["page.css"]),
        vega=Markup(_vega().replace("</script", r"<\/script")),
        program=Markup(program),
        data=Markup(script_json(page_data(board, audio or {}))),
    )


def script_json(data: object) -> str:
    """Return strict JSON that is safe inside a script element and as JavaScript."""
    text = escaped(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


@cache  # bundling takes seconds, and gives the same text each time
def _vega() -> str:
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def page_data(board: Board, audio: Mapping[str, Path]) -> dict[str, Any]:
    """Return everything the page shows, as plain values."""
    details = _details(board)
    return {
        "suite": board.suite.model_dump(mode="json"),
        "protocol": {"name": board.protocol, "version": board.protocol_version},
        "methods": [
            {
                "id": name,
                "name": METHODS[name].title,
                "short": METHODS[name].short,
                "answers": METHODS[name].answers,
                "describes": METHODS[name].describes,
            }
            for name in board.methods
        ],
        "averages": [{"id": name, "name": text.name, "formula": text.formula} for name, text in AVERAGES.items()],
        "scopes": _scopes(board),
        "flags": [{"id": flag, "meaning": meaning} for flag, meaning in MEANINGS.items()],
        "palette": PALETTE,
        "models": [_model(model, index) for index, model in enumerate(board.models)],
        "tasks": [_task(task) for task in board.tasks],
        "cells": [_cell(cell) for cell in board.cells],
        "rows": _rows(board),
        "pairs": _pairs(board),
        "certainty": _certainty(board),
        "envelopes": [_flat(row) for row in rank_envelopes(board)],
        "envelope_methods": ranking_methods(board),
        "details": details,
        "sensitivity": _sensitivity(board),
        "off": [{**asdict(off), "reason": without_folders(off.reason)} for off in board.off],
        "problems": [without_folders(problem) for problem in board.problems],
        "notes": [without_folders(note) for note in board.notes],
        "published": [_published(row) for row in board.references],
        "charts": page_charts(board),
        "audio": _audio(audio, details),
    }


def _scopes(board: Board) -> list[dict[str, Any]]:
    names = {"suite": "Whole suite", "shared": "Tasks that all models have"}
    sizes: dict[str, int] = {}
    for row in board.rows:
        sizes.setdefault(row.scope, row.average.of)
    return [
        {"id": scope, "name": names.get(scope, scope.removeprefix("domain:").capitalize()), "of": of}
        for scope, of in sizes.items()
    ]


def _model(model: BoardModel, index: int) -> dict[str, Any]:
    licences = {key: entry.licence for entry in CATALOGUE for key in (entry.name, entry.hub_id) if key}
    return {
        "key": model.key,
        "label": model.label,
        "colour": PALETTE[index % len(PALETTE)],
        "speed": model.speed,
        "device": model.device,
        "licence": licences.get(model.info.name),
        **model.info.model_dump(mode="json"),
    }


def _task(task: BoardTask) -> dict[str, Any]:
    about = {"metric": metric_name(task.info.metric), "in_suite": task.in_suite, "data": task.data}
    return {**task.info.model_dump(mode="json"), **about}


def _cell(cell: Cell) -> dict[str, Any]:
    low, high = cell.score.ci95 or (None, None)
    return {
        "model": cell.model,
        "task": cell.task,
        "method": cell.method,
        "score": cell.score.main_score,
        "low": low,
        "high": high,
        "n": cell.n,
        "status": cell.state,
        "same": cell.same_data,
        "flag": cell.contamination.flag,
        "because": cell.contamination.because,
        "seeds": cell.score.per_seed,
        "folds": cell.score.per_fold,
        "raw": cell.score.raw,
        "chosen": chosen_text(cell.score.chosen),
        "layers": cell.score.layers,
        "metric": metric_name(cell.score.metric),
        "curve": [_point(point) for point in cell.score.curve or ()],
        "corrupted": _corrupted(cell),
        "run": {
            "started": cell.run.started,
            "seconds": cell.run.seconds,
            "device": cell.run.device,
            "peak_mb": cell.run.peak_mb,
            "versions": cell.run.versions,
            "commit": (cell.run.git or {}).get("commit"),
            "dirty": (cell.run.git or {}).get("dirty"),
        },
    }


def _point(point: CurvePoint) -> dict[str, Any]:
    low, high = point.ci95 or (None, None)
    return {"shots": point.shots, "clips": point.clips, "score": point.score, "low": low, "high": high}


def _corrupted(cell: Cell) -> dict[str, Any] | None:
    """Return a score's drop under each corruption, and the noise at which 5 points are lost."""
    robustness = cell.robustness
    if robustness is None:
        return None
    rows = []
    for name, corrupted in robustness.corruptions.items():
        score = corrupted.scores.get(cell.method)
        if score is not None:
            low, high = score.ci95
            about = {"score": score.score, "drop": score.drop, "low": low, "high": high, "cosine": corrupted.cosine}
            rows.append({"corruption": name, **about})
    limit = robustness.five_points.get(cell.method)
    return (
        {
            "rows": rows,
            "clips": robustness.clips,
            "limit": None if limit is None else {**limit.model_dump(), "text": limit_text(limit)},
        }
        if rows
        else None
    )


def _certainty(board: Board) -> dict[str, Any]:
    sure = certainty(board)
    return {
        "methods": sure.methods,
        "pairs": [_flat(row) for row in sure.pairs],
        "correlations": [_flat(row) for row in sure.correlations],
    }


def _rows(board: Board) -> list[dict[str, Any]]:
    return [
        {
            "model": row.model,
            "method": row.method,
            "scope": row.scope,
            "average": row.average.name,
            "score": row.average.score,
            "low": row.average.low,
            "high": row.average.high,
            "held": len(row.average.tasks),
            "of": row.average.of,
            "rank": row.rank,
            "place": None if row.standing is None else row.standing.place,
            "rank_high": None if row.standing is None else row.standing.last,
            "tied": [] if row.standing is None else [board.label(model) for model in row.standing.tied],
        }
        for row in board.rows
    ]


def _pairs(board: Board) -> list[dict[str, Any]]:
    pairs, drawn = [], DrawnAverages()
    keys = [model.key for model in board.models]
    ordered = sorted(combinations(range(len(keys)), 2), key=lambda pair: (pair[1], pair[0]))  # the best models first
    for first, second in [(keys[a], keys[b]) for a, b in ordered[:_PAIRS]]:
        for method in board.methods:
            names = [task.info.name for task in board.tasks if task.in_suite]
            if any(shared_cells(board, (first, second), name, method) for name in names):
                comparison = compare_models(board, first, second, method, drawn)
                tasks, overall = ([_flat(row) for row in rows] for rows in (comparison.tasks, comparison.overall))
                crossings = [{**_flat(row), "crosses": row.crosses} for row in comparison.crossings]
                pair = {"a": first, "b": second, "method": method, "tasks": tasks, "overall": overall}
                pairs.append({**pair, "crossings": crossings} if crossings else pair)
    return pairs


def _flat(row: DataclassInstance) -> dict[str, Any]:
    """Return a record of plain values as a dictionary, without the copies that `asdict` makes."""
    return {field.name: getattr(row, field.name) for field in fields(row)}


def _details(board: Board) -> dict[str, dict[str, Any]]:
    """Return the errors of each score whose predictions can be read."""
    methods: dict[Path, list[Method]] = {}
    for cell in board.cells:
        methods.setdefault(cell.path, []).append(cell.method)
    read: dict[Path, dict[Method, Detail]] = {}
    details = {}
    for cell in board.cells:
        if cell.path not in read:
            read[cell.path] = read_details(cell.path, methods[cell.path], board.infos[cell.task].kind)
        if cell.method in read[cell.path]:
            details[f"{cell.model}|{cell.task}|{cell.method}"] = _detail(read[cell.path][cell.method])
    return details


def _detail(detail: Detail) -> dict[str, Any]:
    names = list(dict.fromkeys(truth for truth, *_ in detail.confusion))
    position = {name: index for index, name in enumerate(names)}
    return {
        "measure": detail.measure,
        "classes": detail.classes,
        "names": names,
        "confusion": [
            [position[truth], position[guess], round(share, 4), round(count, 2)]
            for truth, guess, share, count in detail.confusion
            if count
        ],
        "worst": [_flat(row) for row in detail.worst],
        "hardest": [_flat(row) for row in detail.hardest],
    }


def _sensitivity(board: Board) -> dict[str, Any]:
    results = {method: sensitivity(board, method) for method in board.methods}
    return {method: asdict(result) for method, result in results.items() if result is not None}


def _published(row: Published) -> dict[str, Any]:
    return {
        "source": row.source,
        "protocol": row.protocol,
        "method": row.method,
        "model": row.model,
        "printed": row.printed,
        "computed": {name: average.score for name, average in row.averages.items()},
        "tasks": {entry.task: entry.score for entry in row.entries},
    }


def without_folders(text: str) -> str:
    """Return `text` with absolute paths cut to their last part: the page names no folder of its maker's machine."""
    return _PATH.sub(lambda match: "…/" + match[0].replace("\\", "/").rpartition("/")[2], text)


# An absolute path of three or more parts; before it stands what no path or web address has there.
_PATH = re.compile(r"""(?:(?<![^\s'"(=:,])|(?<=file://))(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\:;,'"()]+){3,}""")


def _audio(audio: Mapping[str, Path], details: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return task -> clip id -> file URL for the hardest clips whose file exists."""
    urls: dict[str, dict[str, str]] = {}
    for key, detail in details.items():
        task = key.split("|")[1]
        for clip in detail["hardest"] if task in audio else ():
            path = audio[task] / clip["id"]
            if path.is_file():
                urls.setdefault(task, {})[clip["id"]] = path.resolve().as_uri()
    return urls
