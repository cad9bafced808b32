"""The segment pyramid: its numbers, padding and chunks, and its place in the cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectrum_encoder import DIM, FRAME, RATE, SpectrumEncoder
from tones import CARD, SETTINGS, tones
from uwbench.audio.clip import AudioArray, Clip
from uwbench.cache.maintenance import holdings, prune, verify
from uwbench.cache.records import manifest_text
from uwbench.cache.segments import LEVELS, SEGMENTS
from uwbench.errors import StoreError
from uwbench.extraction import extract as extract_module
from uwbench.extraction.extract import Extraction, extract
from uwbench.extraction.identity import describe_encoder
from uwbench.extraction.plan import Plan, make_plan
from uwbench.extraction.pooling import as_pooled, merge, reduce_frames
from uwbench.extraction.segments import LEAVES, Cuts, Place, Pyramid, cuts_of, leaf_bounds
from uwbench.extraction.task import scan_task


def pyramid_of(chunks: Sequence[np.ndarray], lengths: Sequence[int], padding: int = 0) -> np.ndarray:
    """Return the pyramid of a clip whose chunks of `lengths` samples have the frames `(layers, frames, dim)`."""
    longest = max(chunk.shape[1] for chunk in chunks) + padding
    frames = np.full((len(chunks), chunks[0].shape[0], longest, chunks[0].shape[2]), 1e6, np.float32)
    for index, chunk in enumerate(chunks):
        frames[index, :, : chunk.shape[1]] = chunk
    starts = np.cumsum([0, *lengths]).tolist()
    valid = torch.tensor([chunk.shape[1] for chunk in chunks])
    cuts = cuts_of(lengths, [Place(start, starts[-1]) for start in starts[:-1]])
    pooled = as_pooled(reduce_frames(torch.from_numpy(frames), valid, valid, ("mean",), cuts), valid, valid, cuts)
    pyramid = Pyramid()
    for window in pooled:
        assert window.leaves is not None
        assert window.leaf_frames is not None
        pyramid.add(window.leaves, window.leaf_frames)
    return pyramid.vectors(merge(pooled)["mean"])


def expected(frames: np.ndarray) -> np.ndarray:
    """Return the pyramid of one chunk in float64, part by part."""
    n, parts = frames.shape[1], []
    for level in LEVELS:
        cuts = [(2 * i * n + level) // (2 * level) for i in range(level + 1)]
        filled = [i for i in range(level) if cuts[i] < cuts[i + 1]]
        for i in range(level):
            near = min(filled, key=lambda part: (abs(part - i), part))
            parts.append(frames[:, cuts[near] : cuts[near + 1]].astype(np.float64).mean(1))
    return np.stack(parts, axis=1)


@given(
    n=st.integers(1, 60),
    padding=st.integers(0, 9),
    scale=st.floats(1e-2, 1e2),
    offset=st.floats(-100, 100),
    seed=st.integers(0, 2**16),
)
def test_a_pyramid_equals_float64(n: int, padding: int, scale: float, offset: float, seed: int) -> None:
    frames = (offset + scale * np.random.default_rng(seed).standard_normal((2, n, 3))).astype(np.float32)
    pyramid = pyramid_of([frames], [320 * n], padding)
    assert pyramid.shape == (2, SEGMENTS, 3)
    np.testing.assert_allclose(pyramid, expected(frames), rtol=1e-4, atol=3e-5 * (abs(offset) + scale))


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=6), last=st.integers(1, 1000), seed=st.integers(0, 99))
def test_parts_split_the_frames_of_all_chunks(counts: list[int], last: int, seed: int) -> None:
    """The mean of a level's parts, weighted by their frames, is the clip's; the cuts are at shares of the samples."""
    rng = np.random.default_rng(seed)
    lengths = [1000] * (len(counts) - 1) + [last]
    chunks = [rng.standard_normal((1, count, 2)).astype(np.float32) for count in counts]
    pyramid = pyramid_of(chunks, lengths)[0].astype(np.float64)
    starts = np.cumsum([0, *lengths]).tolist()
    part_of = []  # of each frame, the leaf that it lies in
    for count, length, start in zip(counts, lengths, starts, strict=False):
        inside = [(j * starts[-1] / LEAVES - start) / length for j in range(1, LEAVES)]
        cuts = [np.floor(min(max(share, 0), 1) * count + 0.5 + 1e-9) for share in inside]
        part_of += [sum(frame >= cut for cut in cuts) for frame in range(count)]
    leaf, frames = np.array(part_of), np.concatenate(chunks, axis=1)[0].astype(np.float64)
    first = 0
    for level in LEVELS:
        counted = np.bincount(leaf * level // LEAVES, minlength=level)
        assert counted.sum() == len(frames)
        parts = pyramid[first : first + level]
        np.testing.assert_allclose(counted @ parts / len(frames), frames.mean(0), atol=1e-5)
        for part in np.flatnonzero(counted):
            np.testing.assert_allclose(parts[part], frames[leaf * level // LEAVES == part].mean(0), atol=1e-5)
        first += level


def test_the_first_part_is_the_mean_to_the_last_bit_and_cuts_are_whole_numbers() -> None:
    frames = torch.randn((1, 2, 37, 5), generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([37])
    cuts = cuts_of([11_840], [Place(0, 11_840)])
    assert leaf_bounds(valid, cuts).tolist() == [[0, 5, 9, 14, 19, 23, 28, 32, 37]]
    with_cuts, without = (reduce_frames(frames, valid, valid, ("mean",), wanted) for wanted in (cuts, None))
    assert torch.equal(with_cuts["mean"], without["mean"])
    np.testing.assert_array_equal(pyramid_of([frames[0].numpy()], [11_840])[:, 0], without["mean"][0].numpy())
    three_hours = Cuts(*cuts_of([48_000 * 10_800], [Place(0, 48_000 * 10_800)]))
    assert leaf_bounds(torch.tensor([1_080_000]), three_hours)[0, 3] == 405_000  # no overflow


def plan_for(clips: list[Clip], cache: Path, encoder: SpectrumEncoder, *, segments: bool, layers: str = "all") -> Plan:
    record = describe_encoder(encoder.info, layers=layers)
    return make_plan(scan_task(CARD, clips, "made", (), cache, None), record, cache, segments=segments)


def run(clips: list[Clip], cache: Path, encoder: SpectrumEncoder, *, segments: bool = True) -> tuple[Plan, Extraction]:
    plan = plan_for(clips, cache, encoder, segments=segments)
    encoder.load("cpu", "fp32")
    return plan, extract(plan, encoder, SETTINGS, lambda rows: None)


def stored(plan: Plan) -> np.ndarray:
    return plan.store.open_task("tones", plan.task.table.keys, needs_segments=True).segments().all()


def reference(samples: np.ndarray, context: int | None = None) -> np.ndarray:
    """Return both layers' frames, chunk by chunk as `SpectrumEncoder` makes them, pooled by `pyramid_of`."""
    pieces = [samples[i : i + (context or len(samples))] for i in range(0, len(samples), context or len(samples))]
    chunks = []
    for piece in pieces:
        padded = np.pad(piece, (0, -len(piece) % FRAME)).reshape(-1, FRAME)
        spectrum = np.abs(np.fft.rfft(padded.astype(np.float64)))
        chunks.append(np.stack([spectrum, np.log1p(spectrum)]).astype(np.float32))
    return pyramid_of(chunks, list(map(len, pieces)))


@pytest.mark.parametrize("context_s", [None, 0.7])
def test_stored_segments_equal_a_reference_whatever_the_batch(tmp_path: Path, context_s: float | None) -> None:
    clips = tones(60, longest=2.0)
    plan, done = run(clips, tmp_path, SpectrumEncoder(context_s=context_s))
    assert done.encoded == 60
    segments = stored(plan)
    assert segments.shape == (60, 2, SEGMENTS, DIM)
    for clip, pyramid in zip(clips, segments, strict=True):
        assert isinstance(clip.audio, AudioArray)
        context = None if context_s is None else round(context_s * RATE)
        np.testing.assert_allclose(pyramid, reference(clip.audio.samples, context), rtol=2e-5, atol=1e-5)
    pooled = plan.store.open_task("tones", plan.task.table.keys).pooled()
    np.testing.assert_array_equal(segments[:, :, 0], pooled)


def test_clips_of_several_minutes_have_the_same_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = tones(12, longest=3.0)
    whole, _ = run(clips, tmp_path / "whole", SpectrumEncoder(context_s=0.7))
    monkeypatch.setattr(extract_module, "_LONG_S", 0.7)  # decoded window by window
    streamed, _ = run(clips, tmp_path / "streamed", SpectrumEncoder(context_s=0.7))
    np.testing.assert_allclose(stored(streamed), stored(whole), rtol=1e-5, atol=1e-6)


def test_segments_join_a_cache_that_stays_as_it_was(tmp_path: Path) -> None:
    clips = tones(40)
    before, _ = run(clips, tmp_path, SpectrumEncoder(), segments=False)
    files = {path: path.read_bytes() for path in before.store.folder.rglob("*.arrow")}
    pooled = before.store.open_task("tones", before.task.table.keys).pooled()
    with pytest.raises(
        StoreError, match=r"40 of 40 clips of tones have no segments.*--layers magnitude,log --segments"
    ):
        stored(before)
    plan = plan_for(clips, tmp_path, SpectrumEncoder(), segments=True)
    assert (plan.cached, plan.to_encode, plan.reason) == (0, 40, "cached without segments")
    forecast = plan.forecast_bytes()
    run(clips, tmp_path, SpectrumEncoder())
    assert all(path.read_bytes() == content for path, content in files.items())
    new = [path for path in before.store.folder.rglob("*.arrow") if path not in files]
    assert sum(path.stat().st_size for path in new) == pytest.approx(forecast, rel=0.02)
    np.testing.assert_array_equal(plan.store.open_task("tones", plan.task.table.keys).pooled(), pooled)
    for segments in (True, False):
        again, done = run(clips, tmp_path, SpectrumEncoder(), segments=segments)
        assert (again.cached, done.encoded) == (40, 0)
    (held,), problems = holdings(tmp_path)
    assert (held.clips, held.segments, problems) == (40, 40, [])
    assert prune(tmp_path, dry_run=False) == []


def test_pooled_vectors_and_one_layer_are_read_from_a_cache_with_segments(tmp_path: Path) -> None:
    clips = tones(20)
    plan, _ = run(clips, tmp_path, SpectrumEncoder())
    assert plan_for(clips, tmp_path, SpectrumEncoder(), segments=False).to_encode == 0
    last = plan_for(clips, tmp_path, SpectrumEncoder(), segments=True, layers="last")
    assert last.to_encode == 0
    np.testing.assert_array_equal(stored(last), stored(plan)[:, 1:])
    rows = np.array([7, 3, 3])
    segments = plan.store.open_task("tones", plan.task.table.keys, needs_segments=True).segments()
    np.testing.assert_array_equal(segments[rows], segments.all()[rows])


def test_an_interrupted_extraction_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    clips = tones(80)
    whole, _ = run(clips, tmp_path / "whole", SpectrumEncoder())

    def interrupt(batch: int) -> None:
        if batch == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(clips, tmp_path / "cut", SpectrumEncoder(before=interrupt))
    plan, done = run(clips, tmp_path / "cut", SpectrumEncoder())
    assert 0 < done.encoded < 80
    for path in whole.store.folder.rglob("*"):
        if path.is_file():
            other = plan.store.folder / path.relative_to(whole.store.folder)
            assert other.read_bytes() == path.read_bytes(), path.name


def test_a_damaged_file_of_segments_is_found_and_written_again(tmp_path: Path) -> None:
    clips = tones(40)
    plan, _ = run(clips, tmp_path, SpectrumEncoder())
    path = plan.store.folder / "tones" / "segments-00001-segmented.arrow"
    good = path.read_bytes()
    path.write_bytes(good[:-200] + bytes(100) + good[-100:])
    assert [damage.path for damage in verify(tmp_path)[1]] == [path]
    again = plan_for(clips, tmp_path, SpectrumEncoder(), segments=True)
    assert again.reason == f"{path.name} does not match its checksum"
    _, done = run(clips, tmp_path, SpectrumEncoder())
    assert done.encoded == 8
    assert path.read_bytes() == good


def test_a_manifest_without_segments_is_written_as_before(tmp_path: Path) -> None:
    plan, _ = run(tones(10), tmp_path, SpectrumEncoder(), segments=False)
    manifest = plan.store.manifest("tones")
    assert manifest is not None
    (part,) = json.loads(manifest_text(manifest))["parts"]
    assert sorted(part) == ["bytes", "frames", "frames_bytes", "frames_xxh3_128", "name", "rows", "xxh3_128"]
