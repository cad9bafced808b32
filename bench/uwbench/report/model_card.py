"""A model's scores for its model card: `model-index` and `.eval_results` of Hugging Face, and MTEB's task files."""

from __future__ import annotations

from typing import Any

from uwbench.errors import UsageError
from uwbench.methods import metric_name
from uwbench.report.board import Board, Cell
from uwbench.report.compare import find_model
from uwbench.report.legend import METHOD_NAMES
from uwbench.results.averages import AVERAGES

_TASK_TYPES = {
    "single-label": "audio-classification",
    "multi-label": "audio-classification",
    "frame-multi-label": "audio-classification",
    "retrieval": "audio-text-retrieval",
    "transcription": "automatic-speech-recognition",
}


def render_model_index(board: Board, model: str) -> str:
    """Return the YAML front matter of a model card, including the `---` lines, with every score of `model`."""
    key = find_model(board, model)
    entry = {"name": board.label(key), "results": [_hub_result(board, cell) for cell in _cells(board, key)]}
    entry["results"] += _hub_averages(board, key)
    return "---\n" + _yaml({"tags": ["uwbench"], "model-index": [entry]}) + "---\n"


def render_eval_results(board: Board, model: str) -> str:
    """Return the list that a model repository keeps under `.eval_results/`, one entry per score."""
    key = find_model(board, model)
    return _yaml(
        [
            {
                "dataset": {
                    "id": cell.task,
                    "task_id": f"{cell.task}-{cell.method}",
                    "revision": _revision(board, cell),
                },
                "value": round(cell.score.main_score, 6),
                "date": cell.run.started[:10],
                "notes": f"{_metric_of(cell)}, protocol {board.protocol}, n {cell.n}",
                "source": {"name": f"uwbench {cell.run.versions.get('uwbench', '')}".strip()},
            }
            for cell in _cells(board, key)
        ]
    )


def mteb_results(board: Board, model: str) -> dict[str, dict[str, Any]]:
    """Return task results as MTEB writes them, file name -> content: `scores: {test: [{main_score, ...}]}`.

    The list has one entry per method.
    """
    key = find_model(board, model)
    files: dict[str, dict[str, Any]] = {}
    for cell in _cells(board, key):
        file = files.setdefault(
            f"{cell.task}.json",
            {
                "task_name": cell.task,
                "dataset_revision": _revision(board, cell),
                "mteb_version": f"uwbench-{cell.run.versions.get('uwbench', '')}",
                "evaluation_time": sum(cell.run.seconds.values()),
                "scores": {"test": []},
            },
        )
        low, high = cell.score.ci95 or (None, None)
        file["scores"]["test"].append(
            {
                "main_score": round(cell.score.main_score, 6),
                "hf_subset": cell.method,
                "languages": [],
                "metric": cell.score.metric,
                "ci95_low": low,
                "ci95_high": high,
                "scores_per_experiment": list(cell.score.per_seed),
            }
        )
    return files


def _cells(board: Board, key: str) -> list[Cell]:
    cells = [cell for cell in board.cells if cell.model == key]
    if not cells:
        raise UsageError(f"{board.label(key)} has no score on the board")
    return cells


def _metric_of(cell: Cell) -> str:
    return f"{METHOD_NAMES[cell.method]}, {metric_name(cell.score.metric)}"


def _hub_result(board: Board, cell: Cell) -> dict[str, Any]:
    info = board.infos[cell.task]
    metric: dict[str, Any] = {
        "type": cell.score.metric,
        "name": _metric_of(cell),
        "value": round(cell.score.main_score, 6),
    }
    if cell.score.ci95 is not None:
        metric["args"] = {"ci95_low": round(cell.score.ci95[0], 6), "ci95_high": round(cell.score.ci95[1], 6)}
    return {
        "task": {"type": _TASK_TYPES[info.kind], "name": info.title},
        "dataset": {
            "type": info.name,
            "name": info.title,
            "config": cell.method,
            "split": "test",
            "revision": _revision(board, cell),
            "args": _protocol(board),
        },
        "metrics": [metric],
    }


def _hub_averages(board: Board, key: str) -> list[dict[str, Any]]:
    results = []
    for method in board.methods:
        rows = [row for row in board.rows if (row.model, row.method, row.scope) == (key, method, "suite")]
        if not rows:
            continue
        count = f"{len(rows[0].average.tasks)} of {rows[0].average.of} tasks"
        metrics = [
            {
                "type": f"{row.average.name}_average",
                "name": f"{AVERAGES[row.average.name].name} average, {count}",
                "value": round(row.average.score, 6),
            }
            for row in rows
        ]
        results.append(
            {
                "task": {"type": "audio-classification", "name": board.suite.title},
                "dataset": {
                    "type": board.suite.name,
                    "name": board.suite.title,
                    "config": method,
                    "args": _protocol(board),
                },
                "metrics": metrics,
            }
        )
    return results


def _protocol(board: Board) -> dict[str, Any]:
    return {"benchmark": "uwbench", "protocol": board.protocol, "protocol_version": board.protocol_version}


def _revision(board: Board, cell: Cell) -> str:
    return (board.infos[cell.task].data_sha256 or "")[:16]


def _yaml(value: object) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
