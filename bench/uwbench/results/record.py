"""The result file: schema 1, strict JSON, written atomically. Documented field by field in results/README.md.

`results/<model slug>/<fp8>/<protocol>/<task>.json`, with the predictions beside it in `<task>.predictions.parquet`.
A task that failed leaves a file too. Do not change a field without raising SCHEMA, the reader and tests/golden.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from uwbench.base.atomic import write_atomically
from uwbench.base.hashing import SHORT
from uwbench.base.json_text import parse_json
from uwbench.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = 1

Method = Literal["mlp", "knn"]
Status = Literal["ok", "failed", "partial", "limited"]
Flag = Literal["clean", "unknown", "same source", "trained on train", "trained on test"]


# Names that a result's path is made of.
PlainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", max_length=200)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TaskInfo(_Record):
    name: PlainName
    version: int
    title: str
    domain: str
    kind: str
    metric: str
    weight: float
    chance: float
    card_sha256: str
    data_sha256: str | None  # of the clip table: ids, keys, labels, splits, groups; None where it could not be read
    n: int  # clips that are scored


class ModelInfo(_Record):
    name: str
    slug: PlainName
    family: str
    revision: str | None
    fingerprint: PlainName
    context: str | None  # full | trimmed, where the family has the choice
    layers: tuple[str, ...]
    pooling: str
    dtype: str
    dim: int
    sample_rate: int
    hop_s: float | None
    parameters: int | None
    training_data: tuple[dict[str, Any], ...] | None = None  # from an export that names it; None is unknown


class ProtocolInfo(_Record):
    name: PlainName
    version: int
    sha256: str


class Score(_Record):
    """One method's score of one task."""

    metric: str
    main_score: float = Field(ge=0, le=1)  # higher is better; the mean over seeds
    ci95: tuple[float, float] | None
    per_seed: tuple[float, ...]
    per_fold: dict[str, float]
    raw: dict[str, float]  # further figures: other k, standardised kNN, macro-F1, ...
    chosen: dict[str, Any]  # what validation chose, a fold or a list of folds: rate, decay, width, epoch, layer
    layers: dict[str, float] | None = None  # layer -> score, where the layers were swept


class Counts(_Record):
    clips: int
    missing: int  # clips left out because they could not be read (only with --allow-missing)
    chunked: int  # clips longer than the encoder's context, encoded in chunks


class Run(_Record):
    started: str  # UTC, ISO 8601
    seconds: dict[str, float]  # load, encode, probe
    peak_mb: float | None
    device: str
    versions: dict[str, str]
    git: dict[str, Any] | None  # {commit, dirty} of the checkout uwbench runs from
    argv: tuple[str, ...]
    source: str | None = None  # where the clips came from
    speed: dict[str, float] | None = None  # clips_per_s and audio_s_per_s of the extraction, where this run made one
    seed: int = 0


class Failure(_Record):
    type: str
    message: str


class Contamination(_Record):
    """What of the task the encoder was trained on, as far as is known, and why that is said."""

    flag: Flag
    because: tuple[str, ...] = ()


class Result(_Record):
    schema_: int = Field(default=SCHEMA, alias="schema")
    status: Status
    task: TaskInfo
    model: ModelInfo
    protocol: ProtocolInfo
    scores: dict[Method, Score]
    counts: Counts
    error: Failure | None
    run: Run
    predictions_sha256: str | None = None  # of the file beside it; None where there is none, and in older files
    contamination: Contamination | None = None  # as judged when the task was scored; None in older files and failures

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


def result_path(results: Path, result: Result) -> Path:
    """Return where a result lives under the folder `results`."""
    model = result.model
    return results / model.slug / model.fingerprint[:SHORT] / result.protocol.name / f"{result.task.name}.json"


def predictions_path(path: Path) -> Path:
    """Return where the predictions of the result at `path` live."""
    return path.with_name(f"{path.stem}.predictions.parquet")


def read_predictions(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the predictions beside the result at `path`; raise InputError where they cannot be read or are not those
    that the result was made from (a run that was cut between the two files leaves such a pair).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    beside = predictions_path(path)
    try:
        data = beside.read_bytes()
        owner = parse_json(path.read_bytes())
        expected = owner.get("predictions_sha256") if isinstance(owner, dict) else ""
        if expected is not None and hashlib.sha256(data).hexdigest() != expected:
            remedy = "probe the task again; the cache keeps its embeddings"
            raise InputError("are not the predictions of the result beside them", where=beside, remedy=remedy)
        table = pq.read_table(pa.BufferReader(data), columns=list(columns) if columns is not None else None)
        table.validate(full=True)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"cannot be read ({' '.join(str(error).split())})", where=beside) from error
    wanted = _prediction_columns()
    for name in wanted if columns is None else columns:
        if table.column_names.count(name) != 1 or table.schema.field(name).type != wanted[name]:
            raise InputError(f"the column {name!r} is not as predictions have it", where=beside)
    return table


def _prediction_columns() -> dict[str, pa.DataType]:
    import pyarrow as pa

    texts = dict.fromkeys(("method", "fold", "id", "group", "truth", "prediction"), pa.string())
    return {**texts, "seed": pa.int32(), "scores": pa.list_(pa.float32()), "counts": pa.list_(pa.float32())}


def write_result(results: Path, result: Result) -> Path:
    """Write `result` atomically and return its path."""
    path = result_path(results, result)
    data = result.model_dump(mode="json", by_alias=True)
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text.encode())
    return path


def read_result(path: Path) -> Result:
    """Read and validate a result file; raise InputError naming the file and the field."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"), constants=False)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path) from error
    except ValueError as error:
        raise InputError(f"is not strict JSON: {error}", where=path) from error
    version = data.get("schema") if isinstance(data, dict) else None
    if version != SCHEMA:
        raise InputError(f"is no result of schema {SCHEMA} (found {version!r})", where=path)
    try:
        return Result.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{field}: {first['msg']}", where=path) from error


def find_results(results: Path) -> tuple[list[tuple[Path, Result]], list[str]]:
    """Return the results under a folder, sorted by path, and an error line for each file that cannot be read."""
    found, problems = [], []
    for path in sorted(results.glob("*/*/*/*.json")):
        try:
            found.append((path, read_result(path)))
        except InputError as error:
            problems.append(str(error))
    return found, problems


def utc_now() -> str:
    """Return the present time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()
