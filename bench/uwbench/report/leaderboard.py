"""The leaderboard as a public object: a board with its tables, files and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwbench.base.atomic import write_atomically
from uwbench.options import method_of
from uwbench.report.board import Board
from uwbench.report.compare import Comparison, compare_models
from uwbench.report.csv_file import render_csv
from uwbench.report.curves import CurveRow, LayerRow, curve_rows, layer_rows
from uwbench.report.figures import write_figures
from uwbench.report.geometry import GeometryRow, geometry_rows
from uwbench.report.html import render_html
from uwbench.report.json_file import render_json
from uwbench.report.markdown import render_markdown
from uwbench.report.ranks import Certainty, MethodCorrelation, PairRow, RankEnvelope, certainty, rank_envelopes
from uwbench.report.robustness import CorruptedRow, corrupted_rows, noise_limits
from uwbench.report.sensitivity import Sensitivity, sensitivity
from uwbench.report.table import board_view, html_of

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Ranked models with their scores. `board` holds every number; the methods render it."""

    board: Board

    def to_frame(self) -> pd.DataFrame:
        """Return one row per score: model, task, method, metric, score, interval, clips, status and contamination."""
        import pandas as pd

        board = self.board
        rows = []
        for cell in board.cells:
            low, high = cell.score.ci95 or (None, None)
            rows.append(
                {
                    "model": board.label(cell.model),
                    "task": cell.task,
                    "method": cell.method,
                    "metric": cell.score.metric,
                    "score": cell.score.main_score,
                    "low": low,
                    "high": high,
                    "n": cell.n,
                    "status": cell.state,
                    "contamination": cell.contamination.flag,
                }
            )
        columns = ["model", "task", "method", "metric", "score", "low", "high", "n", "status", "contamination"]
        return pd.DataFrame(rows, columns=columns)

    def averages_frame(self) -> pd.DataFrame:
        """Return one row per average: model, method, scope, average, score, interval, number of tasks, rank and place.

        `scope` is `suite`, `shared` (the tasks that all models have) or `domain:NAME`; `tasks` counts the tasks in the
        average and `of` those in the scope. Averages that cannot be compared with the others have no rank. `rank_low`
        and `rank_high` are the true rank's 95 % interval (see `report.ties.stand`); `rank_low` is the place.
        """
        import pandas as pd

        rows = [
            {
                "model": self.board.label(row.model),
                "method": row.method,
                "scope": row.scope,
                "average": row.average.name,
                "score": row.average.score,
                "low": row.average.low,
                "high": row.average.high,
                "tasks": len(row.average.tasks),
                "of": row.average.of,
                "rank": row.rank,
                "place": None if row.standing is None else row.standing.place,
                "rank_low": None if row.standing is None else row.standing.place,
                "rank_high": None if row.standing is None else row.standing.last,
            }
            for row in self.board.rows
        ]
        ranks = ["rank", "place", "rank_low", "rank_high"]
        columns = ["model", "method", "scope", "average", "score", "low", "high", "tasks", "of", *ranks]
        return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(ranks, "Int64"))

    def pairs_frame(self) -> pd.DataFrame:
        """Return one row per pair of ranked models and method, and one under every method: see `report.ranks.PairRow`.

        `model` has the higher headline average, `difference` its lead with a 95 % interval; `p` is corrected by Holm.
        """
        return _frame(PairRow, self.certainty.pairs)

    def correlations_frame(self) -> pd.DataFrame:
        """Return one row per pair of methods: Kendall's tau-b of their ranks, with bounds that hold at 95 %."""
        return _frame(MethodCorrelation, self.certainty.correlations)

    def ranks_frame(self) -> pd.DataFrame:
        """Return one row per ranked model: its best and worst rank over all methods, and their intervals' outer ends.

        The ranks are those of the headline average; see `report.ranks.RankEnvelope`.
        """
        return _frame(RankEnvelope, rank_envelopes(self.board)).astype(dict.fromkeys(("low", "high"), "Int64"))

    def curves_frame(self) -> pd.DataFrame:
        """Return one row per point of a curve over labelled clips: clips per class and in all, score and interval.

        `shots` is missing at the last point, which has all labelled clips.
        """
        return _frame(CurveRow, curve_rows(self.board)).astype({"shots": "Int64"})

    def layers_frame(self) -> pd.DataFrame:
        """Return one row per layer that a method scored: its place from 0, its name and its score."""
        return _frame(LayerRow, layer_rows(self.board))

    def noise_limits_frame(self) -> pd.DataFrame:
        """Return one row per score whose loss to noise is known: the ratio in dB at which 5 points (0.05) are lost.

        `bound` is `at`, or `above` if they are lost at the least noise already, `below` if not even at the most.
        """
        import pandas as pd

        rows = [
            {"model": self.board.label(cell.model), "task": cell.task, "method": cell.method, **limit.model_dump()}
            for cell, limit in noise_limits(self.board)
        ]
        return pd.DataFrame(rows, columns=["model", "task", "method", "colour", "snr_db", "bound"])

    @property
    def certainty(self) -> Certainty:
        """How sure the ranks are: orders under each method and under every one, and how far the methods agree."""
        return certainty(self.board)

    def geometry_frame(self) -> pd.DataFrame:
        """Return one row per figure of geometry and method: their rank correlation over models and over layers.

        `tau` is the mean of Kendall's tau-b over `sets`: the models of a task, or the layers of a model on a task,
        three at least. `low` and `high` are the least and the greatest of the sets; see `report.geometry.GeometryRow`.
        """
        import pandas as pd

        rows = [asdict(row) for row in geometry_rows(self.board)]
        return pd.DataFrame(rows, columns=[field.name for field in fields(GeometryRow)])

    def robustness_frame(self) -> pd.DataFrame:
        """Return one row per score on corrupted test clips: the score, its drop with interval, the mean cosine.

        `drop` is the score on the same clips when clean minus this one, `low` and `high` bound its 95 % interval, and
        `cosine` is the mean over the clips of the cosine between their clean and corrupted vectors.
        """
        return _frame(CorruptedRow, corrupted_rows(self.board))

    def to_csv(self, path: str | Path | None = None) -> str | None:
        """Return one line per score, average and published number, or write them to `path`."""
        return _write(render_csv(self.board), path)

    def to_markdown(self, path: str | Path | None = None) -> str | None:
        """Return the tables as GitHub Markdown, or write them to `path`."""
        return _write(render_markdown(self.board), path)

    def to_json(self, path: str | Path | None = None) -> str | None:
        """Return `{"scores": [...], "averages": [...]}`, or write it to `path`."""
        return _write(render_json(self.board), path)

    def to_html(self, path: str | Path | None = None, *, audio: Mapping[str, str | Path] | None = None) -> str | None:
        """Return one self-contained page with every view, or write it to `path`.

        `audio` maps a task to the folder of its clips, so that the page can play the clips that are most often wrong.
        """
        folders = {task: Path(folder) for task, folder in (audio or {}).items()}
        return _write(render_html(self.board, audio=folders), path)

    def compare(self, first: str, second: str, *, method: str = "mlp") -> Comparison:
        """Compare two models, each given by label, name or fingerprint, on the tasks that both have."""
        return compare_models(self.board, first, second, method_of(method))

    def sensitivity(self, *, method: str = "mlp") -> Sensitivity | None:
        """Return the ranks under other averages, settings and task sets; None if fewer than two models are ranked."""
        return sensitivity(self.board, method_of(method))

    def write_figures(self, folder: str | Path, *, formats: Sequence[str] = ("svg", "png")) -> list[Path]:
        """Write the figures and a LaTeX table into `folder` and return their paths; formats are svg, png and pdf."""
        return write_figures(self.board, Path(folder), formats=formats)

    def __repr__(self) -> str:
        return repr(self.to_frame())

    def view(self, *, verbose: bool = False) -> RenderableType:
        """Return the tables for a terminal: the columns that fit into it, or with `verbose` all."""
        return board_view(self.board, verbose=verbose)

    def __rich__(self) -> RenderableType:
        return self.view()

    def _repr_html_(self) -> str:
        return html_of(self)


def _frame(kind: type, rows: Sequence[Any]) -> pd.DataFrame:
    """Return records of one kind as a DataFrame, with its columns even if there are none."""
    import pandas as pd

    return pd.DataFrame(map(asdict, rows), columns=[field.name for field in fields(kind)])


def _write(text: str, path: str | Path | None) -> str | None:
    """Write `text` to `path` and return nothing; without a path, return the text."""
    if path is None:
        return text
    write_atomically(Path(path), text.encode())
    return None
