"""Ready vectors as a model: exported vectors give equal scores, rows find their clips, bad files name the row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import uwbench
from conftest import ROOT, Command
from tones import CARD, tones
from uwbench.api import ExtractOptions, UwbenchError
from uwbench.encoders.vector_files import VectorFile, read_vectors, write_parquet
from uwbench.errors import EncoderError, InputError
from uwbench.extraction.imported import match_rows
from uwbench.extraction.task import Task, scan_task
from uwbench.sources.dataset import Dataset


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> uwbench.Embeddings:
    folder = tmp_path_factory.mktemp("mfcc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UWBENCH_CACHE", str(folder))
        uwbench.extract("mfcc", "mini_music")
        return uwbench.load_embeddings("mfcc", "mini_music")


def scores(results: uwbench.Results) -> dict[str, Any]:
    assert results.failures == []
    (_, result), *_ = results.results
    return {method: (score.main_score, score.ci95, score.per_seed) for method, score in result.scores.items()}


def test_exported_vectors_give_equal_scores(embeddings: uwbench.Embeddings) -> None:
    embeddings.to_parquet("ours.parquet")
    expected = scores(uwbench.evaluate("mfcc", "mini_music", methods="knn"))
    results = uwbench.evaluate(["ours.parquet"], "mini_music", methods="knn")
    assert scores(results) == expected
    (_, result), *_ = results.results
    assert (result.model.family, result.model.name, result.model.layers) == ("imported", "ours.parquet", ("mfcc",))
    assert result.run.speed is None
    assert {model.label for model in uwbench.leaderboard().board.models} == {"mfcc", "ours.parquet (imported)"}
    again = uwbench.evaluate(Path("ours.parquet"), "mini_music", methods="knn")
    assert again.extractions[0][2] is None, "the vectors are in the cache"
    assert scores(uwbench.probe("ours.parquet", methods="knn"))["knn"] == expected["knn"]


def test_the_examples_of_the_documentation_run() -> None:
    page = (ROOT / "docs" / "ready-vectors.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S):
        exec(compile(block, "ready-vectors.md", "exec"), names)
    assert scores(names["again"]) == {
        method: (score.main_score, score.ci95, score.per_seed)
        for method, score in names["results"].results[1][1].scores.items()
    }


@pytest.mark.parametrize("form", ["npz", "named npz", "folder", "pandas", "fixed"])
def test_every_form_of_file_is_the_same_model(embeddings: uwbench.Embeddings, tmp_path: Path, form: str) -> None:
    ids, vectors = list(embeddings.ids), embeddings.vectors[:, 0]
    path = tmp_path / "other.npz"
    if form == "npz":
        np.savez(path, ids=np.array(ids), vectors=vectors.astype(np.float64))
    elif form == "named npz":
        np.savez(path, **dict(zip(ids, vectors, strict=True)))
    elif form == "folder":
        path = tmp_path / "vectors"
        for name, vector in zip(ids, vectors, strict=True):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(path / f"{name}.npy", vector)
        order = [ids.index(file.relative_to(path).with_suffix("").as_posix()) for file in sorted(path.rglob("*.npy"))]
        ids, vectors = [ids[row] for row in order], vectors[order]
    else:
        path = tmp_path / "other.parquet"
        column = (
            pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]) if form == "fixed" else list(vectors)
        )
        pq.write_table(pa.table({"clip": ids, "x": column}), path)
    write_parquet(tmp_path / "ours.parquet", ids, vectors[:, None], ("last",))
    assert read_vectors(path).sha256() == read_vectors(tmp_path / "ours.parquet").sha256()


def test_missing_rows_are_missing_clips(embeddings: uwbench.Embeddings, uwbench: Command, tmp_path: Path) -> None:
    write_parquet(tmp_path / "few.parquet", embeddings.ids[2:], embeddings.vectors[2:], embeddings.layers)
    done = uwbench("run", "-m", "few.parquet", "-t", "mini_music", "--method", "knn")
    n = len(embeddings.ids)
    assert done.code == 1
    assert f"{n - 2} of {n} clips of mini_music have a vector, matched by id; 2 are missing" in done.err
    assert "2 clips have no embedding" in done.err
    done = uwbench("run", "-m", "few.parquet", "-t", "mini_music", "--method", "knn", "--allow-missing", "2")
    assert done.code == 0
    assert "few.parquet (imported)" in done.out


def test_what_vectors_cannot_do_is_said_and_the_rest_goes_on(embeddings: uwbench.Embeddings, tmp_path: Path) -> None:
    embeddings.to_parquet("ours.parquet")
    tasks = [Dataset(CARD, tuple(tones(6)), "made"), "mini_music"]
    results = uwbench.evaluate("ours.parquet", tasks, methods="knn")
    assert [result.status for _, result in results.results] == ["failed", "ok"]
    assert "none of its" in results.failures[0]
    assert "a clip" in results.failures[0]
    for options in (ExtractOptions(poolings=("max",)), ExtractOptions(dtype="bf16")):
        with pytest.raises(UwbenchError, match="ready vector per clip"):
            uwbench.evaluate("ours.parquet", "mini_music", extract=options)
    with pytest.raises(UwbenchError, match="ready vectors"):
        uwbench.check_encoder("ours.parquet")


BAD_CELLS: list[tuple[list[Any], str]] = [
    ([[1.0, 2.0], [float("nan"), 1.0]], r"row 2 \('b'\) holds NaN"),
    ([[1.0, 2.0], [1e300, 1.0]], r"row 2 \('b'\) holds a value too large"),
    ([[1.0, 2.0], [1.0]], r"row 2 \('b'\) has 1 values where the first row has 2"),
    ([[[1.0], [2.0]], [[1.0]]], r"row 2 \('b'\) has 1 values"),
    ([[[1.0, 2.0], [2.0, 1.0]], [[1.0, 3.0], [1.0]]], r"row 2 \('b'\) has 1 values"),
    ([[1.0, 2.0], None], r"row 2 \('b'\) has no vector"),
    ([[1.0, 2.0], [None, 2.0]], r"row 2 \('b'\) has no vector, or a gap"),
    ([["x"], ["y"]], "not numbers"),
    ([[[[1.0]]], [[[1.0]]]], "has the shape"),
    ([[], []], "empty ones"),
]


@pytest.mark.parametrize(("cells", "message"), BAD_CELLS)
def test_a_bad_row_is_named(tmp_path: Path, cells: list[Any], message: str) -> None:
    pq.write_table(pa.table({"id": ["a", "b"], "vector": cells}), tmp_path / "bad.parquet")
    with pytest.raises(InputError, match=message):
        read_vectors(tmp_path / "bad.parquet")


def test_files_that_hold_no_vectors_are_refused(tmp_path: Path) -> None:
    def refusal(name: str) -> str:
        with pytest.raises(InputError) as caught:
            read_vectors(tmp_path / name)
        return str(caught.value)

    np.savez(tmp_path / "pickled.npz", ids=np.array(["a"]), vectors=np.array([{"a": 1}], object))
    assert "plain arrays" in refusal("pickled.npz")
    np.savez(tmp_path / "short.npz", ids=np.array(["a"]), vectors=np.zeros((2, 3)))
    assert "1 ids" in refusal("short.npz")
    np.savez(tmp_path / "ragged.npz", a=np.zeros(3), b=np.zeros(4))
    assert "row 2 ('b') has the shape (4,)" in refusal("ragged.npz")
    np.savez(tmp_path / "empty.npz")
    assert "no vector" in refusal("empty.npz")
    (tmp_path / "text.parquet").write_text("id,vector")
    assert "no parquet" in refusal("text.parquet")
    pq.write_table(pa.table({"a": ["x"], "b": ["y"], "c": [[1.0]]}), tmp_path / "names.parquet")
    assert "its columns: a, b, c" in refusal("names.parquet")
    pq.write_table(pa.table({"id": ["x", None], "v": [[1.0], [2.0]]}), tmp_path / "gap.parquet")
    assert "row 2 has no id" in refusal("gap.parquet")


FILES = ("table.parquet", "arrays.npz", "folder/x.npy")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with vectors of three clips in each form of file."""
    folder = tmp_path_factory.mktemp("whole")
    vectors = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    write_parquet(folder / "table.parquet", ["a", "b", "c"], vectors, ("0", "1"))
    np.savez(folder / "arrays.npz", ids=np.array(["a", "b", "c"]), vectors=vectors)
    (folder / "folder").mkdir()
    np.save(folder / "folder" / "x.npy", vectors[0])
    return folder


@pytest.mark.filterwarnings("ignore:Reading")
@given(st.sampled_from(FILES), st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_read_or_refused(whole: Path, name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray((whole / name).read_bytes())
    for at, byte in changes:
        data[at % len(data)] = byte
    damaged = whole / f"damaged-{name}"
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(data)
    try:
        file = read_vectors(damaged.parent if name.endswith(".npy") else damaged)
    except InputError:
        return
    assert file.vectors.dtype == np.float32
    assert np.isfinite(file.vectors).all()


def test_tasks_on_frames_are_refused_and_layers_keep_their_names(tmp_path: Path) -> None:
    clips = tuple(tones(12))
    write_parquet(tmp_path / "v.npz.parquet", [clip.id for clip in clips], np.ones((12, 2, 3)), ("low", "high"))
    model, every = tmp_path / "v.npz.parquet", ExtractOptions(layers="all")
    assert uwbench.extract(model, Dataset(CARD, clips, "made"), extract=every).failures == []
    read = uwbench.load_embeddings("v.npz.parquet", Dataset(CARD, clips, "made"))
    assert (read.layers, read.vectors.shape) == (("low", "high"), (12, 2, 3))
    card = CARD.model_copy(update={"name": "words", "kind": "transcription", "metric": "one-minus-wer"})
    (failure,) = uwbench.extract(model, Dataset(card, clips, "made"), extract=every).failures
    assert "one vector per clip, and words is scored on frames" in failure


def table(ids: list[str], tasks: list[str] | None = None) -> VectorFile:
    vectors = np.arange(len(ids), dtype=np.float32).reshape(-1, 1, 1)
    return VectorFile(Path("/x/v.parquet"), tuple(ids), None if tasks is None else tuple(tasks), vectors, ("last",))


def test_rows_find_their_clips_by_what_matches_most(tmp_path: Path) -> None:
    task = scan_task(CARD, tones(4), "made", (), tmp_path, None)
    by = {
        "id": ["clip3", "clip1", "clip0", "clip2"],
        "id without its ending": ["clip3.wav", "clip1.WAV", "clip0.flac", "clip2"],
        "file name": ["/elsewhere/a/clip3.wav", "b/clip1.wav", "clip0", r"C:\x\clip2.wav"],
    }
    for expected, ids in by.items():
        match = match_rows(task, table(ids))
        assert (match.by, match.rows.tolist()) == (expected, [2, 1, 3, 0])
    with pytest.raises(EncoderError, match=r"row 1 \('clip0'\) and row 2 \('clip0'\) are both for the clip 'clip0'"):
        match_rows(task, table(["clip0", "clip0"]))
    several = table(["clip0", "clip0", "clip1"], ["other", "tones", "tones"])
    assert match_rows(task, several).rows.tolist() == [1, 2, -1, -1]
    with pytest.raises(EncoderError, match="no row for the task tones, only for other"):
        match_rows(task, table(["clip0"], ["other"]))


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return scan_task(CARD, tones(12), "made", (), tmp_path_factory.mktemp("twelve"), None)


@given(st.permutations(range(12)), st.integers(0, 11))
def test_each_clip_gets_its_own_row_in_any_order(twelve: Task, order: list[int], missing: int) -> None:
    ids = [twelve.clips[index].id for index in order[missing:]]
    rows = match_rows(twelve, table([*ids, "spare"])).rows
    expected = {clip: row for row, clip in enumerate(order[missing:])}
    assert rows.tolist() == [expected.get(index, -1) for index in range(12)]
