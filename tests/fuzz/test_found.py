"""Inputs found by fuzzing, one test per fault: each once ended in a traceback or killed the process."""

from __future__ import annotations

import io
import json
import struct
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuzz import targets
from uniwhisper.data.rows import SUFFIX, open_rows, read_notes
from uwbench.audio.clip import AudioBytes, AudioFile, AudioMember, Clip, read_bytes
from uwbench.audio.decode import decode
from uwbench.audio.scan import scan_clips
from uwbench.cards.find import load_card
from uwbench.encoders.base import ModelSpec
from uwbench.encoders.resolve import open_encoder
from uwbench.errors import AudioError, DataError, FetchError, InputError, StoreError, UwbenchError
from uwbench.options import TaskSpec
from uwbench.results.items import read_items
from uwbench.results.record import predictions_path, read_predictions, read_result
from uwbench.sources.layouts.midi import read_notes as read_midi
from uwbench.sources.resolve import open_card, open_task
from uwbench.sources.shards import read_index
from uwbench.sources.unpack import unpack_zip

Change = Callable[[Any], Any]
CARD = "name: x\nversion: 1\ntitle: X\ndomain: sound\nkind: single-label\nmetric: accuracy\nchance: 0.5\n"


def refuse(error: type[UwbenchError], where: Path | str, work: Callable[[], object], match: str | None = None) -> None:
    """Assert that `work` raises this error of ours, which names the file."""
    with pytest.raises(error, match=match) as caught:
        work()
    assert caught.value.where is not None
    assert str(caught.value.where).startswith(str(where))


# Cards


@pytest.mark.parametrize(
    "pattern", ["{celit}.tar", "{split.__class__}*.tar", "../{split}.tar", "a/{split}", "**{split}"]
)
def test_a_pattern_of_shards_that_is_no_file_name(pattern: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    shards = json.dumps({"zenodo": 1, "pattern": pattern, "folder": "x", "field": "label"})
    path.write_text(f"{CARD}splits: {{train: a, test: b}}\nsources: {{shards: {shards}}}\n")
    refuse(InputError, path, lambda: load_card(path), "pattern")


@pytest.mark.parametrize("source", ["generated: iinptruments", "layout: esc70"])
def test_a_card_that_names_a_source_that_there_is_not(source: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"{CARD}splits: {{train: a, test: b}}\nsources: {{{source}}}\n")
    (tmp_path / "x").mkdir()
    refuse(InputError, "x", lambda: open_card(load_card(path), tmp_path), "did you mean")


def test_a_weight_that_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"{CARD}splits: {{train: a, test: b}}\nweight: .inf\n")
    refuse(InputError, path, lambda: load_card(path), "weight")


# Manifests


@pytest.mark.parametrize(
    ("field", "value"), [("path", "\ud800.wav"), ("label", "\ud800"), ("label", "[" * 3000), ("group", "\udfff")]
)
def test_a_text_that_is_none_or_nested_too_deeply(field: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    row = {"path": "a.wav", "label": "a", "split": "train", field: value}
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "split": "test"}))
    refuse(InputError, path, lambda: open_task(TaskSpec(path, kind="multi-label")))


def test_a_date_that_no_calendar_has(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    dates = pa.array([2**31 - 2], pa.int32()).view(pa.date32())
    pq.write_table(pa.table({"path": ["a.wav"], "label": dates, "split": ["train"]}), path)
    refuse(InputError, path, lambda: open_task(str(path)), "Parquet")


# Archives


def _tar(path: Path, name: str, **headers: str) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        member.pax_headers = headers
        tar.addfile(member)
        tar.addfile(tarfile.TarInfo("b.wav"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("GNU.sparse.size", "x"), ("GNU.sparse.map", "a"), ("size", "-1024"), ("size", "-512"), ("size", "9" * 30)],
)
def test_a_member_whose_size_is_none(key: str, value: str, tmp_path: Path) -> None:
    _tar(tmp_path / "x.tar", "a.wav", **{key: value})
    refuse(DataError, tmp_path / "x.tar", lambda: read_index(tmp_path / "x.tar"))


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("n\xe4me.wav"))
    refuse(DataError, tmp_path / "x.tar", lambda: read_index(tmp_path / "x.tar"), "UTF-8")


def test_a_long_name_of_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    member = tarfile.TarInfo("@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 7 << 30
    path.write_bytes(member.tobuf() + bytes(2048))
    tracemalloc.start()
    try:
        refuse(DataError, path, lambda: read_index(path))
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_a_label_that_holds_half_a_pair(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a.json")
        member.size = 8
        tar.addfile(member, io.BytesIO(b'"\\ud800"'))
    refuse(DataError, path, lambda: read_index(path), "surrogate")


def test_a_member_beyond_the_archive_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(100))
    for offset, size in ((0, 1 << 62), (-1, 5), (200, 5), (10, -1)):
        refuse(AudioError, path, lambda o=offset, s=size: read_bytes(AudioMember(path, o, s, "a")), "ends after")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_packing_that_no_dataset_uses(method: int, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("a.wav", b"audio")
    refuse(FetchError, path, lambda: unpack_zip(path, tmp_path), "deflate")


@pytest.mark.parametrize("names", [["a", "a/b"], ["x" * 300], ["a/B/c", "A/b"]])
def test_names_that_no_folder_holds(names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"audio")
    refuse(FetchError, path, lambda: unpack_zip(path, tmp_path))
    assert [found.name for found in tmp_path.iterdir() if found.is_file()] == ["x.zip"]


def test_directories_of_archives_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("\xe4", b"audio")
    data = path.read_bytes()
    at = data.index(b"PK\1\2")
    for place, value in ((at + 46, b"\xff\xff"), (at + 28, b"\0\0"), (at + 42, b"\xff\xff\xff\x7f")):
        path.write_bytes(data[:place] + value + data[place + len(value) :])
        refuse(FetchError, path, lambda: unpack_zip(path, tmp_path))


# Audio


def test_a_header_that_points_before_the_start_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    form = b"FORM" + struct.pack(">I", 100) + b"AIFF" + b"COMM" + struct.pack(">I", 0xFFFFFFFF) + bytes(60)
    caff = b"caff" + bytes(4) + b"desc" + struct.pack(">q", -200) + bytes(60)
    for data in (form, caff, form.replace(b"AIFF", b"8SVX")):
        with pytest.raises(AudioError):
            decode(AudioBytes(data, "a clip"), 16_000)
    assert not printed


def test_a_file_named_raw_is_read_as_what_it_is(world: Path, tmp_path: Path) -> None:
    real = min((world / "clips").glob("*.wav"))
    path = tmp_path / "x.raw"
    path.write_bytes(real.read_bytes())
    assert (decode(AudioFile(path), 16_000) == decode(AudioFile(real), 16_000)).all()


def test_a_midi_key_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.midi"
    track = b"\x00\xff\x59\x02\x07\xa1\x00\xff\x2f\x00"  # a key signature of seven sharps in mode 161
    head = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xe0MTrk"
    path.write_bytes(head + len(track).to_bytes(4, "big") + track)
    refuse(DataError, path, lambda: read_midi(path))


def test_a_midi_header_of_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "x.midi"
    path.write_bytes(b"MThd" + struct.pack(">IHHH", 0xFFFFFFF0, 1, 1, 480) + bytes(100))
    refuse(DataError, path, lambda: read_midi(path))


# The store


def _in_store(world: Path, folder: Path, name: str, change: Change, read: str = "all") -> None:
    """Read a copy of the real store with one file's JSON or table changed, and the manifest with it."""
    import xxhash

    root, keys, files = targets._store(folder / "copy", world)
    (path,) = (path for path in files if path.as_posix().endswith(f"/{name}"))
    if path.suffix == ".json":
        path.write_text(json.dumps(change(json.loads(path.read_bytes()))))
    else:
        with pa.ipc.open_file(path) as file:
            table = change(file.read_all())
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        path.write_bytes(sink.getvalue().to_pybytes())
        manifest = path.with_name("manifest.json")
        what = "frames_" if name.startswith("events/frames") else ""
        content = json.loads(manifest.read_bytes())
        content["parts"][0] |= {
            f"{what}bytes": path.stat().st_size,
            f"{what}xxh3_128": xxhash.xxh3_128(path.read_bytes()).hexdigest(),
        }
        manifest.write_text(json.dumps(content))
    refuse(StoreError, root, lambda: targets._read_all(root, keys, read))


def _with(**fields: Any) -> Change:
    return lambda value: {**value, **fields}


def _with_part(**fields: Any) -> Change:
    return lambda value: {**value, "parts": [{**value["parts"][0], **fields}]}


@pytest.mark.parametrize(
    "fields",
    [
        {"poolings": [1]},
        {"poolings": ["key"]},
        {"layers": []},
        {"dim": 0},
        {"dim": 10**12},
        {"dim": "64"},
        {"hop_s": 1e999},
        {"slug": "../x"},
        {"slug": "other"},
        {"name": "\ud800"},
        {"training_data": 3},
        {"more": 1},
        {"parameters": -1},
    ],
    ids=str,
)
def test_a_record_of_an_encoder_that_cannot_be(fields: dict[str, Any], world: Path, tmp_path: Path) -> None:
    _in_store(world, tmp_path, "encoder.json", _with(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": {}},
        {"name": "../../encoder.json"},
        {"frames": 1},
        {"frames": []},
        {"frames": "pooled-00000.arrow"},
        {"rows": []},
        {"rows": 10**30},
        {"bytes": []},
        {"xxh3_128": 1},
        {"more": 1},
    ],
    ids=str,
)
def test_a_manifest_of_parts_that_cannot_be(fields: dict[str, Any], world: Path, tmp_path: Path) -> None:
    _in_store(world, tmp_path, "events/manifest.json", _with_part(**fields))


def _column(name: str, values: Any) -> Change:
    return lambda table: table.set_column(table.column_names.index(name), name, pa.array(values))


MAPS = pa.array([[("a", 1)]] * 6, pa.map_(pa.string(), pa.int32()))


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["key"]),
        lambda table: table.drop_columns(["chunks"]),
        _column("key", ["x"] * 6),
        lambda table: table.set_column(0, "key", pa.nulls(6, pa.binary(32))),
        lambda table: table.set_column(1, "frames", pa.nulls(6, pa.int32())),
        _column("mean", [[1.0]] * 6),
        lambda table: table.append_column("key", table.column("key")),
        lambda table: table.append_column("maps", MAPS),  # Arrow ends the process for a map whose keys have gaps
    ],
)
def test_a_part_whose_columns_are_others(change: Change, world: Path, tmp_path: Path) -> None:
    _in_store(world, tmp_path, "events/pooled-00000.arrow", change, "vectors")


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["frames"]),
        _column("frames", [1.0] * 6),
        lambda table: table.slice(0, 2),
        lambda table: table.slice(0, 0),
        lambda table: table.take([1, 0, 2, 3, 4, 5]),
    ],
)
def test_frames_that_are_not_those_of_the_part(change: Change, world: Path, tmp_path: Path) -> None:
    _in_store(world, tmp_path, "events/frames-00000.arrow", change, "frames")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("labels", ["[" * 3000] * 6),
        ("labels", ["[[1, 2, 3]]"] * 6),
        ("labels", ['"\\ud800"'] * 6),
        ("labels", ['[[1e999, 2, "a"]]'] * 6),
        ("labels", [f'[[{10**400}, 2, "a"]]'] * 6),
        ("key", ["x"] * 6),
        ("id", [None] * 6),
        ("duration_s", ["x"] * 6),
    ],
)
def test_a_clip_table_that_is_none(column: str, values: list[Any], world: Path, tmp_path: Path) -> None:
    (seed,) = (world / "cache" / "clips").glob("events-*.parquet")
    sink = pa.BufferOutputStream()
    pq.write_table(_column(column, values)(pq.read_table(seed)), sink)
    refuse(StoreError, tmp_path, lambda: targets.table_of_clips(tmp_path, world, sink.getvalue().to_pybytes()))


def test_a_memory_of_the_scan_with_gaps_is_no_memory(world: Path, tmp_path: Path) -> None:
    (seed,) = (world / "cache" / "clips").glob("events.scan.parquet")
    path = tmp_path / "x.scan.parquet"
    table = pq.read_table(seed)
    for name in table.column_names:
        changed = table.set_column(
            table.column_names.index(name), name, pa.nulls(len(table), table.schema.field(name).type)
        )
        pq.write_table(changed, path)
        clip = Clip("a", AudioFile(min((world / "clips").glob("*.wav"))), "x", "train")
        (found,) = scan_clips([clip], path)
        assert not isinstance(found, AudioError)


# Checkpoints


@pytest.mark.parametrize("rate", ["-1", -16_000])
def test_a_negative_sampling_rate(rate: object, tmp_path: Path) -> None:
    config = {"model_type": "wav2vec2", "hidden_size": 8, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "processor_config.json").write_text(json.dumps({"feature_extractor": {"sampling_rate": rate}}))
    header = b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refuse(InputError, tmp_path, lambda: open_encoder(ModelSpec(str(tmp_path))), f"{rate} Hz")


# The companion's rows


def _rows(world: Path, folder: Path, change: Callable[[bytes], bytes]) -> Path:
    (seed,) = (world / "rows").glob(f"*{SUFFIX}")
    path = folder / seed.name
    path.write_bytes(change(seed.read_bytes()))
    return path


def test_offsets_that_lead_out_of_the_file(world: Path, tmp_path: Path) -> None:
    """Arrow followed such offsets, and the process died of SIGSEGV."""
    (seed,) = (world / "rows").glob(f"*{SUFFIX}")
    with pa.ipc.open_file(seed) as file:
        offsets = [file.read_all().column(name).chunk(0).buffers()[1].to_pybytes()[:28] for name in ("id", "clip")]
    for held in offsets:
        changed = struct.pack("<7i", 0, *[2**30] * 6)
        path = _rows(world, tmp_path, lambda data, held=held, changed=changed: data.replace(held, changed))
        refuse(InputError, path, lambda: list(open_rows([tmp_path])), "damaged")
        refuse(InputError, path, lambda: open_rows([tmp_path])[0], "damaged")


def test_texts_and_notes_that_are_not_utf8(world: Path, tmp_path: Path) -> None:
    path = _rows(world, tmp_path, lambda data: data.replace(b"fsdd/0_jackson", b"fsdd/\xff_jackson"))
    refuse(InputError, path, lambda: list(open_rows([tmp_path])), "damaged")
    path = _rows(world, tmp_path, lambda data: data.replace(b"0.72", b"\xff.72").replace(b"limited", b"l\xffmited"))
    refuse(InputError, path, lambda: read_notes(path))


def test_codes_that_stand_for_no_name(world: Path, tmp_path: Path) -> None:
    with pa.ipc.open_file(_rows(world, tmp_path, lambda data: data)) as file:
        table = file.read_all()
    at = table.column_names.index("task")
    codes = pa.DictionaryArray.from_arrays(pa.array([9] * 6, pa.int32()), pa.array(["keyword"]), safe=False)
    (path,) = tmp_path.glob(f"*{SUFFIX}")
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table.set_column(at, table.schema.field(at), codes))
    refuse(InputError, path, lambda: open_rows([tmp_path]).codes("task"), "damaged")
    refuse(InputError, path, lambda: open_rows([tmp_path])[0], "damaged")
    refuse(InputError, path, lambda: open_rows([tmp_path]).require_shards(), "damaged")


# Results


@pytest.mark.parametrize(
    ("part", "field"), [("model", "slug"), ("model", "fingerprint"), ("protocol", "name"), ("task", "name")]
)
def test_a_result_whose_path_leads_elsewhere(part: str, field: str, world: Path, tmp_path: Path) -> None:
    seed = json.loads((world / "seeds" / "result" / "00").read_bytes())
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**seed, part: {**seed[part], field: "../../../x"}}))
    refuse(InputError, path, lambda: read_result(path), f"{part}.{field}")


def test_predictions_beside_what_is_no_result(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[]")
    predictions_path(path).write_bytes((world / "seeds" / "predictions" / "00").read_bytes())
    refuse(InputError, predictions_path(path), lambda: read_predictions(path))


@pytest.mark.parametrize("name", ["method", "seed", "fold", "id", "group", "truth", "prediction", "scores", "counts"])
def test_predictions_whose_columns_are_others(name: str, world: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{}")
    table = pq.read_table(world / "seeds" / "predictions" / "00")
    for changed in (table.drop_columns([name]), _column(name, [True] * len(table))(table)):
        pq.write_table(changed, predictions_path(path))
        refuse(InputError, predictions_path(path), lambda: read_predictions(path))


@pytest.mark.parametrize("classes", [b"3", b"{", b"[" * 3000, b'["a", ["b"]]', b'["a"]'])
def test_classes_that_are_none(classes: bytes, world: Path, tmp_path: Path) -> None:
    table = pq.read_table(world / "seeds" / "predictions" / "00")
    truths = pa.array(['["a", "b"]'] * len(table))
    table = table.set_column(table.column_names.index("truth"), "truth", truths)
    with pytest.raises(InputError):
        read_items(table.replace_schema_metadata({b"classes": classes}), "mlp", "map")
