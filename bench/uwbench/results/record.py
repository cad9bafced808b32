"""Result files: strict JSON, written atomically, one per model, protocol and task; results/README.md documents them.

A result is `results/<model slug>/<fp8>/<protocol>/<task>.json`, with its predictions beside it in
`<task>.predictions.parquet`; `free_path` says what becomes of a second task of that name. A task that failed has a file
too. A change of a field needs a new SCHEMA number, a reader for the old files and a file in tests/golden.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from uwbench.base.atomic import write_atomically
from uwbench.base.hashing import SHORT, digest
from uwbench.base.json_text import parse_json
from uwbench.base.schema import Closed, first_fault
from uwbench.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

# 3: without `settings`, `chance` and `curve` of scores; 2: without `taken_from` and `robustness`; 1: without `leaked`
# and `notes`, identical errors counted once
SCHEMA = 4

Status = Literal["ok", "failed", "partial", "limited"]
Flag = Literal["clean", "unknown", "same source", "trained on train", "trained on test"]

# A name that can be part of a path.
PlainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", max_length=200)]
Method = PlainName  # a name in `uwbench.methods`, or in those of another version


class TaskInfo(Closed):
    """The task as it was when it was scored."""

    name: PlainName
    version: int
    title: str
    domain: str
    kind: str
    metric: str
    weight: float
    chance: float
    card_sha256: str
    data_sha256: str | None  # of the clip table: ids, keys, labels, splits, groups; None if it could not be read
    n: int  # number of scored clips
    taken_from: tuple[str, ...] = ()  # own data: published datasets or collections that the recordings are from


class ModelInfo(Closed):
    """The encoder: its identity and measurements."""

    name: str
    slug: PlainName
    family: str
    revision: str | None
    fingerprint: PlainName
    context: str | None  # full or trimmed; None for families without the choice
    layers: tuple[str, ...]
    pooling: str
    dtype: str
    dim: int
    sample_rate: int
    hop_s: float | None
    parameters: int | None
    training_data: tuple[dict[str, Any], ...] | None = None  # as the weights list it; None if they do not


class ProtocolInfo(Closed):
    """The protocol that the task was scored by."""

    name: PlainName
    version: int
    sha256: str


class CurvePoint(Closed):
    """One point of a score's curve over the number of labelled clips per class."""

    shots: int | None  # labelled clips per class; None: all of them
    clips: float  # labelled clips in all, the mean over draws and folds
    score: float = Field(ge=0, le=1)
    ci95: tuple[float, float] | None


class Score(Closed):
    """One method's score on one task."""

    metric: str
    main_score: float = Field(ge=0, le=1)  # higher is better; the mean over seeds
    ci95: tuple[float, float] | None
    per_seed: tuple[float, ...]
    per_fold: dict[str, float]
    raw: dict[str, float]  # further figures: other k, standardised kNN, macro-F1, ...
    chosen: dict[str, Any]  # chosen on validation, per fold if there are folds: rate, decay, width, epoch, layer
    layers: dict[str, float] | None = None  # layer -> score, if all layers were probed
    settings: dict[str, Any] | None = None  # the method's, with their version; None: the protocol's hash covers them
    chance: float | None = Field(default=None, ge=0, lt=1)  # the score of guessing; None: the task's
    curve: tuple[CurvePoint, ...] | None = None  # by labelled clips per class, for methods that have one


class CorruptedScore(Closed):
    """One method's score on corrupted test clips, of probes that were trained on clean clips."""

    score: float = Field(ge=0, le=1)
    drop: float  # the score on the same clips when clean, minus this one
    ci95: tuple[float, float]  # of the drop; paired: the same clips and probe seeds are drawn for both


class Corrupted(Closed):
    """The tested clips under one corruption."""

    cosine: float  # mean over the clips of the cosine between the clean and the corrupted vector
    scores: dict[Method, CorruptedScore]


class NoiseLimit(Closed):
    """The signal-to-noise ratio at which 5 points of the score are lost, or a bound on it."""

    colour: str
    snr_db: float
    bound: Literal["at", "above", "below"]  # above, below: lost at the least noise tried, not at the most


class Robustness(Closed):
    """The score's robustness to corruptions of the tested clips."""

    version: int  # of the corruptions
    clips: int  # that were tested corrupted and clean
    corruptions: dict[str, Corrupted]  # by name: noise:10dB, reverb:small, ...
    five_points: dict[Method, NoiseLimit]  # empty without two levels of noise of one colour


class Counts(Closed):
    """Numbers of clips."""

    clips: int  # that have an embedding
    missing: int  # of the source that have none; a score without them needs --allow-missing
    chunked: int  # longer than the encoder's context, so encoded in chunks


class Run(Closed):
    """How and where the score was computed."""

    started: str  # UTC, ISO 8601
    seconds: dict[str, float]  # load, encode, probe
    peak_mb: float | None
    device: str
    versions: dict[str, str]
    git: dict[str, Any] | None  # {commit, dirty} of the checkout that uwbench ran from
    argv: tuple[str, ...]
    source: str | None = None  # origin of the clips
    speed: dict[str, float] | None = None  # clips_per_s and audio_s_per_s, if this run extracted
    seed: int = 0


class Failure(Closed):
    """The error that kept a task from being scored."""

    type: str
    message: str


class Contamination(Closed):
    """How much of the task the encoder was trained on, as far as is known, and the reasons."""

    flag: Flag
    because: tuple[str, ...] = ()


class Result(Closed):
    """The content of a result file."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: int = Field(default=SCHEMA, alias="schema")
    status: Status
    task: TaskInfo
    model: ModelInfo
    protocol: ProtocolInfo
    scores: dict[Method, Score]
    counts: Counts
    error: Failure | None
    run: Run
    predictions_sha256: str | None = None  # None without predictions, and in older files
    contamination: Contamination | None = None  # as judged when the task was scored; None in older files and failures
    leaked: int = 0  # tested clips with the audio of a training clip; 0 in files of schema 1, which did not look
    notes: tuple[str, ...] = ()  # sentences on the data, for the reader of the score
    robustness: Robustness | None = None  # None: no clip was corrupted


def result_path(results: Path, result: Result) -> Path:
    """Return the path of a result under the folder `results`."""
    model = result.model
    return results / model.slug / model.fingerprint[:SHORT] / result.protocol.name / f"{result.task.name}.json"


def free_path(results: Path, result: Result) -> Path:
    """Return the path to write a result to: its own, or `<task>@<data8>.json` if that holds a score on other data.

    Tasks that differ in clips, labels, kind or metric never replace each other's results, whatever they are called.
    """
    path = result_path(results, result)
    try:
        before = read_result(path)
    except InputError:
        return path  # nothing that can be read is there
    if before.status == "failed" or before.task.version != result.task.version or _scored(before) == _scored(result):
        return path
    return path.with_name(f"{path.stem}@{digest(_scored(result))[:SHORT]}.json")


def _scored(result: Result) -> list[str | None]:
    """Return what two results of one name must share to be of one task."""
    return [result.task.data_sha256, result.task.kind, result.task.metric]


def predictions_path(path: Path) -> Path:
    """Return the path of the predictions of the result at `path`."""
    return path.with_name(f"{path.stem}.predictions.parquet")


def read_predictions(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the predictions of the result at `path`, all columns or some.

    Raises InputError if they cannot be read, or belong to another result: a run that was killed between writing the two
    files leaves such a pair.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = predictions_path(path)
    try:
        data = file.read_bytes()
        owner = parse_json(path.read_bytes())
        expected = owner.get("predictions_sha256") if isinstance(owner, dict) else ""
        if expected is not None and hashlib.sha256(data).hexdigest() != expected:
            remedy = "probe the task again; the cache keeps its embeddings"
            raise InputError("does not belong to the result beside it", where=file, remedy=remedy)
        # Files are small: threads and pq.read_table's data sets would take several times as long as reading.
        source = pq.ParquetFile(pa.BufferReader(data))
        table = source.read(columns=list(columns) if columns is not None else None, use_threads=False)
        table.validate(full=True)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"cannot be read ({' '.join(str(error).split())})", where=file) from error
    types = _prediction_columns()
    for name in types if columns is None else columns:
        if table.column_names.count(name) != 1 or table.schema.field(name).type != types[name]:
            raise InputError(f"the column {name!r} is missing, double or not of type {types[name]}", where=file)
    return table


def _prediction_columns() -> dict[str, pa.DataType]:
    import pyarrow as pa

    texts = dict.fromkeys(("method", "fold", "id", "group", "truth", "prediction"), pa.string())
    return {**texts, "seed": pa.int32(), "scores": pa.list_(pa.float32()), "counts": pa.list_(pa.float32())}


def write_result(results: Path, result: Result) -> Path:
    """Write `result` atomically and return its path."""
    path = free_path(results, result)
    write_atomically(path, result_bytes(result))
    return path


def result_bytes(result: Result) -> bytes:
    """Return the content of a result's file."""
    data = result.model_dump(mode="json", by_alias=True)
    return (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def predictions_bytes(predictions: pa.Table) -> bytes:
    """Return the content of a file of predictions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(predictions, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def read_result(path: Path) -> Result:
    """Read and validate a result file; raise InputError naming the file and the field."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"), constants=False)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path) from error
    except ValueError as error:
        raise InputError(f"is not strict JSON: {error}", where=path) from error
    version = data.get("schema") if isinstance(data, dict) else None
    if version not in range(1, SCHEMA + 1):
        raise InputError(f"is not a result of schema 1 to {SCHEMA} (its schema is {version!r})", where=path)
    try:
        return Result.model_validate(data)
    except ValidationError as error:
        field, what = first_fault(error)
        raise InputError(f"{field}: {what}", where=path) from error


def find_results(results: Path) -> tuple[list[tuple[Path, Result]], list[str]]:
    """Return the results under a folder, sorted by path, and one error line per file that cannot be read."""
    readable, problems = [], []
    for path in sorted(results.glob("*/*/*/*.json")):
        try:
            readable.append((path, read_result(path)))
        except InputError as error:
            problems.append(str(error))
    return readable, problems


def utc_now() -> str:
    """Return the current time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()
