"""Bundles: scored again without audio and encoder; one changed score, vector, label or prediction is named."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import uwbench
from conftest import Command
from uwbench import api
from uwbench.api import InputError, ProbeOptions, UsageError, UwbenchError
from uwbench.results.record import predictions_path, read_result

Members = dict[str, bytes]
GROUPS = 6


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of mfcc on own data whose audio is gone, by kNN, with a corruption; cache and results are beside it."""
    home = tmp_path_factory.mktemp("bundles")
    manifest = write_pitches(home / "pitches")
    folders: dict[str, Any] = {"cache": home / "cache", "results": home / "results"}
    probe = ProbeOptions(corruptions=("noise:0dB",))
    results = api.evaluate(["mfcc", "logmel"], manifest, methods="knn", probe=probe, **folders)
    assert not results.failures, results.failures
    uwbench.bundle("mfcc", home / "mfcc.zip", **folders)
    shutil.rmtree(manifest.parent)
    return home / "mfcc.zip"


def write_pitches(folder: Path) -> Path:
    """Write 48 noisy tones of two classes with groups, and their manifest."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    for index in range(48):
        pitch = (300, 420)[index % 2] * 2 ** (index // 2 / 24)
        tone = np.sin(2 * np.pi * pitch * np.arange(4000) / 16_000)
        soundfile.write(folder / f"{index:02d}.wav", 0.1 * tone + 0.1 * rng.standard_normal(4000), 16_000)
        split = ("train", "valid", "test")[index // 2 % 3]
        rows.append((f"{index:02d}.wav", ("low", "high")[index % 2], split, f"g{index // 2 % GROUPS}{split}"))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "group"), *rows])
    return folder / "manifest.csv"


def members_of(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def named(members: Members, start: str, end: str = "") -> str:
    return next(name for name in members if name.startswith(start) and name.endswith(end))


def write(path: Path, members: Members, *, listed: bool) -> Path:
    """Write members as a bundle; if `listed`, sizes and hashes in bundle.json are theirs, as a forger would do."""
    if listed:
        contents = json.loads(members["bundle.json"])
        contents["files"] = {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in members.items()
            if name != "bundle.json"
        }
        members = {**members, "bundle.json": json.dumps(contents).encode()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def changed_score(members: Members) -> None:
    name = named(members, "results/", ".json")
    result = json.loads(members[name])
    result["scores"]["knn"]["main_score"] += 0.0625
    members[name] = json.dumps(result).encode()


def changed_drop(members: Members) -> None:
    name = named(members, "results/", ".json")
    result = json.loads(members[name])
    result["robustness"]["corruptions"]["noise:0dB"]["scores"]["knn"]["score"] += 0.0625
    members[name] = json.dumps(result).encode()


def changed_weight(members: Members) -> None:
    name = named(members, "results/", ".json")
    result = json.loads(members[name])
    result["task"]["weight"] = 99.0
    members[name] = json.dumps(result).encode()


def rewritten(data: bytes, change: Callable[[dict[str, list[Any]]], None]) -> bytes:
    table = pq.read_table(pa.BufferReader(data))
    columns = table.to_pydict()
    change(columns)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=table.schema), sink)
    return sink.getvalue().to_pybytes()


def changed_label(members: Members) -> None:
    def swap(columns: dict[str, list[Any]]) -> None:
        row = columns["id"].index("02.wav")
        columns["labels"][row] = '"high"' if columns["labels"][row] == '"low"' else '"low"'

    name = named(members, "cache/clips/")
    members[name] = rewritten(members[name], swap)


def changed_prediction(members: Members) -> None:
    def swap(columns: dict[str, list[Any]]) -> None:
        row = columns["id"].index("04.wav")
        columns["prediction"][row] = '"high"' if columns["prediction"][row] == '"low"' else '"low"'

    table, result = named(members, "results/", ".parquet"), named(members, "results/", ".json")
    members[table] = rewritten(members[table], swap)
    owner = json.loads(members[result])
    owner["predictions_sha256"] = hashlib.sha256(members[table]).hexdigest()
    members[result] = json.dumps(owner).encode()


def changed_vector(members: Members, part: str = "pooled-00000.arrow", clip: str = "03.wav") -> None:
    """Change one number of one clip's vector."""
    name = named(members, "cache/mfcc", part)
    batch = pa.ipc.open_file(pa.BufferReader(members[name])).get_batch(0)
    table = pq.read_table(pa.BufferReader(members[named(members, "cache/clips/")]))
    row = 0 if "noise" in part else table["id"].to_pylist().index(clip)
    values = batch.column("mean").flatten().to_numpy().copy()
    width = len(values) // len(batch)
    values[row * width + 1] += 0.5
    columns = [*batch.columns]
    columns[batch.schema.names.index("mean")] = pa.FixedSizeListArray.from_arrays(pa.array(values), width)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=batch.schema))
    data = sink.getvalue().to_pybytes()
    assert len(data) == len(members[name])
    members[name] = data


def changed_noisy_vector(members: Members) -> None:
    changed_vector(members, "noise_0dB.arrow")


def test_a_bundle_is_scored_again_without_audio_and_encoder(
    packed: Path, tmp_path: Path, uwbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine has neither the clips nor a cache; reading audio or opening an encoder would fail the test."""
    assert not (packed.parent / "pitches").exists()
    for name in ("uwbench.audio.decode.decode", "uwbench.encoders.resolve.open_encoder"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("needs audio or an encoder"))
    verified = uwbench("verify", packed)
    assert (verified.code, verified.out) == (0, "mfcc, pitches: equal\n"), verified.err
    assert verified.err.splitlines()[0].startswith("scoring pitches by ")
    assert not any((tmp_path / "cache").iterdir())
    again = uwbench("verify", packed)  # the record is of the bytes, not of the file
    assert (again.code, again.out, again.err) == (0, "mfcc, pitches: equal (verified before)\n", "")
    copy = shutil.copy(packed, tmp_path / "copy.zip")
    assert api.verify(copy).verified_before


def test_equal_inputs_give_equal_bytes(packed: Path, tmp_path: Path) -> None:
    folders: dict[str, Any] = {"cache": packed.parent / "cache", "results": packed.parent / "results"}
    again = uwbench.bundle("mfcc", tmp_path / "again.zip", **folders)
    assert again.path.read_bytes() == packed.read_bytes()
    assert again.sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert (again.tasks, again.left_out) == (("pitches",), ())
    with zipfile.ZipFile(packed) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        vectors = sum(member.file_size for member in archive.infolist() if member.filename.endswith(".arrow"))
    dim = read_result(next((packed.parent / "results").glob("mfcc/*/*/*.json"))).model.dim
    clips = 48 + 16  # and the tested ones under noise; two poolings of float32 each
    assert clips * 2 * dim * 4 < vectors < clips * 2 * dim * 4 + 20_000


@pytest.mark.parametrize("listed", [False, True], ids=["as it is", "with matching hashes"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (changed_score, "pitches: knn main_score: "),
        (changed_drop, "pitches: knn under noise:0dB: "),
        (changed_weight, "pitches: task weight: 99.0 was recorded, 1.0 came out"),
        (changed_label, "pitches: the label, split, fold, group or key changed of 02.wav"),
        (changed_prediction, "differ in their prediction, first 04.wav, seed 0: "),
        (changed_vector, "pitches: the vectors changed of 03.wav"),
        (changed_noisy_vector, "pitches: the vectors under noise:0dB changed of 04.wav"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_changed_is_named_and_the_bundle_refused(
    change: Callable[[Members], None], expected: str, listed: bool, packed: Path, tmp_path: Path
) -> None:
    members = members_of(packed)
    change(members)
    forged = write(tmp_path / "forged.zip", members, listed=listed)
    verified = api.verify(forged)
    assert not verified.equal
    assert any(expected in line for line in verified.differences), verified.differences
    changed = sorted(name for name, data in members_of(packed).items() if data != members[name])
    whole = [f"{name}: is not the file that the bundle was made with" for name in changed]
    assert [line for line in verified.differences if line in whole] == ([] if listed else whole)
    with pytest.raises(UsageError, match="has not been verified on this machine"):
        api.leaderboard([tmp_path / "results", forged])


def test_a_forger_who_hashes_labels_again_is_caught_by_the_result(packed: Path, tmp_path: Path) -> None:
    members = members_of(packed)
    changed_label(members)
    table = named(members, "digests/")

    def hash_again(columns: dict[str, list[Any]]) -> None:
        clips = pq.read_table(pa.BufferReader(members[named(members, "cache/clips/")])).to_pydict()
        row = columns["id"].index("02.wav")
        fields = [clips[name][row] for name in ("id", "key", "labels", "split", "fold", "group")]
        fields[1] = fields[1].hex()
        text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
        columns["clip"][row] = hashlib.sha256(text.encode()).digest()

    members[table] = rewritten(members[table], hash_again)
    verified = api.verify(write(tmp_path / "forged.zip", members, listed=True))
    assert verified.differences == ("pitches: the clips, labels, splits or groups are not those that were scored",)


def test_a_bundle_that_says_it_is_of_another_model_is_refused(packed: Path, tmp_path: Path) -> None:
    members = members_of(packed)
    contents = json.loads(members["bundle.json"])
    members["bundle.json"] = json.dumps({**contents, "fingerprint": "0" * 64}).encode()
    verified = api.verify(write(tmp_path / "other.zip", members, listed=False))
    assert verified.differences == ("pitches: is a result of another model or protocol than the bundle",)


def linked(archive: zipfile.ZipFile) -> None:
    link = zipfile.ZipInfo("results/link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    archive.writestr(link, "/etc/passwd")


@pytest.mark.parametrize(
    ("add", "expected"),
    [
        (lambda archive: archive.writestr("/tmp/x.json", "{}"), "would leave the folder"),
        (lambda archive: archive.writestr("results/../../x.json", "{}"), "would leave the folder"),
        (linked, "is not a plain file"),
        (lambda archive: archive.writestr("results/more.json", "{}"), "does not belong in it"),
    ],
    ids=["absolute", "upward", "link", "unlisted"],
)
def test_unsafe_members_are_refused(
    add: Callable[[zipfile.ZipFile], None], expected: str, packed: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copy(packed, tmp_path / "unsafe.zip"))
    with zipfile.ZipFile(copy, "a") as archive:
        add(archive)
    with pytest.raises(UwbenchError, match=expected) as error:
        api.verify(copy)
    assert "unsafe.zip" in str(error.value)


def test_a_missing_member_and_what_is_no_bundle_are_refused(packed: Path, tmp_path: Path) -> None:
    members = members_of(packed)
    members.pop(named(members, "cache/clips/"))
    with pytest.raises(InputError, match="is not in it; ask for the file again"):
        api.verify(write(tmp_path / "part.zip", members, listed=False))
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("readme.txt", "hello")
    (tmp_path / "readme.zip").write_bytes(sink.getvalue())
    with pytest.raises(InputError, match=r"holds no bundle\.json"):
        api.verify(tmp_path / "readme.zip")
    with pytest.raises(InputError, match="is no file"):
        api.verify(tmp_path / "none.zip")


def test_the_board_marks_what_is_from_a_bundle(packed: Path, tmp_path: Path, uwbench: Command) -> None:
    refused = uwbench("leaderboard", "--merge", packed)
    assert refused.code == 2
    assert f"run: uwbench verify {packed}" in refused.err
    assert uwbench("verify", packed, "--quiet").code == 0
    own = packed.parent / "results" / "logmel"
    shutil.copytree(own, tmp_path / "results" / "logmel")
    words = ("leaderboard", "--merge", packed)
    shown = uwbench(*words)
    assert "‖ from a bundle" in shown.out
    marked = [line.split()[0] for line in shown.out.splitlines() if "‖" in line]
    assert marked == ["mfcc", "‖"]  # its scores, and the legend
    mark = f"from bundle mfcc.zip {hashlib.sha256(packed.read_bytes()).hexdigest()[:8]}"
    rows = list(csv.DictReader(io.StringIO(uwbench(*words, "--format", "csv").out)))
    states = {row["model"]: row["status"] for row in rows if row["kind"] == "task"}
    assert states == {"mfcc": f"ok, {mark}", "logmel": "ok"}
    scores = json.loads(uwbench(*words, "--json").out)["scores"]
    assert {row["model"]: row["status"] for row in scores} == states
    assert "‖" in uwbench(*words, "--format", "md").out
    assert mark in uwbench(*words, "--format", "html").out
    alone = api.leaderboard([tmp_path / "results"])
    assert [model.label for model in alone.board.models] == ["logmel"]  # only if it is asked for


def test_results_of_one_revision_that_disagree_are_shown_as_such(
    packed: Path, tmp_path: Path, uwbench: Command
) -> None:
    """The same result twice is one; a newer one with another score is marked, and says what it differs from."""
    assert uwbench("verify", packed, "--quiet").code == 0
    own = tmp_path / "results" / "mfcc"
    shutil.copytree(packed.parent / "results" / "mfcc", own)
    board = api.leaderboard([tmp_path / "results", packed]).board
    (cell,) = board.cells
    assert (cell.state, cell.bundle, board.off) == ("ok", None, ())
    (path,) = own.glob("*/*/pitches.json")
    result = json.loads(path.read_text())
    bundled = result["scores"]["knn"]["main_score"]
    result["scores"]["knn"]["main_score"] = 0.5
    result["run"]["started"] = "2099-01-01T00:00:00+00:00"
    path.write_text(json.dumps(result))
    (cell,) = api.leaderboard([tmp_path / "results", packed]).board.cells
    assert cell.state == "ok, results of this revision disagree"
    assert f"of the same revision: knn {bundled:.4f}, not 0.5000" in cell.notes[-1]
    assert "(bundle mfcc.zip " in cell.notes[-1]
    shown = uwbench("leaderboard", "--merge", packed).out
    assert "0.500≠" in shown
    assert "≠ another result of the same revision disagrees" in shown


def test_two_rows_of_one_revision_that_disagree_name_each_other(packed: Path, tmp_path: Path) -> None:
    """The same hub revision under two fingerprints has two rows."""
    (source,) = (packed.parent / "results" / "mfcc").glob("*/*/pitches.json")
    result = json.loads(source.read_text())
    for number, (revision, score) in enumerate((("abc", 0.5), ("abc", 0.75), ("def", 0.25))):
        result["model"] |= {"revision": revision, "fingerprint": f"{number}" * 64}
        result["scores"]["knn"]["main_score"] = score
        path = tmp_path / "results" / "mfcc" / (f"{number}" * 8) / "uwbench-1" / "pitches.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(result))
    cells = {cell.model[-1]: cell for cell in api.leaderboard().board.cells}
    assert "disagrees with the row mfcc [11111111] of the same revision" in cells["0"].disagreements[0]
    assert "disagrees with the row mfcc [00000000] of the same revision" in cells["1"].disagreements[0]
    assert cells["2"].disagreements == ()


def test_scores_from_segments_are_left_out_by_name_and_refused_by_name(packed: Path, tmp_path: Path) -> None:
    """As if an attentive score stood beside that of kNN: what it read is not in a bundle."""
    folders: dict[str, Any] = {"cache": packed.parent / "cache", "results": tmp_path / "results"}
    shutil.copytree(packed.parent / "results", folders["results"], dirs_exist_ok=True)
    (path,) = folders["results"].glob("mfcc/*/uwbench-1/pitches.json")
    result = json.loads(path.read_text())
    result["scores"]["attentive"] = {**result["scores"]["knn"], "settings": {"version": 1}}
    predictions = pq.read_table(predictions_path(path))
    methods = pa.array(["attentive"] * predictions.num_rows, pa.string())
    theirs = predictions.set_column(predictions.column_names.index("method"), "method", methods)
    pq.write_table(pa.concat_tables([predictions, theirs]), predictions_path(path))
    result["predictions_sha256"] = hashlib.sha256(predictions_path(path).read_bytes()).hexdigest()
    path.write_text(json.dumps(result))

    bundle = uwbench.bundle("mfcc", tmp_path / "mfcc.zip", **folders)
    assert len(bundle.left_out) == 1
    assert bundle.left_out[0].startswith("pitches: attentive reads segments, which a bundle does not hold")
    verified = uwbench.verify(bundle.path, results=tmp_path / "elsewhere")
    assert verified.equal, verified.differences
    members = members_of(bundle.path)
    place = named(members, "results/", "pitches.json")
    assert list(json.loads(members[place])["scores"]) == ["knn"]
    forged = write(tmp_path / "forged.zip", {**members, place: path.read_bytes()}, listed=True)
    refused = uwbench.verify(forged, results=tmp_path / "elsewhere")
    assert not refused.equal
    assert "attentive cannot be verified, as a bundle holds no segments" in refused.differences[0]


def test_what_cannot_be_packed_is_said(packed: Path, tmp_path: Path) -> None:
    folders: dict[str, Any] = {"cache": packed.parent / "cache", "results": packed.parent / "results"}
    with pytest.raises(UsageError, match="no results of 'mfxc' are on the board; did you mean mfcc"):
        uwbench.bundle("mfxc", tmp_path / "x.zip", **folders)
    with pytest.raises(UwbenchError, match="holds no clip table of pitches"):
        uwbench.bundle("mfcc", tmp_path / "x.zip", cache=tmp_path / "cache", results=packed.parent / "results")
    assert not (tmp_path / "x.zip").exists()
    assert not list(tmp_path.glob(".bundle-*"))
