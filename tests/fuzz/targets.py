"""One function per reader: it gets bytes in place of its real file, and its result is used as a run would use it.

Every function takes a folder to write in, the world of real files (`world.py`), and the bytes. It returns nothing or
raises an error of this project; anything else is a crash. Accepted content is then hashed, printed, decoded or scored.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import numpy as np

from uniwhisper.data.rows import SUFFIX, open_rows, read_notes
from uniwhisper.data.shards import read_audio
from uwbench.audio.clip import AudioArray, AudioBytes, AudioFile, Clip, read_bytes
from uwbench.audio.decode import decode, decode_windows, read_header
from uwbench.audio.scan import scan_clips
from uwbench.bundles.archive import CONTENTS, read_archive
from uwbench.bundles.digests import changed_clips, changed_vectors
from uwbench.cache import clip_table
from uwbench.cache.parts import damage
from uwbench.cache.store import EncoderStore, open_encoders
from uwbench.cards.card import Card, Kind, Metric
from uwbench.cards.find import find_cards, load_card, load_protocol, load_suite
from uwbench.encoders.base import ModelSpec
from uwbench.encoders.resolve import open_encoder
from uwbench.errors import AudioError, InputError, StoreError
from uwbench.options import TaskSpec
from uwbench.report.detail import read_details
from uwbench.results import record as result
from uwbench.results.items import read_items
from uwbench.sources.layouts.midi import read_notes as read_midi
from uwbench.sources.resolve import open_card, open_task
from uwbench.sources.shards import Part, read_shards
from uwbench.sources.unpack import gunzip_tar, unpack_zip

_RATE = 16_000
_KINDS: tuple[Kind, ...] = get_args(Kind)


def _choice(data: bytes, count: int) -> int:
    """Return a number below `count` derived from the input, so that a replay makes the same choices."""
    return zlib.crc32(data) % count


def _usable(values: Any) -> None:
    """Fail if the values hold text that cannot be written, such as a lone surrogate."""
    json.dumps(values, ensure_ascii=False, default=str).encode()


# Cards, suites, protocols


def card(folder: Path, world: Path, data: bytes) -> None:
    """A task's card, and the search for its data."""
    path = folder / f"{_yaml_name(data)}.yaml"
    path.write_bytes(data)
    try:
        read = load_card(path)
        read.sha256()
        _usable(read.model_dump(mode="json"))
        home = folder / "data" / read.name
        home.mkdir(parents=True, exist_ok=True)
        (home / "train-0.tar").touch()
        if read.sources.generated not in ("vowels", "scenes", "instruments"):  # those take seconds
            open_card(read, folder / "data")
    finally:
        path.unlink()
        shutil.rmtree(folder / "data", ignore_errors=True)


def suite(folder: Path, world: Path, data: bytes) -> None:
    """A suite of tasks."""
    path = folder / f"{_yaml_name(data)}.yaml"
    path.write_bytes(data)
    try:
        _usable(load_suite(path).model_dump(mode="json"))
    finally:
        path.unlink()


def protocol(folder: Path, world: Path, data: bytes) -> None:
    """A protocol's settings."""
    path = folder / f"{_yaml_name(data)}.yaml"
    path.write_bytes(data)
    try:
        load_protocol(path).sha256()
    finally:
        path.unlink()


def _yaml_name(data: bytes) -> str:
    """Return the name that the content gives itself, if it is a valid one."""
    found = re.search(rb"^name: ([a-z0-9][a-z0-9_.-]{0,63})\s*$", data, re.M)
    return found.group(1).decode() if found else "x"


# Manifests


def manifest_csv(folder: Path, world: Path, data: bytes) -> None:
    """A manifest in CSV."""
    _manifest(folder / "m.csv", data)


def manifest_tsv(folder: Path, world: Path, data: bytes) -> None:
    """A manifest in TSV."""
    _manifest(folder / "m.tsv", data)


def manifest_csv_gz(folder: Path, world: Path, data: bytes) -> None:
    """A manifest in gzipped CSV: the input itself if it starts as gzip does, else the input compressed."""
    _manifest(folder / "m.csv.gz", data if data.startswith(b"\x1f\x8b") else gzip.compress(data, 1))


def manifest_json(folder: Path, world: Path, data: bytes) -> None:
    """A manifest in JSON: one list of rows."""
    _manifest(folder / "m.json", data)


def manifest_jsonl(folder: Path, world: Path, data: bytes) -> None:
    """A manifest in JSONL."""
    _manifest(folder / "m.jsonl", data)


def manifest_parquet(folder: Path, world: Path, data: bytes) -> None:
    """A manifest in Parquet."""
    _manifest(folder / "m.parquet", data)


def _manifest(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    _open(path, data)


def _open(path: Path, data: bytes, label: str | None = None) -> None:
    """Open own data as a kind of task that the input decides, and use its clips."""
    dataset = open_task(TaskSpec(path, kind=_KINDS[_choice(data, len(_KINDS))], label=label))
    dataset.card.sha256()
    _use_clips(dataset.clips)
    _usable(dataset.problems)
    for clip in dataset.clips:
        if not isinstance(clip.audio, AudioFile):
            read_bytes(clip.audio)


# Forms


def form_metadata(folder: Path, world: Path, data: bytes) -> None:
    """The table of an AudioFolder."""
    (folder / "train").mkdir(exist_ok=True)
    path = folder / "metadata.csv"
    path.write_bytes(data)
    _open(folder, data)


def form_nemo(folder: Path, world: Path, data: bytes) -> None:
    """A manifest of NeMo, in a folder for each split."""
    for split in ("train", "test"):
        (folder / f"{split}_manifest.json").write_bytes(data)
    _open(folder, data)


def form_cuts(folder: Path, world: Path, data: bytes) -> None:
    """A manifest of Lhotse."""
    path = folder / "cuts.jsonl"
    path.write_bytes(data)
    _open(path, data, "speaker")


def form_supervisions(folder: Path, world: Path, data: bytes) -> None:
    """Supervisions of Lhotse and their recordings: lines of both, one after the other."""
    lines = data.splitlines(keepends=True)
    (folder / "supervisions.jsonl").write_bytes(b"".join(lines[::2]))
    (folder / "recordings.jsonl").write_bytes(b"".join(lines[1::2]))
    _open(folder, data, "speaker")


def form_state(folder: Path, world: Path, data: bytes) -> None:
    """The record of a saved dataset's files, or of its splits."""
    home = folder / "saved"
    if not home.is_dir():
        shutil.copytree(world / "saved", home)
    for name in ("state.json", "dataset_info.json"):
        (home / name).write_bytes(data)
    if _choice(data, 3) == 0:
        (home / "dataset_dict.json").write_bytes(data)
    try:
        _open(home, data)
    finally:
        (home / "dataset_dict.json").unlink(missing_ok=True)


def form_arrow(folder: Path, world: Path, data: bytes) -> None:
    """The rows of a saved dataset."""
    home = folder / "saved"
    if not home.is_dir():
        shutil.copytree(world / "saved", home)
    (path,) = home.glob("*.arrow")
    path.unlink()  # so that a mapped file stays as it was
    path.write_bytes(data)
    _open(home, data)


def form_parquet(folder: Path, world: Path, data: bytes) -> None:
    """Parquet files with embedded audio, one per split."""
    for split in ("train", "test"):
        (folder / f"{split}.parquet").write_bytes(data)
    _open(folder, data)


def form_tar(folder: Path, world: Path, data: bytes) -> None:
    """A user's own WebDataset tar."""
    path = folder / "x.tar"
    path.write_bytes(data)
    _open(path, data)


def _use_clips(clips: Iterable[Clip]) -> None:
    for clip in clips:
        labels = clip_table.encode_labels(clip.labels)
        _usable([clip.id, str(clip.audio), labels, clip.split, clip.fold, clip.group])
        json.loads(labels, parse_constant=_refuse)


def _refuse(name: str) -> float:
    raise AssertionError(f"a label holds {name}")


# Archives


@cache
def _shard_cards() -> tuple[Card, ...]:
    """One card that reads shards for each kind of task."""
    found: dict[str, Card] = {}
    for one in find_cards()[0].values():
        if one.sources.shards is not None and one.sources.shards.field == "label":
            found.setdefault(one.kind, one)
        if one.sources.shards is not None:
            found.setdefault(f"{one.kind} {one.sources.shards.field == '.'}", one)
    return tuple(found.values())


def shard(folder: Path, world: Path, data: bytes) -> None:
    """A WebDataset tar: its index, its labels as each kind of task, and the audio's bytes."""
    path = folder / "x-train-0.tar"
    path.write_bytes(data)
    cards = _shard_cards()
    reading = read_shards(cards[_choice(data, len(cards))], (Part("train", None, path.name, (path,)),))
    _use_clips(reading.clips)
    for clip in reading.clips:
        read_bytes(clip.audio)


def training_rows(folder: Path, world: Path, data: bytes) -> None:
    """The companion's index of rows, and the audio it points to."""
    home = folder / "rows"
    if not home.is_dir():
        shutil.copytree(world / "rows", home)
    (path,) = home.glob(f"*{SUFFIX}")
    path.unlink()  # so that a mapped file stays as it was
    path.write_bytes(data)
    read_notes(path)
    rows = open_rows([home])
    for name in ("dataset", "split", "domain", "licence", "task", "slots"):
        codes, names = rows.codes(name)
        assert codes.max(initial=-1) < len(names)
    assert len(rows.clip_index) == len(rows.durations) == len(rows)
    rows.column("content").to_pylist()
    every = list(rows)
    _usable([[row.id, row.slots, row.answers, row.question, row.clip] for row in every])
    rows.require_shards()
    for row in every[:2]:
        read_audio(row)


def zip_file(folder: Path, world: Path, data: bytes) -> None:
    """A fetched archive, unpacked: nothing may end up outside its folder."""
    archive, out = folder / "x.zip", folder / "deep" / "out"
    archive.write_bytes(data)
    out.mkdir(parents=True)
    try:
        for path in unpack_zip(archive, out):
            assert path.resolve().is_relative_to(out.resolve())
            assert path.is_file()
    finally:
        assert sorted(path.name for path in folder.iterdir()) == ["deep", "x.zip"]
        assert [path.name for path in (folder / "deep").iterdir()] == ["out"]
        shutil.rmtree(folder / "deep")


def tar_gz(folder: Path, world: Path, data: bytes) -> None:
    """A compressed tar, decompressed beside itself."""
    archive = folder / "x.tar.gz"
    archive.write_bytes(data)
    try:
        assert gunzip_tar(archive) == folder / "x.tar"
    finally:
        (folder / "x.tar").unlink(missing_ok=True)
        assert [path.name for path in folder.iterdir()] == ["x.tar.gz"]


# Audio


def audio(folder: Path, world: Path, data: bytes) -> None:
    """Encoded audio from memory or from a file: the header, all of it, a segment, and windows."""
    which = _choice(data, 4)
    source: AudioBytes | AudioFile = AudioBytes(data, "x.wav")
    if which % 2:
        source = AudioFile(folder / "x.wav")
        source.path.write_bytes(data)
    header = read_header(source)
    assert header.rate > 0
    assert header.channels > 0
    if which < 2:
        _is_audio(decode(source, _RATE))
        return
    for window in decode_windows(source, _RATE, 1000, start_s=0.01, end_s=3600.0):
        _is_audio(window)


def _is_audio(samples: np.ndarray) -> None:
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) > 0
    assert np.isfinite(samples).all()


def midi(folder: Path, world: Path, data: bytes) -> None:
    """The notes of a piano performance."""
    path = folder / "x.midi"
    path.write_bytes(data)
    notes = read_midi(path)
    assert all(0 <= note.onset_s < note.offset_s for note in notes)


# The store


@cache
def _store(folder: Path, world: Path) -> tuple[Path, dict[str, list[bytes]], dict[Path, bytes]]:
    """Return a copy of the real cache, the keys of each task, and the content of its files."""
    root = folder / "cache"
    shutil.copytree(world / "cache", root)
    (store,) = open_encoders(root)[0]
    keys = {}
    for task in store.tasks():
        manifest = store.manifest(task)
        assert manifest is not None
        keys[task] = [key for part in manifest.parts for key in store.part_keys(task, part)]
    return root, keys, {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}


def _read_all(root: Path, keys: dict[str, list[bytes]], read: str) -> None:
    """Read what a probe reads of every task; raise the first error if nothing of a task can be read."""
    stores, problems = open_encoders(root)
    if problems:
        raise StoreError(problems[0], where=root)
    for store in stores:
        _usable([store.record.name, store.record.layers, store.record.slug])
        for task in sorted(set(store.tasks()) & (set(keys) if read == "all" else {"events"})):
            _read_task(store, task, keys[task], read)


def _read_task(store: EncoderStore, task: str, keys: list[bytes], read: str) -> None:
    manifest = store.manifest(task)
    assert manifest is not None
    for part in manifest.parts:
        for file, expected in part.files().items():
            damage(store.folder / task / file, expected)
        assert all(len(key) == 32 for key in store.part_keys(task, part))
    if read in ("all", "vectors"):
        counts, chunks = store.open_task(task, keys).counts()
        assert len(counts) == len(chunks) == len(keys)
        for pooling in store.record.poolings[: 2 if read == "all" else 1]:
            assert len(store.open_task(task, keys[::-1]).pooled(pooling)) == len(keys)
    if task == "events" and read in ("all", "frames"):
        frames = store.open_task(task, keys, needs_frames=True).frames()
        assert len(frames[:]) == len(frames)
        frames[np.arange(len(frames))]


def _in_store(folder: Path, world: Path, name: str, data: bytes, read: str = "all") -> None:
    root, keys, files = _store(folder, world)
    (path,) = (path for path in files if path.as_posix().endswith(f"/{name}"))
    try:
        path.unlink()
        path.write_bytes(data)
        _read_all(root, keys, read)
    finally:
        for file, content in files.items():
            if file == path or file.name == "manifest.json":
                file.unlink(missing_ok=True)
                file.write_bytes(content)


def encoder_json(folder: Path, world: Path, data: bytes) -> None:
    """The record of the encoder that made a store's vectors."""
    _in_store(folder, world, "encoder.json", data)


def store_manifest(folder: Path, world: Path, data: bytes) -> None:
    """The manifest of a task's parts."""
    _in_store(folder, world, "events/manifest.json", data)


def store_vectors(folder: Path, world: Path, data: bytes) -> None:
    """A part's pooled vectors; for half of the inputs the checksums in the manifest match."""
    _vouch(folder, world, "", data)
    _in_store(folder, world, "events/pooled-00000.arrow", data, "vectors")


def store_frames(folder: Path, world: Path, data: bytes) -> None:
    """A part's frames; for half of the inputs the checksums in the manifest match."""
    _vouch(folder, world, "frames_", data)
    _in_store(folder, world, "events/frames-00000.arrow", data, "frames")


def _vouch(folder: Path, world: Path, what: str, data: bytes) -> None:
    import xxhash

    root, _, _ = _store(folder, world)
    (path,) = root.glob("*/events/manifest.json")
    if _choice(data, 2):
        manifest = json.loads(path.read_bytes())
        (part,) = manifest["parts"]
        part[f"{what}bytes"], part[f"{what}xxh3_128"] = len(data), xxhash.xxh3_128(data).hexdigest()
        path.write_text(json.dumps(manifest))


def table_of_clips(folder: Path, world: Path, data: bytes) -> None:
    """A task's clip table in the cache."""
    path = clip_table.table_path(folder, "events-00000000")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    read = clip_table.read_table(folder, "events-00000000")
    read.sha256()
    read.card.sha256()
    _usable([read.source, read.unreadable, read.ids])
    assert all(len(key) == 32 for key in read.keys)
    assert sum(read.durations_s) >= 0


def scan_memory(folder: Path, world: Path, data: bytes) -> None:
    """The record of scanned files: no content of it may stop a run."""
    path = folder / "clips" / "x.scan.parquet"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    clip = next((world / "clips").glob("*.wav"))
    silence = AudioArray(np.zeros(10, np.float32), _RATE, "silence")
    found = scan_clips([Clip("a", AudioFile(clip), "x", "train"), Clip("b", silence, "x", "train")], path)
    assert not [one for one in found if isinstance(one, AudioError)]


# Checkpoints

_CONFIGS: tuple[dict[str, Any], ...] = (
    {"model_type": "whisper", "max_source_positions": 1500, "d_model": 8, "encoder_layers": 1, "num_mel_bins": 80},
    {"model_type": "wav2vec2", "hidden_size": 8, "num_hidden_layers": 1},
    {"model_type": "encodec"},
    {"model_type": "audio-spectrogram-transformer", "hidden_size": 8, "num_hidden_layers": 1},
    {"model_type": "wav2vec2-bert", "hidden_size": 8, "num_hidden_layers": 1},
    {"model_type": "parakeet_encoder", "hidden_size": 8, "num_hidden_layers": 1},
)

_entry_points = cache(entry_points)


def extractor(folder: Path, world: Path, data: bytes) -> None:
    """The settings of a checkpoint's feature extractor, in either file that may hold them; no weights are loaded."""
    home = folder / "checkpoint"
    home.mkdir(exist_ok=True)
    config = _CONFIGS[_choice(data, len(_CONFIGS))]
    (home / "config.json").write_text(json.dumps(config))
    for name in ("processor_config.json", "preprocessor_config.json"):  # the second is read if the first has none
        (home / name).write_bytes(data)
    header = json.dumps({"model.encoder.x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (home / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with patch("importlib.metadata.entry_points", _entry_points):  # looking for plug-ins takes 13 ms
        info = open_encoder(ModelSpec(str(home))).info
    assert info.sample_rate > 0
    assert info.hop_s > 0
    _usable([info.layers, info.hop_s, info.notes, info.identity])


# Results


def result_file(folder: Path, world: Path, data: bytes) -> None:
    """A result, and the path it would be written to."""
    path = folder / "x.json"
    path.write_bytes(data)
    read = result.read_result(path)
    where = result.result_path(folder, read)
    assert where.resolve().is_relative_to(folder.resolve())
    result.write_result(folder, read)
    result.read_result(where)
    if where != path:
        where.unlink()


def predictions(folder: Path, world: Path, data: bytes) -> None:
    """The predictions beside a result, and the items and errors that a leaderboard derives from them."""
    path = folder / "x.json"
    path.write_text("{}")
    result.predictions_path(path).write_bytes(data)
    for kind in _KINDS[: 1 + _choice(data, len(_KINDS))]:
        read_details(path, ["mlp"], kind)
    metrics: tuple[Metric, ...] = get_args(Metric)
    table = result.read_predictions(path)
    try:
        read_items(table, "mlp", metrics[_choice(data, len(metrics))])
    except InputError as error:  # it knows no file; its callers do
        raise InputError(error.what, where=path) from error


# Bundles


def bundle(folder: Path, world: Path, data: bytes) -> None:
    """A bundle: its members leave no folder, and those that changed are named."""
    path, inside = folder / "b.zip", folder / "inside"
    path.write_bytes(data)
    inside.mkdir()
    try:
        contents, changed = read_archive(path, inside)
        assert set(changed) <= set(contents.files)
        assert all(file.resolve().is_relative_to(inside.resolve()) for file in inside.rglob("*"))
    finally:
        shutil.rmtree(inside)


def bundle_contents(folder: Path, world: Path, data: bytes) -> None:
    """The list of a bundle's members."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(CONTENTS, data)
        archive.writestr("results/a/b/c/d.json", b"{}")
    bundle(folder, world, sink.getvalue())


def bundle_digests(folder: Path, world: Path, data: bytes) -> None:
    """The hashes of a bundle's clips."""
    path = folder / "digests.parquet"
    path.write_bytes(data)
    (source,) = (file for file in (world / "cache" / "clips").glob("digits-*.parquet") if ".scan." not in file.name)
    table = clip_table.read_table(world / "cache", source.stem)
    assert set(changed_clips(path, table)) <= set(table.ids)
    assert set(changed_vectors(path, table, "vectors", {0: bytes(32)})) <= set(table.ids)
