"""Read Hugging Face datasets with embedded audio, from local Parquet files or by streaming from the hub.

The encoded audio is copied as it is into one file beside the data (`.hub/audio.bin`), with one line per clip in
`.hub/rows.jsonl`. Clips are then read in place, so that a dataset never has to fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uwbench.audio.clip import AudioMember, Clip
from uwbench.base.hashing import digest
from uwbench.cards.card import Card, Hub
from uwbench.errors import DataError, FetchError, UsageError
from uwbench.sources.dataset import Reading, with_unique_ids
from uwbench.sources.embedded import HOME, class_names, laid_out, lay_out, source_of
from uwbench.sources.layouts import load_layout
from uwbench.sources.table import parse_labels

_DEPTH = 3  # levels at which Parquet files are searched for: <folder>/data/<split>/0000.parquet


@dataclass(frozen=True, slots=True)
class _Row:
    """A clip before its labels are parsed; `label` is the column's value, with class numbers replaced by names."""

    name: str
    split: str | None
    fold: str | None
    group: str | None
    label: Any
    audio: bytes


def find_parquet(card: Card, folder: Path) -> tuple[Path, ...] | None:
    """Return the Parquet files of a card's hub dataset in `folder`: () if it was streamed, None if there is nothing."""
    if card.sources.hub is None or not folder.is_dir():
        return None
    patterns = ("/".join(["*"] * depth + ["*.parquet"]) for depth in range(_DEPTH))
    files = sorted(path for pattern in patterns for path in folder.glob(pattern) if not _hidden(path, folder))
    if files:
        return tuple(files)
    return () if (folder / HOME / "rows.jsonl").is_file() else None


def read_hub(card: Card, folder: Path, files: tuple[Path, ...]) -> Reading:
    """Return the clips of local Parquet files, or of a streamed dataset; raise DataError if they cannot be read.

    The audio of Parquet files is copied out for reading in place on the first call, and again if they change.
    """
    hub = _hub(card)
    if files:
        stamps = [[path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
        source = digest([stamps, hub.model_dump(mode="json")])
        if source_of(folder / HOME) != source:
            try:
                lay_out(folder / HOME, source, _laid(_parquet_rows(card, folder, files)))
            except OSError as error:
                what = f"cannot copy the audio for reading in place ({error.strerror or error})"
                remedy = "move the Parquet files to a disk with free space that can be written"
                raise DataError(what, where=folder / HOME, remedy=remedy) from error
    return _read_rows(card, folder)


def fetch_hub(card: Card, folder: Path, *, progress: Callable[[int], None] | None = None) -> list[Path]:
    """Stream a card's hub dataset into `folder`; raise FetchError if that is not possible.

    `progress` is called with the number of clips so far. A dataset that was fetched before is not fetched again.
    """
    hub = _hub(card)
    source = digest([hub.id, hub.revision, hub.config, hub.model_dump(mode="json")])
    if source_of(folder / HOME) != source:
        folder.mkdir(parents=True, exist_ok=True)
        lay_out(folder / HOME, source, _laid(_hub_rows(card)), progress or (lambda _: None))
    return [folder / HOME / "audio.bin", folder / HOME / "rows.jsonl"]


def _hub(card: Card) -> Hub:
    if card.sources.hub is None:
        raise UsageError("names no Hugging Face dataset", where=card.name)
    return card.sources.hub


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _split_of_name(card: Card) -> dict[str, str]:
    """Return our split (train, valid, test) for each of the hub's split names."""
    splits = _hub(card).splits or card.splits
    if splits is None:
        return {}
    split_of = {splits.train: "train", splits.test: "test"}  # clips are streamed in this order
    return split_of | ({splits.valid: "valid"} if splits.valid is not None else {})


def _parquet_rows(card: Card, folder: Path, files: tuple[Path, ...]) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    hub = _hub(card)
    columns = [column for column in (hub.audio, hub.label, hub.group, hub.fold) if column is not None]
    for path in files:
        split = None if hub.fold is not None else _split_of_file(card, path.relative_to(folder))
        if split is None and hub.fold is None:
            continue
        try:
            with path.open("rb") as data, pq.ParquetFile(data) as file:
                names = file.schema_arrow.names
                missing = [column for column in columns if column not in names]
                if missing:
                    raise DataError(f"the column {missing[0]!r} is missing ({', '.join(names)})", where=path)
                classes = class_names(file.schema_arrow.metadata).get(hub.label, ())
                number = 0
                for batch in file.iter_batches(batch_size=64, columns=columns):
                    for record in batch.to_pylist():
                        yield _row(record, hub, split, classes, f"{path.stem}-{number:06d}", str(path))
                        number += 1
        except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
            raise DataError(f"cannot be read ({' '.join(str(error).split())})", where=path) from error


def _split_of_file(card: Card, path: Path) -> str | None:
    """Return the split in a Parquet file's name (`train-00000-of-00002.parquet`) or folder (`train/0000.parquet`)."""
    for name, split in _split_of_name(card).items():
        if path.stem == name or path.stem.startswith(f"{name}-") or name in path.parts[:-1]:
            return split
    return None


def _hub_rows(card: Card) -> Iterator[_Row]:
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    hub = _hub(card)
    remedy = "log in, or download its Parquet files into the task's folder by other means"
    for name, split in _split_of_name(card).items():
        try:
            stream = datasets.load_dataset(hub.id, hub.config, split=name, revision=hub.revision, streaming=True)
            if hub.audio not in (stream.column_names or ()):
                raise FetchError(f"the column {hub.audio!r} is missing ({stream.column_names})", where=hub.id)
            feature = (stream.features or {}).get(hub.label)
            classes = tuple(getattr(feature, "names", None) or ())
            for number, record in enumerate(stream.cast_column(hub.audio, datasets.Audio(decode=False))):
                clip_split = None if hub.fold is not None else split
                yield _row(record, hub, clip_split, classes, f"{name}-{number:06d}", hub.id)
        except (OSError, ValueError, HfHubHTTPError, DatasetsError) as error:
            raise FetchError(f"cannot be streamed ({error})", where=hub.id, remedy=remedy) from error
        if hub.fold is not None:
            return  # one split contains all folds


def _row(record: Any, hub: Hub, split: str | None, classes: tuple[str, ...], name: str, where: str) -> _Row:
    audio, label = record[hub.audio], record.get(hub.label)
    data = audio.get("bytes") if isinstance(audio, dict) else audio
    if not isinstance(data, bytes):
        raise DataError(f"{name}: the column {hub.audio!r} contains no encoded audio", where=where)
    if classes and isinstance(label, int):
        if not 0 <= label < len(classes):
            raise DataError(f"{name}: {label} is not a class number", where=where)
        label = classes[label]
    path = audio.get("path") if isinstance(audio, dict) else None
    fold = None if hub.fold is None else str(record[hub.fold])
    group = None if hub.group is None or record.get(hub.group) is None else str(record[hub.group])
    return _Row(str(path or name), split, fold, group, label, data)


def _laid(rows: Iterable[_Row]) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield each row's audio and the record that is kept of it."""
    for row in rows:
        record = {"name": row.name, "label": row.label, "split": row.split, "fold": row.fold, "group": row.group}
        yield row.audio, record


def _read_rows(card: Card, folder: Path) -> Reading:
    layout = load_layout(card.sources.layout) if card.sources.layout else None
    blob = folder / HOME / "audio.bin"
    if source_of(folder / HOME) is None:
        raise DataError("the fetched audio is incomplete", where=blob, remedy=f"run: uwbench data fetch {card.name}")
    clips = []
    for row in laid_out(folder / HOME):
        try:
            labels = parse_labels(row["label"], card.kind)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{row['name']}: the label {error}", where=folder) from error
        if layout is not None and isinstance(labels, str) and card.kind == "single-label":
            labels = layout.label_of(labels)
        audio = AudioMember(blob, row["offset"], row["size"], row["name"])
        if card.folds is not None and row["fold"] not in card.folds:
            raise DataError(f"{row['name']}: the fold {row['fold']!r} is not one of the card's", where=folder)
        clips.append(Clip(row["name"], audio, labels, row["split"], row["fold"], row["group"]))
    unique, repeated = with_unique_ids(clips)
    problems = [f"{len(repeated)} names occur more than once, first {repeated[0]!r}"] if repeated else []
    return Reading(unique, tuple(problems))
