"""Time of extraction relative to the encoder's bare forward pass, and to the same work done as X-ARES does it.

    python benchmarks/extraction.py                    about four minutes on two cores
    python benchmarks/extraction.py --quick            a few clips

The clips are five-second Ogg files at 44.1 kHz; the encoder has the shape of Whisper tiny.en. The bare forward runs
over the batches that extraction makes of them, decoded, padded and turned to mel beforehand, before and after the run
it is compared with. `--data` and `--model` take real ones.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from machine import print_machine, seconds
from made import audio_files, look, no_progress, random_whisper
from uwbench.audio.decode import decode
from uwbench.encoders.base import ModelSpec
from uwbench.encoders.resolve import open_encoder
from uwbench.extraction.batching import cut_batches
from uwbench.extraction.extract import extract, settings_for
from uwbench.extraction.forward import Settings
from uwbench.extraction.identity import describe_encoder
from uwbench.extraction.plan import Plan, make_plan
from uwbench.extraction.task import Task

XARES_BATCH = 16  # clips per batch in X-ARES 0.1.3


@dataclass(frozen=True, slots=True)
class Work:
    """Scanned clips, the model's folder, and a scratch folder."""

    task: Task
    model: Path
    scratch: Path
    settings: Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with audio files; default: clips are generated")
    parser.add_argument("--model", type=Path, help="folder of a Whisper checkpoint; default: random weights")
    parser.add_argument("--clips", type=int, default=160, help="clips in full context; trimmed takes up to three times")
    parser.add_argument("--quick", action="store_true", help="24 clips, 96 trimmed")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    clips = 24 if options.quick else options.clips
    torch.set_num_threads(options.threads)
    print_machine("torch", "transformers", "soundfile", "soxr", threads=options.threads)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        files = audio_files(options.data, scratch, (4 if options.quick else 3) * clips)
        model = options.model or random_whisper(scratch / "whisper")
        settings = settings_for("cpu", None, options.workers)
        for context, taken in (("full", files[:clips]), ("trimmed", files)):
            work = Work(look(taken, scratch / context), model, scratch / context, settings)
            compare(work, context)
            if context == "full":
                compare_xares(work)


def compare(work: Work, context: str) -> None:
    """Print extraction against the bare forward over the same prepared batches."""
    encoder, plan = planned(work, context, "warm")
    encoder.load("cpu", "fp32")
    batches = list(prepared(encoder, plan, work.settings))
    bare(encoder, batches[:1])
    before = seconds(lambda: bare(encoder, batches))
    _, plan = planned(work, context, "timed")
    ours = seconds(lambda: extract(plan, encoder, work.settings, no_progress))
    after = seconds(lambda: bare(encoder, batches))
    forward, count = (before + after) / 2, len(work.task.clips)
    print(f"{context} context, {count} clips: extraction {ours:.2f} s, bare forward {forward:.2f} s ", end="")
    print(f"({before:.2f} before, {after:.2f} after), ratio {ours / forward:.3f}", flush=True)


def planned(work: Work, context: Any, cache: str) -> tuple[Any, Plan]:
    encoder = open_encoder(ModelSpec(str(work.model), context=context))
    return encoder, make_plan(work.task, describe_encoder(encoder.info), work.scratch / cache)


def prepared(encoder: Any, plan: Plan, settings: Settings) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield waveforms, lengths and mel of each batch that extraction makes."""
    table = plan.task.table
    for part in plan.parts:
        for rows in cut_batches(part.rows, table.durations_s, encoder.info, settings.batch_seconds):
            clips = [decode(plan.task.clips[row].audio, encoder.info.sample_rate) for row in rows]
            waveforms = torch.zeros(len(clips), max(map(len, clips)))
            for row, clip in enumerate(clips):
                waveforms[row, : len(clip)] = torch.from_numpy(clip)
            with torch.inference_mode():
                yield waveforms, torch.tensor([len(clip) for clip in clips]), encoder.log_mel(waveforms)


def bare(encoder: Any, batches: list[tuple[torch.Tensor, ...]]) -> None:
    """Run the encoder over prepared batches, its mel taken from them."""
    log_mel, last = encoder.log_mel, len(encoder.info.layers) - 1
    try:
        for waveforms, lengths, mel in batches:
            encoder.log_mel = lambda _, mel=mel: mel
            with torch.inference_mode():
                encoder.encode(waveforms, lengths, [last])
    finally:
        encoder.log_mel = log_mel


def compare_xares(work: Work) -> None:
    """Print extraction, in full context, against one process that does as X-ARES 0.1.3 does."""
    encoder, plan = planned(work, "full", "against xares")
    encoder.load("cpu", "fp32")
    ours = seconds(lambda: extract(plan, encoder, work.settings, no_progress))
    packed, out = work.scratch / "clips.tar", work.scratch / "frames.tar"
    pack(work.task, packed)
    theirs = seconds(lambda: xares_way(work.model, packed, out))
    stored = sum(path.stat().st_size for path in (plan.store.folder / "clips").glob("*.arrow"))
    print(f"X-ARES's way, {len(work.task.clips)} clips: {theirs:.2f} s, ours {ours:.2f} s, ", end="")
    print(f"ratio {ours / theirs:.3f}; on disk {out.stat().st_size / 1e6:.0f} MB, ours {stored / 1e6:.1f} MB")


def pack(task: Task, path: Path) -> None:
    """Write the clips as 16 kHz WAV into a tar, as X-ARES's datasets come."""
    with tarfile.open(path, "w") as tar:
        for clip in task.clips:
            held = io.BytesIO()
            soundfile.write(held, decode(clip.audio, 16_000), 16_000, format="WAV")
            add(tar, f"{Path(clip.id).stem}.wav", held.getvalue())


def xares_way(model: Path, packed: Path, out: Path) -> None:
    """Encode a tar of clips in one process and save every frame, padding included, float32, as npy in a tar."""
    from transformers import WhisperFeatureExtractor, WhisperModel

    extractor = WhisperFeatureExtractor()
    encoder = WhisperModel.from_pretrained(model).get_encoder().eval()
    names: list[str] = []
    clips: list[np.ndarray] = []
    with tarfile.open(packed) as source, tarfile.open(out, "w") as target:

        def flush() -> None:
            inputs = extractor(clips, sampling_rate=16_000, return_tensors="pt")["input_features"]
            with torch.inference_mode():
                frames = encoder(inputs).last_hidden_state.numpy()
            for name, values in zip(names, frames, strict=True):
                held = io.BytesIO()
                np.save(held, values)
                add(target, f"{name}.npy", held.getvalue())
            names.clear()
            clips.clear()

        for member in source:
            file = source.extractfile(member)
            assert file is not None
            names.append(Path(member.name).stem)
            clips.append(soundfile.read(io.BytesIO(file.read()), dtype="float32")[0])
            if len(clips) == XARES_BATCH:
                flush()
        if clips:
            flush()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    main()
