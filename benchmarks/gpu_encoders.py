"""Part of `gpu.py`: encoders of true shapes with random weights, their bare forward pass and extraction.

The bare forward pass has its input features on the device already; extraction decodes clips of five seconds from WAV
files at 44.1 kHz and writes the cache. FLOP are counted by torch on the meta device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gpu_part import Part, part

RATE, CLIP_S = 44_100, 5.0
SECONDS = 5.0  # of each measurement


@dataclass(frozen=True, slots=True)
class Shape:
    """An encoder to measure: how to write its checkpoint, and which context its clips get."""

    name: str
    write: Callable[[Path, bool], None]
    context: Literal["full", "trimmed"] = "full"


def main() -> None:
    this, options = part(__doc__, group=["whisper", "others"])
    import torch

    if not this.cuda:
        torch.set_num_threads(1)
    dtypes = ("bf16", "fp32")
    peaks = {dtype: this.peak_flops(dtype) for dtype in dtypes}
    for dtype, peak in peaks.items():
        this.record("peak", dtype=dtype, tflops=peak / 1e12)
    folders: dict[str, Path] = {}
    for shape in GROUPS[options.group]:
        try:
            if shape.name not in folders:
                folders[shape.name] = this.scratch / shape.name
                folders[shape.name].mkdir()
                with torch.device(this.device):
                    shape.write(folders[shape.name], this.tiny)
            for dtype in dtypes:
                measure(this, shape, folders[shape.name], dtype, peaks[dtype])
        except (ImportError, RuntimeError, ValueError) as error:
            this.record("failed", name=shape.name, context=shape.context, reason=str(error)[:600])


def measure(this: Part, shape: Shape, folder: Path, dtype: str, peak: float) -> None:
    """Record the bare forward pass, then extraction, of one shape in one precision."""
    from uwbench.encoders.base import ModelSpec
    from uwbench.encoders.resolve import open_encoder
    from uwbench.extraction.extract import settings_for

    encoder: Any = open_encoder(ModelSpec(str(folder), context=shape.context))
    flop = flop_of_a_clip(encoder)
    encoder.load(this.device, dtype)
    settings = settings_for(this.device, 20.0 if this.tiny else None, None)
    cost_s = max(encoder.info.forward_s, CLIP_S)
    batch = max(1, int(settings.batch_seconds / cost_s))
    bare, batch = largest(this, lambda size: bare_forward(this, encoder, size), batch)
    clips_s = batch * this.rate(bare, 0.2 if this.tiny else SECONDS)
    facts = {"name": shape.name, "context": shape.context, "dtype": dtype}
    utilised = {"tflop_a_clip": flop / 1e12, "mfu": clips_s * flop / peak}
    this.record("bare forward", **facts, clips_s=clips_s, batch=batch, **utilised)
    if hasattr(encoder, "log_mel"):
        waveforms = noise(this, encoder, batch)
        mels_s = batch * this.rate(inference(lambda: encoder.log_mel(waveforms)), 0.05 if this.tiny else 0.5)
        this.record("mel", **facts, clips_s=mels_s, of_bare_forward=clips_s / mels_s)
    count = 12 if this.tiny else int(min(8192, max(64, clips_s * SECONDS)))
    extracted = extraction(this, encoder, settings, f"{shape.name}-{shape.context}-{dtype}", count)
    share = extracted["clips_s"] / clips_s
    this.record("extraction", **facts, **extracted, of_bare_forward=share, mfu=extracted["clips_s"] * flop / peak)


def largest(this: Part, make: Callable[[int], Callable[[], object]], batch: int) -> tuple[Callable[[], object], int]:
    """Return the forward pass of the largest batch, from `batch` down by halves, that fits."""
    import torch

    from uwbench.extraction.forward import out_of_memory

    while True:
        try:
            work = make(batch)
            work()
            return work, batch
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not out_of_memory(error):
                raise
        batch //= 2
        if this.cuda:
            torch.cuda.empty_cache()


def noise(this: Part, encoder: Any, batch: int) -> Any:
    import torch

    samples = round(CLIP_S * encoder.info.sample_rate)
    return 0.1 * torch.randn(batch, samples, device=this.device)


def bare_forward(this: Part, encoder: Any, batch: int) -> Callable[[], object]:
    """Return one forward pass over a batch whose features are on the device."""
    import torch

    waveforms, last = noise(this, encoder, batch), [len(encoder.info.layers) - 1]
    lengths = torch.full((batch,), waveforms.shape[1])
    with torch.inference_mode():
        if encoder.info.family == "audio-spectrogram-transformer":
            settings = encoder._model.config
            size = (batch, settings.max_length, settings.num_mel_bins)
            spectra = torch.randn(size, device=this.device, dtype=encoder._model.dtype)
            return inference(lambda: encoder._model(spectra))
        if not hasattr(encoder, "log_mel"):
            return inference(lambda: encoder.encode(waveforms, lengths, last))
        mel, log_mel = encoder.log_mel(waveforms), encoder.log_mel

    def forward() -> None:
        encoder.log_mel = lambda _: mel
        try:
            encoder.encode(waveforms, lengths, last)
        finally:
            encoder.log_mel = log_mel

    return inference(forward)


def inference(work: Callable[[], object]) -> Callable[[], object]:
    import torch

    return torch.inference_mode()(work)


def flop_of_a_clip(encoder: Any) -> float:
    """Return the FLOP of one clip, counted over a forward pass on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    encoder.load("meta", "fp32")
    waveforms = torch.zeros(1, round(CLIP_S * encoder.info.sample_rate))
    if "waveforms" not in encoder.info.host_inputs:
        waveforms = waveforms.to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder.encode(waveforms, torch.tensor([waveforms.shape[1]]), [len(encoder.info.layers) - 1])
    return float(counter.get_total_flops())


def extraction(this: Part, encoder: Any, settings: Any, name: str, count: int) -> dict[str, Any]:
    """Extract `count` clips into a cache of their own and return clips per second and the cores that decoding took."""
    from made import look, no_progress
    from uwbench.extraction.extract import extract
    from uwbench.extraction.identity import describe_encoder
    from uwbench.extraction.plan import make_plan

    cache = this.scratch / f"cache-{name}"
    cache.mkdir()
    plan = make_plan(look(clip_files(this, count), cache), describe_encoder(encoder.info), cache)
    wall, cpu, own = time.perf_counter(), time.process_time(), time.thread_time()
    encoded = extract(plan, encoder, settings, no_progress).encoded
    wall = time.perf_counter() - wall
    others = time.process_time() - cpu - (time.thread_time() - own)
    memory = {}
    if this.cuda:
        import torch

        memory["peak_gb"] = torch.cuda.max_memory_allocated(this.device) / 1e9
        torch.cuda.reset_peak_memory_stats(this.device)
    return {"clips": encoded, "clips_s": encoded / wall, "decode_cores": others / wall, **memory}


def clip_files(this: Part, count: int) -> list[Path]:
    """Return `count` WAV files of noise, no two alike."""
    folder = this.scratch / "clips"
    folder.mkdir(exist_ok=True)
    size = round(CLIP_S * RATE)
    samples = (3000 * np.random.default_rng(0).standard_normal(size)).astype("<i2")
    header = b"RIFF" + (36 + 2 * size).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    header += b"\x01\x00\x01\x00" + RATE.to_bytes(4, "little") + (2 * RATE).to_bytes(4, "little")
    header += b"\x02\x00\x10\x00data" + (2 * size).to_bytes(4, "little")
    files = [folder / f"{index:06d}.wav" for index in range(count)]
    for index, file in enumerate(files):
        if not file.exists():
            file.write_bytes(header + np.roll(samples, index).tobytes())
    return files


def save(model: Any, folder: Path) -> None:
    """Save a model in bf16, which halves what is written and read."""
    model.bfloat16().save_pretrained(folder)


def write_whisper(folder: Path, tiny: bool) -> None:
    """Write Whisper large-v3's encoder, beside a decoder of one small layer."""
    from transformers import WhisperConfig, WhisperModel

    width, layers, heads = (64, 2, 2) if tiny else (1280, 32, 20)
    config = WhisperConfig(
        num_mel_bins=128,
        d_model=width,
        encoder_layers=layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_layers=1,
        decoder_ffn_dim=64,
        decoder_attention_heads=heads,
        vocab_size=64,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        decoder_start_token_id=0,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    save(WhisperModel(config), folder)
    settings = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def write_wav2vec2(folder: Path, tiny: bool) -> None:
    """Write wav2vec 2.0 large with layer norms, as XLS-R 300M has them."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    width, layers, heads = (64, 2, 2) if tiny else (1024, 24, 16)
    config = Wav2Vec2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_dim=(32,) * 7 if tiny else (512,) * 7,
    )
    save(Wav2Vec2Model(config), folder)


def write_ast(folder: Path, tiny: bool) -> None:
    """Write the Audio Spectrogram Transformer's base."""
    from transformers import ASTConfig, ASTModel

    width, layers, heads = (64, 2, 2) if tiny else (768, 12, 12)
    config = ASTConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width
    )
    save(ASTModel(config), folder)
    settings = {"feature_extractor_type": "ASTFeatureExtractor", "max_length": 1024, "num_mel_bins": 128}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def write_qwen(folder: Path, tiny: bool) -> None:
    """Write Qwen2-Audio's tower alone."""
    from transformers import Qwen2AudioEncoder, Qwen2AudioEncoderConfig

    width, layers, heads = (64, 2, 2) if tiny else (1280, 32, 20)
    config = Qwen2AudioEncoderConfig(
        num_mel_bins=128,
        d_model=width,
        encoder_layers=layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        max_source_positions=1500,
    )
    save(Qwen2AudioEncoder(config), folder)


GROUPS = {
    "whisper": (Shape("whisper-large-v3", write_whisper), Shape("whisper-large-v3", write_whisper, "trimmed")),
    "others": (
        Shape("wav2vec2-large", write_wav2vec2),
        Shape("ast-base", write_ast),
        Shape("qwen2-audio-tower", write_qwen),
    ),
}


if __name__ == "__main__":
    main()
