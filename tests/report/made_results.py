"""Made-up result files and predictions for tests of the report, written by `write_result`.

The numbers come from no encoder and no audio.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uwbench.cards.protocol import Bootstrap
from uwbench.methods import METHODS
from uwbench.results.averages import interval
from uwbench.results.bootstrap import seed_scores
from uwbench.results.curves import curve_intervals, points_of
from uwbench.results.items import read_items
from uwbench.results.record import (
    Corrupted,
    CorruptedScore,
    Counts,
    CurvePoint,
    Failure,
    ModelInfo,
    NoiseLimit,
    ProtocolInfo,
    Result,
    Robustness,
    Run,
    Score,
    Status,
    TaskInfo,
    predictions_path,
    write_result,
)

BOOTSTRAP = Bootstrap(resamples=400, level=0.95, seed=0)


@dataclass(frozen=True)
class MadeTask:
    name: str
    domain: str = "sound"
    kind: str = "single-label"
    metric: str = "accuracy"
    n: int = 120
    classes: tuple[str, ...] = ("bell", "cat", "rain", "siren")
    groups: int = 30
    folds: tuple[str, ...] = ()
    weight: float = 1.0
    version: int = 1
    data: str = "d0"


TASKS = (
    MadeTask("words", "speech", classes=("no", "one", "two", "yes"), weight=2000),
    MadeTask("speakers", "speech", classes=("anna", "bert", "carl"), weight=500, groups=120),
    MadeTask("scenes", "sound", folds=("1", "2", "3"), weight=400),
    MadeTask("events", "sound", kind="multi-label", metric="map", weight=1000),
    MadeTask("onsets", "sound", kind="frame-multi-label", metric="segment-f1-macro", weight=300),
    MadeTask("genres", "music", classes=("blues", "jazz", "metal", "pop", "rock"), weight=100),
)


def single_label(task: MadeTask, skill: float, seeds: Sequence[int], rng: np.random.Generator) -> dict[str, list[Any]]:
    """Return predictions that are right with probability `skill`; seeds and groups share the difficulty of an item."""
    truth = np.arange(task.n) % len(task.classes)
    hard = rng.normal(size=task.n) * 0.7 + rng.normal(size=task.groups)[np.arange(task.n) % task.groups] * 0.5
    rows: dict[str, list[Any]] = {"seed": [], "fold": [], "id": [], "group": [], "truth": [], "prediction": []}
    for seed in seeds:
        noise = hard + rng.normal(size=task.n) * 0.5
        right = noise > np.quantile(noise, 1 - skill)
        wrong = (truth + 1 + rng.integers(0, len(task.classes) - 1, task.n)) % len(task.classes)
        for item in range(task.n):
            rows["seed"].append(seed)
            rows["fold"].append(task.folds[item % len(task.folds)] if task.folds else None)
            rows["id"].append(f"clips/{item:04d}.wav")
            rows["group"].append(f"g{item % task.groups}")
            rows["truth"].append(json.dumps(task.classes[truth[item]]))
            rows["prediction"].append(json.dumps(task.classes[truth[item] if right[item] else wrong[item]]))
    rows["scores"] = rows["counts"] = [None] * len(rows["id"])
    return rows


def multi_label(task: MadeTask, skill: float, seeds: Sequence[int], rng: np.random.Generator) -> dict[str, list[Any]]:
    rows = single_label(task, skill, seeds, rng)
    relevant = rng.random((task.n, len(task.classes))) < 0.35
    scores, counts = [], []
    for index, item in enumerate(list(range(task.n)) * len(seeds)):
        values = relevant[item] * skill + rng.normal(size=len(task.classes)) * 0.5
        scores.append(values.astype(np.float32).tolist())
        predicted = values > 0.5 * skill
        hits = [
            (predicted & relevant[item]).sum(),
            (predicted & ~relevant[item]).sum(),
            (~predicted & relevant[item]).sum(),
        ]
        counts.append(hits)
        rows["truth"][index] = json.dumps([c for c, yes in zip(task.classes, relevant[item], strict=True) if yes])
        rows["prediction"][index] = json.dumps([c for c, yes in zip(task.classes, predicted, strict=True) if yes])
    rows["scores"] = scores
    return rows


def frames(task: MadeTask, skill: float, seeds: Sequence[int], rng: np.random.Generator) -> dict[str, list[Any]]:
    rows = single_label(task, skill, seeds, rng)
    width = len(task.classes)
    counts = []
    for _ in rows["id"]:
        present = rng.integers(0, 6, width)
        hits = rng.binomial(present, skill)
        counts.append(np.concatenate([hits, rng.integers(0, 2, width), present - hits]).astype(np.float32).tolist())
    rows["counts"] = counts
    rows["truth"] = rows["prediction"] = [json.dumps([])] * len(rows["id"])
    return rows


def predictions(task: MadeTask, skills: dict[str, float], rng: np.random.Generator) -> pa.Table:
    """Return the rows of a predictions file: five seeds for the MLP, one for kNN."""
    make = {"map": multi_label, "segment-f1-macro": frames}.get(task.metric, single_label)
    tables = []
    for method, skill in skills.items():
        rows = make(task, skill, range(5) if method == "mlp" else (0,), rng)
        columns = {
            "method": pa.array([method] * len(rows["id"])),
            "seed": pa.array(rows["seed"], pa.int32()),
            **{name: pa.array(rows[name], pa.string()) for name in ("fold", "id", "group", "truth", "prediction")},
            **{name: pa.array(rows[name], pa.list_(pa.float32())) for name in ("scores", "counts")},
        }
        tables.append(pa.table(columns))
    return pa.concat_tables(tables).replace_schema_metadata({"classes": json.dumps(list(task.classes))})


def curve_predictions(task: MadeTask, skill: float, rng: np.random.Generator) -> pa.Table:
    """Return rows of the method `few-shot`: per item the area, 1, and whether it is right at each point."""
    table = predictions(task, {"few-shot": skill}, rng)
    rows = pa.concat_tables(
        [table.set_column(1, "seed", pa.array([seed] * len(table), pa.int32())) for seed in range(3)]
    )
    chances = np.array([0.4, 0.7, 1.0]) * skill
    right = (rng.random((len(rows), 1)) < chances).astype(np.float32)
    counts = np.column_stack([right.mean(axis=1), np.ones(len(rows)), right]).astype(np.float32)
    return rows.set_column(
        rows.column_names.index("counts"), "counts", pa.array(counts.tolist(), pa.list_(pa.float32()))
    )


def curve_score(table: pa.Table, task: MadeTask) -> Score:
    """Return the score of `curve_predictions`, whose points have 1, 2 and all labelled clips per class."""
    metric = "few-shot-accuracy"
    items = read_items(table, "few-shot", metric)
    per_seed = seed_scores(items)
    points = zip(points_of(items), curve_intervals(items, BOOTSTRAP), (1, 2, None), (1, 2, 10), strict=True)
    return Score(
        metric=metric,
        main_score=float(per_seed.mean()),
        ci95=interval(table, "few-shot", metric, BOOTSTRAP),
        per_seed=tuple(map(float, per_seed)),
        per_fold={},
        raw={},
        chosen={},
        settings={"version": 1},
        curve=tuple(
            CurvePoint(shots=shots, clips=clips * len(task.classes), score=float(seed_scores(point).mean()), ci95=ci95)
            for point, ci95, shots, clips in points
        ),
    )


def robustness(scores: dict[str, Score]) -> Robustness:
    """Return made-up losses to two levels of noise, of all methods whose probes are tested on corrupted clips."""
    corruptions = {}
    for name, drop in (("noise:10dB", 0.03), ("noise:0dB", 0.12)):
        of_methods = {
            method: CorruptedScore(score=max(0.0, score.main_score - drop), drop=drop, ci95=(drop - 0.02, drop + 0.02))
            for method, score in scores.items()
            if METHODS[method].corruptible
        }
        corruptions[name] = Corrupted(cosine=1 - drop, scores=of_methods)
    limit = NoiseLimit(colour="white", snr_db=7.8, bound="at")
    return Robustness(version=1, clips=100, corruptions=corruptions, five_points=dict.fromkeys(of_methods, limit))


def make_result(
    results: Path,
    model: str,
    task: MadeTask,
    skill: float,
    *,
    status: Status = "ok",
    seed: int = 0,
    protocol: tuple[str, int] = ("uwbench-1", 1),
    fingerprint: str | None = None,
    parameters: int = 8_000_000,
    labels: str | None = None,
    error: str = "the audio cannot be read",
    one_neighbour: float = 0.5,
    training_data: tuple[dict[str, Any], ...] | None = None,
    notes: tuple[str, ...] = (),
    context: str | None = None,
    layers: int = 3,
    dtype: str = "fp32",
    family: str = "made-up",
    further: bool = False,
) -> Path:
    """Write one made-up result with its predictions and return its path.

    With `further`, a task of single labels also has a curve over labelled clips, and scores on corrupted clips.
    """
    rng = np.random.default_rng([seed, *task.name.encode(), *model.encode()])
    table = predictions(task, {"mlp": skill, "knn": max(0.05, skill - 0.12)}, rng)
    scores = {}
    for method in ("mlp", "knn"):
        per_seed = seed_scores(read_items(table, method, task.metric))
        scores[method] = Score(
            metric=task.metric,
            main_score=float(per_seed.mean()),
            ci95=interval(table, method, task.metric, BOOTSTRAP),
            per_seed=tuple(map(float, per_seed)),
            per_fold=dict.fromkeys(task.folds, float(per_seed.mean())),
            raw={"k=1": one_neighbour, "standardised k=20": 0.4} if method == "knn" else {},
            chosen={"rate": 1e-3, "width": 512, "epoch": 12} if method == "mlp" else {"k": 10},
            layers={"1": skill - 0.2, "2": skill - 0.02, "3": skill - 0.1} if method == "mlp" else None,
        )
    if further and task.kind == "single-label":
        table = pa.concat_tables([table, curve_predictions(task, skill, rng)])
        scores["few-shot"] = curve_score(table, task)
    slug = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in model) or "model"
    result = Result(
        status=status,
        task=TaskInfo(
            name=task.name,
            version=task.version,
            title=labels or task.name.title(),
            domain=task.domain,
            kind=task.kind,
            metric=task.metric,
            weight=task.weight,
            chance=0.0 if task.metric != "accuracy" else 1 / len(task.classes),
            card_sha256="c" * 64,
            data_sha256=(task.data * 32)[:64],
            n=task.n,
        ),
        model=ModelInfo(
            name=model,
            slug=slug,
            family=family,
            revision=None,
            fingerprint=fingerprint or (slug.encode().hex() * 64)[:64],
            context=context,
            layers=tuple(map(str, range(1, layers + 1))),
            pooling="mean",
            dtype=dtype,
            dim=384,
            sample_rate=16000,
            hop_s=0.02,
            parameters=parameters,
            training_data=training_data,
        ),
        protocol=ProtocolInfo(name=protocol[0], version=protocol[1], sha256="p" * 64),
        scores={} if status == "failed" else scores,
        counts=Counts(clips=task.n, missing=0, chunked=0),
        error=Failure(type="AudioError", message=error) if status == "failed" else None,
        run=Run(
            started="2026-01-01T00:00:00+00:00",
            seconds={"load": 1.0, "encode": 20.0, "probe": 4.5},
            peak_mb=900.0,
            device="cpu",
            versions={"uwbench": "0.1.0"},
            git=None,
            argv=("uwbench", "run"),
            speed={"clips_per_s": 12.0 + parameters / 1e6, "audio_s_per_s": 60.0},
        ),
        notes=notes,
        robustness=robustness(scores) if further else None,
    )
    path = write_result(results, result)
    pq.write_table(table, predictions_path(path))
    return path


def make_board_results(
    results: Path, models: dict[str, float], tasks: Sequence[MadeTask] = TASKS, *, further: bool = False
) -> None:
    """Write a full set of made-up results: every model, with its skill, on every task."""
    for index, (model, skill) in enumerate(models.items()):
        for task in tasks:
            make_result(results, model, task, skill, parameters=(index + 1) * 9_000_000, further=further)
