"""Extraction: right numbers, the same bytes after interruptions, nothing encoded twice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
import torch
from torch.overrides import TorchFunctionMode

from conftest import Command
from spectrum_encoder import RATE, SpectrumEncoder, reference
from tones import CARD, SETTINGS, plan_for, run, tones
from uwbench.audio.clip import AudioArray, AudioFile, Clip
from uwbench.audio.decode import chunks, decode, decode_windows
from uwbench.encoders.base import Encoded, ModelSpec
from uwbench.encoders.resolve import open_encoder
from uwbench.errors import AudioError, DataError, EncoderError, UsageError
from uwbench.extraction.batching import cut_batches
from uwbench.extraction.extract import Extraction, extract
from uwbench.extraction.forward import Forward, Settings
from uwbench.extraction.identity import describe_encoder, layer_indices
from uwbench.extraction.plan import Plan, make_plan, share_of
from uwbench.extraction.task import scan_task


def hashes(cache: Path) -> dict[str, str]:
    folders = [path for path in cache.rglob("*") if path.is_file() and ".locks" not in path.parts]
    files = [path for path in folders if not path.name.endswith(".scan.parquet")]
    return {str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_vectors_equal_a_float64_reference(tmp_path: Path) -> None:
    clips = tones(100)
    plan, done = run(clips, tmp_path, SpectrumEncoder())
    assert done.encoded == 100
    assert not done.unreadable
    vectors = plan.store.open_task("tones", plan.task.table.keys).pooled()
    for clip, vector in zip(clips, vectors, strict=True):
        assert isinstance(clip.audio, AudioArray)
        np.testing.assert_allclose(vector, reference(clip.audio.samples), rtol=2e-5, atol=1e-6)


def test_long_clips_are_chunked_and_pooled_by_valid_frames(tmp_path: Path) -> None:
    clips = tones(40, longest=3.0)
    plan, done = run(clips, tmp_path, SpectrumEncoder(context_s=0.7))
    vectors = plan.store.open_task("tones", plan.task.table.keys).pooled()
    frames, chunks = plan.store.open_task("tones", plan.task.table.keys).counts()
    for clip, vector, count in zip(clips, vectors, chunks, strict=True):
        assert isinstance(clip.audio, AudioArray)
        np.testing.assert_allclose(vector, reference(clip.audio.samples, round(0.7 * RATE)), rtol=2e-5, atol=1e-6)
        assert count == -(-len(clip.audio.samples) // round(0.7 * RATE))
    assert done.chunked == int((chunks > 1).sum()) > 0
    assert (frames >= 1).all()


def test_a_second_run_encodes_nothing(tmp_path: Path) -> None:
    clips = tones(50)
    run(clips, tmp_path, SpectrumEncoder())
    encoder = SpectrumEncoder()
    plan, done = run(clips, tmp_path, encoder)
    assert (plan.to_encode, plan.cached, done.encoded, encoder.batches) == (0, 50, 0, [])


def test_one_changed_sample_encodes_one_clip(tmp_path: Path) -> None:
    clips = tones(50)
    run(clips, tmp_path, SpectrumEncoder())
    audio = clips[7].audio
    assert isinstance(audio, AudioArray)
    samples = audio.samples.copy()
    samples[40] += 1e-3
    clips[7] = replace(clips[7], audio=AudioArray(samples, RATE, "clip7"))
    plan, done = run(clips, tmp_path, SpectrumEncoder())
    assert done.encoded == 1
    vector = plan.store.open_task("tones", [plan.task.table.keys[7]]).pooled()[0]
    np.testing.assert_allclose(vector, reference(samples), rtol=2e-5, atol=1e-6)


def test_another_weight_is_another_encoder(tmp_path: Path) -> None:
    clips = tones(20)
    run(clips, tmp_path, SpectrumEncoder())
    plan, done = run(clips, tmp_path, SpectrumEncoder(salt="one weight changed"))
    assert done.encoded == 20
    assert plan.reason == "changed since the last time: salt"


def test_fixing_a_label_re_encodes_nothing(tmp_path: Path) -> None:
    clips = tones(30)
    before, _ = run(clips, tmp_path, SpectrumEncoder())
    clips[3] = replace(clips[3], labels="another")
    after, done = run(clips, tmp_path, SpectrumEncoder())
    assert done.encoded == 0
    assert after.table_name != before.table_name


def test_tasks_on_the_same_clips_share_vectors(tmp_path: Path) -> None:
    clips = tones(30)
    encoder = SpectrumEncoder()
    run(clips, tmp_path, encoder)
    record = describe_encoder(encoder.info, layers="all")
    other = scan_task(CARD.model_copy(update={"name": "other"}), clips, "made", (), tmp_path, None)
    plan = make_plan(other, record, tmp_path)
    assert plan.to_encode == 0
    assert plan.store.open_task("other", other.table.keys).pooled().shape == (30, 2, 161)


def test_the_same_audio_twice_is_encoded_once(tmp_path: Path) -> None:
    clips = tones(10)
    twin = replace(clips[0], id="twin")
    plan, done = run([*clips, twin], tmp_path, SpectrumEncoder())
    assert done.encoded == 10
    vectors = plan.store.open_task("tones", plan.task.table.keys).pooled()
    np.testing.assert_array_equal(vectors[0], vectors[10])


@pytest.mark.parametrize("stop_at", [1, 3, 8])
def test_interrupted_and_started_again_gives_the_same_bytes(tmp_path: Path, stop_at: int) -> None:
    clips = tones(200)
    run(clips, tmp_path / "whole", SpectrumEncoder())

    def interrupt(batch: int) -> None:
        if batch == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(clips, tmp_path / "halves", SpectrumEncoder(before=interrupt))
    plan, _ = run(clips, tmp_path / "halves", SpectrumEncoder())
    assert hashes(tmp_path / "whole") == hashes(tmp_path / "halves")
    assert plan.to_encode < 200 or stop_at == 1


def test_shares_of_several_machines_make_the_same_bytes(tmp_path: Path) -> None:
    clips = tones(150)
    run(clips, tmp_path / "one", SpectrumEncoder())
    for index in (3, 1, 2):
        encoder = SpectrumEncoder()
        encoder.load("cpu", "fp32")
        plan = share_of(plan_for(clips, tmp_path / "three", encoder), index, 3)
        extract(plan, encoder, SETTINGS, lambda rows: None)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "three")


def test_only_the_damaged_part_is_re_encoded(tmp_path: Path) -> None:
    clips = tones(120)
    plan, _ = run(clips, tmp_path, SpectrumEncoder())
    before = hashes(tmp_path)
    part = sorted((plan.store.folder / "tones").glob("pooled-*.arrow"))[1]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    again, done = run(clips, tmp_path, SpectrumEncoder())
    assert again.reason == f"{part.name} does not match its checksum"
    assert 0 < done.encoded < 120
    assert hashes(tmp_path) == before


@pytest.mark.parametrize("context", ["full", "trimmed"])
def test_a_forward_is_launched_without_reading_anything_back(
    small_whisper: Path, context: Literal["full", "trimmed"]
) -> None:
    """On torch's meta device nothing can be read back, so a launch that succeeds there never waits for a device.

    Attention goes through scaled_dot_product_attention, in full context without a mask, as its flash kernel needs.
    """
    encoder = open_encoder(ModelSpec(str(small_whisper), context=context))
    encoder.load("meta", "bf16")
    masks: list[bool] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.nn.functional.scaled_dot_product_attention:
                masks.append(kwargs.get("attn_mask") is not None)
            return func(*args, **(kwargs or {}))

    layers = [0, len(encoder.info.layers) - 1]
    poolings = ("mean", "mean-all", "std", "max", "first")
    forward = Forward(encoder, layers, poolings, Settings("meta", 120.0, 1), needs_frames=True)
    with Watch():
        forward.start([np.zeros(seconds * RATE, np.float32) for seconds in (1, 5, 2)], ["a", "b", "c"])
    assert masks == [context == "trimmed"] * (len(encoder.info.layers) - 1)


def test_values_that_are_not_finite_name_the_clip(tmp_path: Path) -> None:
    class Broken(SpectrumEncoder):
        def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
            encoded = super().encode(waveforms, lengths, layers)
            encoded.frames[:] = np.nan
            return encoded

    with pytest.raises(EncoderError, match=r"clip\d+: the encoder returned NaN"):
        run(tones(5), tmp_path, Broken())


def test_unreadable_clips_are_listed_and_the_rest_is_kept(tmp_path: Path) -> None:
    clips = tones(12)
    good = tmp_path / "good.wav"
    soundfile.write(good, np.random.default_rng(0).standard_normal(8000) * 0.1, RATE)
    bad = tmp_path / "bad.wav"
    bad.write_bytes(good.read_bytes()[:20])
    clips += [Clip(path.name, AudioFile(path), "0", split="train") for path in (good, bad, tmp_path / "none.wav")]
    plan, done = run(clips, tmp_path / "cache", SpectrumEncoder())
    assert done.encoded == 13
    assert [name for name in ("bad.wav", "none.wav") if any(name in line for line in plan.task.table.unreadable)] == [
        "bad.wav",
        "none.wav",
    ]


def test_a_clip_that_changes_under_the_run_is_not_stored_under_the_old_key(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(8000) + 0.1, RATE)
    encoder = SpectrumEncoder()
    encoder.load("cpu", "fp32")
    plan = plan_for([Clip("clip", AudioFile(path), "0", split="train")], tmp_path / "cache", encoder)
    soundfile.write(path, np.zeros(8000) - 0.1, RATE)
    done = extract(plan, encoder, SETTINGS, lambda rows: None)
    assert done.encoded == 0
    assert "changed while the run went on" in str(done.unreadable[0])


def test_a_task_without_a_readable_clip_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clip that can be read"):
        scan_task(CARD, [Clip("x", AudioFile(tmp_path / "x.wav"), "0", split="test")], "made", (), tmp_path, None)


def test_forecast_is_near_what_is_written(tmp_path: Path) -> None:
    plan, _ = run(tones(200), tmp_path, SpectrumEncoder())
    written = sum(path.stat().st_size for path in (plan.store.folder / "tones").glob("*.arrow"))
    assert written == pytest.approx(plan.forecast_bytes(), rel=0.05)


def test_limit_takes_labels_in_turn_from_every_split(tmp_path: Path) -> None:
    task = scan_task(CARD, tones(60), "made", (), tmp_path, 4)
    splits = list(zip(task.table.splits, task.table.labels, strict=True))
    assert task.table.limited
    assert {pair: splits.count(pair) for pair in splits} == {
        ("train", "0"): 2,
        ("train", "1"): 2,
        ("test", "0"): 2,
        ("test", "1"): 2,
    }


def test_batches_stay_under_the_budget_with_padding_counted() -> None:
    info = SpectrumEncoder(context_s=1.0).info
    durations = sorted(np.random.default_rng(1).uniform(0.1, 2.5, 100).tolist())
    batches = list(cut_batches(range(100), durations, info, 5.0))
    assert [row for batch in batches for row in batch] == list(range(100))
    for batch in batches:
        windows = sum(int(np.ceil(durations[row])) for row in batch)
        longest = max(min(durations[row], 1.0) for row in batch)
        assert len(batch) == 1 or windows * longest <= 5.0


@pytest.mark.parametrize(("text", "found"), [("last", [1]), ("all", [0, 1]), ("log,0", [0, 1]), ("-2", [0])])
def test_layers_by_name_and_number(text: str, found: list[int]) -> None:
    assert layer_indices(SpectrumEncoder().info, text) == found


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(UsageError, match="has no layer 'middle'; use last, all, or some of magnitude, log"):
        layer_indices(SpectrumEncoder().info, "middle")


FRAME_CARD = CARD.model_copy(update={"name": "moments", "kind": "frame-multi-label", "segment_s": 1.0})


def run_frames(clips: list[Clip], cache: Path, encoder: SpectrumEncoder) -> tuple[Plan, Extraction]:
    record = describe_encoder(encoder.info)
    plan = make_plan(scan_task(FRAME_CARD, clips, "made", (), cache, None), record, cache)
    encoder.load("cpu", "fp32")
    return plan, extract(plan, encoder, SETTINGS, lambda rows: None)


def long_file(path: Path, seconds: float = 320.0) -> np.ndarray:
    """Write a clip of several minutes at another rate, two channels, and return it as it is decoded in one piece."""
    rng = np.random.default_rng(1)
    soundfile.write(path, rng.uniform(-0.5, 0.5, (int(seconds * 22_050), 2)), 22_050, subtype="PCM_16")
    return decode(AudioFile(path), RATE)


def test_a_long_clip_is_read_in_windows_and_gives_the_vectors_of_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    samples = long_file(path)
    clips = [*tones(9), Clip("long", AudioFile(path), "0", split="train")]
    encoder = SpectrumEncoder(context_s=1.5)
    plan, done = run(clips, tmp_path / "cache", encoder)
    vector = plan.store.open_task("tones", [plan.task.table.keys[9]]).pooled()[0]
    np.testing.assert_allclose(vector, reference(samples, round(1.5 * RATE)), rtol=2e-5, atol=1e-6)
    frames, chunks = plan.store.open_task("tones", [plan.task.table.keys[9]]).counts()
    assert chunks.tolist() == [-(-len(samples) // round(1.5 * RATE))]
    assert frames.tolist() == [-(-len(samples) // 320)]
    assert done.encoded == 10
    assert done.audio_s == pytest.approx(sum(plan.task.table.durations_s), abs=0.01)


def test_frames_of_short_and_long_clips_are_those_of_the_encoder(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    samples = {9: long_file(path)}
    clips = [*tones(9), Clip("long", AudioFile(path), "0", split="train")]
    clips = [replace(clip, labels=()) for clip in clips]
    for index, clip in enumerate(clips[:9]):
        assert isinstance(clip.audio, AudioArray)
        samples[index] = clip.audio.samples
    plan, _ = run_frames(clips, tmp_path / "cache", SpectrumEncoder(context_s=1.5))
    rows = plan.store.open_task("moments", plan.task.table.keys, needs_frames=True).frames()
    for index in range(10):
        pieces = [samples[index][i : i + round(1.5 * RATE)] for i in range(0, len(samples[index]), round(1.5 * RATE))]
        padded = [np.pad(piece, (0, -len(piece) % 320)).reshape(-1, 320) for piece in pieces]
        expected = np.log1p(np.abs(np.fft.rfft(np.concatenate(padded), axis=1)))
        found = rows[int(rows.offsets[index]) : int(rows.offsets[index + 1])]
        np.testing.assert_allclose(found.astype(np.float64), expected, rtol=1e-3, atol=1e-3)
    assert [path.name for path in (plan.store.folder / "moments").iterdir() if path.name.startswith(".")] == []


def test_a_long_clip_that_breaks_off_is_listed_and_leaves_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 320 * RATE), RATE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    with pytest.raises(AudioError):
        decode(AudioFile(path), RATE)
    clips = [*tones(5), Clip("long", AudioFile(path), "0", split="train"), *tones(3, seed=2)]
    clips = [replace(clip, id=str(index), labels=()) for index, clip in enumerate(clips)]
    plan, done = run_frames(clips, tmp_path / "cache", SpectrumEncoder(context_s=30.0))
    assert [str(path) in str(error) for error in done.unreadable] == [True]
    kept = [key for index, key in enumerate(plan.task.table.keys) if index != 5]
    rows = plan.store.open_task("moments", kept, needs_frames=True).frames()
    frames, _ = plan.store.open_task("moments", kept).counts()
    np.testing.assert_array_equal(np.diff(rows.offsets), frames)


def test_windows_are_the_pieces_of_the_whole(shared_data: Path) -> None:
    """Real Ogg and MP3, at other rates than asked for, cut at every kind of place."""
    files = (
        sorted((shared_data / "esc10").rglob("*.ogg"))[:2] + sorted((shared_data / "philharmonia").rglob("*.mp3"))[:2]
    )
    for path in files:
        for window in (997, 16_000, 10**7):
            found = list(decode_windows(AudioFile(path), RATE, window, start_s=0.11))
            expected = chunks(decode(AudioFile(path), RATE, start_s=0.11), window)
            assert [len(piece) for piece in found] == [len(piece) for piece in expected]
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("count", "what"), [(0, "valid frames of"), (10**6, "valid frames of")])
def test_impossible_counts_are_an_encoder_error(tmp_path: Path, count: int, what: str) -> None:
    class Wrong(SpectrumEncoder):
        def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
            encoded = super().encode(waveforms, lengths, layers)
            return replace(encoded, valid=torch.full_like(encoded.valid, count))

    with pytest.raises(EncoderError, match=what):
        run(tones(5), tmp_path, Wrong())


def test_unrequested_layers_are_an_encoder_error(tmp_path: Path) -> None:
    class Wrong(SpectrumEncoder):
        def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
            encoded = super().encode(waveforms, lengths, layers)
            return replace(encoded, frames=encoded.frames[:, :1])

    with pytest.raises(EncoderError, match="returned frames of shape"):
        run(tones(5), tmp_path, Wrong())


def test_an_unknown_engine_is_refused(uwbench: Command) -> None:
    done = uwbench("extract", "-m", "logmel", "-t", "esc50", "--engine", "spark")
    assert done.code == 2
    assert "'spark' is not one of 'local', 'ray'" in done.err
