"""Score one task: read its vectors from the cache, probe them, add intervals and provenance, write the result."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uwbench.audio.corruption import Corruption
from uwbench.base.atomic import write_atomically
from uwbench.cache.clip_notes import notes_on
from uwbench.cache.clip_table import ClipTable
from uwbench.cache.records import EncoderRecord
from uwbench.cache.store import EncoderStore, open_encoders
from uwbench.cache.task_vectors import TaskVectors
from uwbench.cards.protocol import Protocol
from uwbench.encoders.base import IMPORTED, JOINT
from uwbench.errors import InputError, ProbeError, StoreError, UwbenchError
from uwbench.methods import METHODS, in_order
from uwbench.probes.corrupted import read_corrupted, robustness_of, with_earlier
from uwbench.probes.joint import JointSpace
from uwbench.results.contamination import judge
from uwbench.results.provenance import git_state, peak_memory_mb, versions
from uwbench.results.record import (
    Counts,
    CurvePoint,
    Failure,
    Method,
    ModelInfo,
    ProtocolInfo,
    Result,
    Run,
    Score,
    TaskInfo,
    free_path,
    predictions_bytes,
    predictions_path,
    read_predictions,
    read_result,
    utc_now,
    write_result,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from uwbench.options import ProbeOptions
    from uwbench.probes.data import TaskData


def probe_task(
    store: EncoderStore,
    table: ClipTable,
    protocol: Protocol,
    results: Path,
    *,
    methods: Sequence[Method],
    device: str,
    options: ProbeOptions,
    corruptions: Sequence[Corruption] = (),
    seconds: Mapping[str, float] | None = None,
    speed: dict[str, float] | None = None,
    unread: Sequence[str] = (),
) -> tuple[Path, Result]:
    """Score one task under one encoder by `protocol`; write the result and return its path with it.

    `device` is one that `pick_device` returned. `seconds` and `speed` are the extraction's, for the record. Every clip
    of the source without an embedding is missing; `unread` says why some of them are. More than `options.allow_missing`
    is a ProbeError: a score without them would be a silently different number. The tested clips must be in the cache
    under each of the `corruptions`.
    """
    from uwbench.probes.run import run_probes

    started, clock = utc_now(), time.perf_counter()
    present, vectors, lost = _present(store, table)
    missing, notes = len(table.unreadable) + len(lost), notes_on(present, store.root)
    first = next(iter([*table.unreadable, *unread, *lost]), None)
    if missing > options.allow_missing:
        what = f"{missing} clips have no embedding, first: {first}"
        remedy = f"repair them and extract again, or score without them with --allow-missing {missing}"
        raise ProbeError(what, where=table.card.name, remedy=remedy)
    data, chunked = _read(store, present, vectors, protocol, text_encoder=options.text_encoder, device=device)
    data = replace(data, corrupted=read_corrupted(store, present, corruptions, protocol.pooling))
    if any(METHODS[method].segments for method in methods):
        segmented = find_segments(store, present)
        data = replace(data, segments=segmented.segments(), segment_layers=segmented.record.layers)
    if any(METHODS[name].needs_texts for name in methods):
        data = replace(data, joint=JointSpace(store, table.card.name, present.keys))
    outcome = run_probes(data, protocol, methods=methods, seed=options.seed, device=device)
    scores = _with_intervals(outcome.scores, outcome.predictions, protocol)
    result = Result(
        status="limited" if table.limited else "partial" if missing else "ok",
        task=_task_info(present),
        model=_model_info(store.record, protocol),
        protocol=ProtocolInfo(name=protocol.name, version=protocol.version, sha256=protocol.sha256()),
        scores=scores,
        counts=Counts(clips=len(present.ids), missing=missing, chunked=chunked),
        error=None,
        run=_run(started, {**(seconds or {}), "probe": time.perf_counter() - clock}, table, device, options, speed),
        leaked=notes.leaked,
        notes=(*_missing_note(missing, table, first), *notes.sentences, *_frames_note(table, options)),
        robustness=robustness_of(outcome, data, protocol),
    )
    path = free_path(results, result)
    card, record = table.card, store.record
    folds = card.folds is not None
    flag = judge(card.name, record.name, record.training_data, folds=folds, taken_from=card.taken_from)
    result = result.model_copy(update={"contamination": flag})
    result, predictions = _keep_earlier(path, result, outcome.predictions)
    content = predictions_bytes(predictions)
    result = result.model_copy(update={"predictions_sha256": hashlib.sha256(content).hexdigest()})
    # If the run is cut off between the two, readers see that the result's checksum does not fit the predictions.
    write_atomically(predictions_path(path), content)
    return write_result(results, result), result


def write_failure(
    store: EncoderStore,
    table: ClipTable,
    protocol: Protocol,
    results: Path,
    error: UwbenchError,
    *,
    device: str,
    options: ProbeOptions,
) -> tuple[Path, Result]:
    """Write the result of a task that failed, so that the failure is on record; return its path with it."""
    try:
        lost = len(_open(store, table).missing)
    except (UwbenchError, OSError):  # a damaged cache: nothing there can be used
        lost = len(table.ids)
    missing = len(table.unreadable) + lost
    result = Result(
        status="failed",
        task=_task_info(table),
        model=_model_info(store.record, protocol),
        protocol=ProtocolInfo(name=protocol.name, version=protocol.version, sha256=protocol.sha256()),
        scores={},
        counts=Counts(clips=len(table.ids) - lost, missing=missing, chunked=0),
        error=Failure(type=type(error).__name__, message=str(error)),
        run=_run(utc_now(), {}, table, device, options, None),
        notes=(*_missing_note(missing, table), *notes_on(table, store.root).sentences),
    )
    path = free_path(results, result)
    write_result(results, result)  # first: if the disk is full, the score of an earlier run stays whole
    predictions_path(path).unlink(missing_ok=True)
    return path, result


def find_segments(store: EncoderStore, table: ClipTable) -> TaskVectors:
    """Return where the segments of a task's clips lie, of the store's layers or else of its last layer.

    Raises StoreError, with the command to run, if the cache lacks them.
    """
    task, record = table.card.name, store.record
    vectors = store.open_task(task, table.keys, needs_segments=True)
    if len(vectors.missing) and len(record.layers) > 1:
        for other in open_encoders(store.root)[0]:
            if other.record.model_fingerprint == record.model_fingerprint and len(other.record.layers) == 1:
                of_last = other.open_task(task, table.keys, needs_segments=True)
                vectors = of_last if not len(of_last.missing) else vectors
    vectors.require_segments()
    return vectors


def lacks_segments(store: EncoderStore, table: ClipTable) -> str | None:
    """Return why the clips of a task that have an embedding have no segments, or None if they have."""
    if store.record.family == IMPORTED:
        return f"{store.record.name} has one ready vector per clip, and no segments"
    try:
        find_segments(store, _present(store, table)[0])
    except StoreError as error:
        return str(error)
    return None


def load_task_data(
    store: EncoderStore,
    table: ClipTable,
    pooling: str,
    *,
    text_encoder: str | None = None,
    device: str = "cpu",
    vectors: TaskVectors | None = None,
) -> TaskData:
    """Read what the probes need of a task: pooled vectors always, frames or caption vectors if its kind needs them.

    Caption vectors need `text_encoder`, which runs on `device` for captions that the cache does not hold. `vectors` are
    those of the table's clips if they were opened already.
    """
    from uwbench.probes.data import Frames, TaskData

    vectors = vectors or _open(store, table)
    frames = None
    if table.needs_frames:
        values = vectors.frames()
        frames = Frames(values, values.offsets, store.record.hop_s)
    text = None
    if table.card.kind == "retrieval" and text_encoder is not None:
        from uwbench.probes.sentences import embed_captions

        captions = [tuple(map(str, labels)) for labels in table.labels]
        text = embed_captions(captions, text_encoder, store.root, device=device)
    pooled, layers = vectors.pooled(pooling), store.record.layers
    if JOINT in layers[:-1]:  # no step in depth
        steps = [at for at, name in enumerate(layers) if name != JOINT]
        pooled, layers = pooled[:, steps], tuple(layers[at] for at in steps)
    return TaskData(
        card=table.card,
        ids=table.ids,
        labels=table.labels,
        splits=_all_of(table.splits),
        folds=_all_of(table.folds),
        groups=table.groups,
        durations_s=np.asarray(table.durations_s),
        layers=layers,
        pooled=pooled,
        frames=frames,
        text=text,
    )


def _open(store: EncoderStore, table: ClipTable) -> TaskVectors:
    return store.open_task(table.card.name, table.keys, needs_frames=table.needs_frames)


def _all_of(values: Sequence[str | None]) -> list[str] | None:
    """Return the values, or None if one is missing."""
    present = [value for value in values if value is not None]
    return present if len(present) == len(values) else None


def _present(store: EncoderStore, table: ClipTable) -> tuple[ClipTable, TaskVectors, list[str]]:
    """Return the table and vectors of the clips that have an embedding, and the ids of those that have none."""
    vectors = _open(store, table)
    missing = vectors.missing.tolist()
    if not missing:
        return table, vectors, []
    present = np.flatnonzero(vectors.rows >= 0).tolist()
    return table.keep(present), vectors.keep(present), [table.ids[row] for row in missing]


def _read(
    store: EncoderStore,
    table: ClipTable,
    vectors: TaskVectors,
    protocol: Protocol,
    *,
    text_encoder: str | None,
    device: str,
) -> tuple[TaskData, int]:
    """Return the data to probe, and how many clips were encoded in more than one chunk."""
    if not table.ids:
        raise ProbeError("no clip has an embedding", where=table.card.name, remedy="run uwbench extract")
    data = load_task_data(store, table, protocol.pooling, text_encoder=text_encoder, device=device, vectors=vectors)
    _, n_chunks = vectors.counts()
    return data, int((n_chunks > 1).sum())


def _with_intervals(scores: Mapping[Method, Score], predictions: pa.Table, protocol: Protocol) -> dict[Method, Score]:
    from uwbench.results.averages import interval
    from uwbench.results.curves import curve_intervals
    from uwbench.results.items import read_items

    def bounds(method: Method, score: Score) -> tuple[float, float]:
        of_folds = protocol.metric_of_folds(method)
        return score.ci95 or interval(predictions, method, score.metric, protocol.bootstrap, of_folds=of_folds)

    def curve(method: Method, score: Score) -> tuple[CurvePoint, ...] | None:
        if score.curve is None:
            return None
        intervals = curve_intervals(read_items(predictions, method, score.metric), protocol.bootstrap)
        return tuple(
            point.model_copy(update={"ci95": ci95}) for point, ci95 in zip(score.curve, intervals, strict=True)
        )

    return {
        method: score.model_copy(update={"ci95": bounds(method, score), "curve": curve(method, score)})
        for method, score in scores.items()
    }


def _task_info(table: ClipTable) -> TaskInfo:
    card = table.card
    return TaskInfo(
        name=card.name,
        version=card.version,
        title=card.title,
        domain=card.domain,
        kind=card.kind,
        metric=card.metric,
        weight=card.weight,
        chance=card.chance,
        card_sha256=card.sha256(),
        data_sha256=table.sha256(),
        n=len(table.tested),
        taken_from=card.taken_from,
    )


def _missing_note(missing: int, table: ClipTable, first: str | None = None) -> list[str]:
    text = f"{missing} of {len(table.ids) + len(table.unreadable)} clips are missing"
    return [text if first is None else f"{text}, first: {first}"] if missing else []


def _frames_note(table: ClipTable, options: ProbeOptions) -> list[str]:
    return ["scored by frames: not tested on corrupted clips"] if options.corruptions and table.needs_frames else []


def _model_info(record: EncoderRecord, protocol: Protocol) -> ModelInfo:
    return ModelInfo(
        name=record.name,
        slug=record.slug,
        family=record.family,
        revision=record.revision,
        fingerprint=record.model_fingerprint,
        context=record.context,
        layers=record.layers,
        pooling=protocol.pooling,
        dtype=record.dtype,
        dim=record.dim,
        sample_rate=record.sample_rate,
        hop_s=record.hop_s,
        parameters=record.parameters,
        training_data=record.training_data,
    )


def _keep_earlier(path: Path, result: Result, predictions: pa.Table) -> tuple[Result, pa.Table]:
    """Add what only an earlier run had, if all else about those numbers is the same: methods, curves, corruptions."""
    import pyarrow as pa

    if not (path.is_file() and predictions_path(path).is_file()):
        return result, predictions
    try:
        before = read_result(path)
        rows = read_predictions(path)
    except InputError:
        return result, predictions
    same = all(getattr(before, part) == getattr(result, part) for part in ("status", "task", "protocol", "counts"))
    same &= before.model.model_copy(update={"layers": result.model.layers}) == result.model
    if not (same and before.run.seed == result.run.seed and rows.schema.equals(predictions.schema)):
        return result, predictions
    result = result.model_copy(update={"robustness": with_earlier(result, before)})
    others = [method for method in before.scores if method not in result.scores]
    curves = {
        method: score
        for method, score in before.scores.items()
        if method in result.scores and score.layers and _same_but_curve(score, result.scores[method])
    }
    joint = JOINT in before.model.layers and any(METHODS[name].needs_texts for name in in_order(others))
    layers = before.model.layers if curves or joint else result.model.layers
    if others:
        their_rows = rows.filter(pa.array([method in others for method in rows["method"].to_pylist()], pa.bool_()))
        predictions = pa.concat_tables([predictions, their_rows])
    scores = {
        **{method: score for method, score in before.scores.items() if method in others},
        **result.scores,
        **curves,
    }
    model = result.model.model_copy(update={"layers": layers})
    return result.model_copy(update={"scores": scores, "model": model}), predictions


def _same_but_curve(before: Score, after: Score) -> bool:
    """Return True if a score with a curve over layers is otherwise the one that has none."""
    fields = ("metric", "main_score", "per_seed", "per_fold", "ci95")
    return after.layers is None and all(getattr(before, field) == getattr(after, field) for field in fields)


def _run(
    started: str,
    seconds: Mapping[str, float],
    table: ClipTable,
    device: str,
    options: ProbeOptions,
    speed: dict[str, float] | None,
) -> Run:
    return Run(
        started=started,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        peak_mb=peak_memory_mb(),
        device=device,
        versions=versions(),
        git=git_state(),
        argv=options.argv,
        source=table.source,
        speed=None if speed is None else {name: round(value, 3) for name, value in speed.items()},
        seed=options.seed,
    )
