"""The conformance check: measure an encoder's hop, independence of batch mates, determinism and speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uwbench.audio.decode import samples_in
from uwbench.encoders.base import Encoded, Encoder, EncoderInfo
from uwbench.errors import EncoderError

if TYPE_CHECKING:
    import torch

BATCH_TOLERANCE = 1e-4  # relative change of a clip's mean vector, in float32
INPUT_TOLERANCE = 1e-3  # relative difference of input features on one clip
HOP_TOLERANCE = 0.025  # relative; frame counts are integers, and an encoder may drop one at an edge
_LONGEST_S = 4.3


@dataclass(frozen=True, slots=True)
class Conformance:
    """Measurements of one encoder; `problems` lists each breach of the contract in one sentence."""

    model: str
    hop_seconds: float  # measured, between two frames; 0: their number does not grow with the clip
    batch_deviation: float  # largest relative difference between a clip's mean vector alone and in a full batch
    deterministic: bool  # whether the same clips gave the same frames twice
    clips_per_second: float  # in the batches that the encoder allows
    problems: tuple[str, ...]
    audio: str  # the audio it was measured on, in words
    info: EncoderInfo  # as the encoder declares itself

    def to_json(self) -> dict[str, Any]:
        """Return the measurements as `models check --json` prints them."""
        fields = {field: getattr(self, field) for field in self.__dataclass_fields__ if field != "info"}
        return fields | {"problems": list(self.problems)}


def check_encoder(
    encoder: Encoder,
    *,
    clips: Sequence[np.ndarray] | None = None,
    device: str = "cpu",
    dtype: str = "fp32",
    audio: str = "chirps in noise",
) -> Conformance:
    """Load the encoder and measure it on `clips`, float32 `(samples,)` at its rate, or on chirps in noise.

    Digital silence at the beginning of a clip is left out.

    `batch_deviation` is the largest relative difference, over clips and layers, between a clip's mean vector alone and
    in the fullest batch that the encoder's `batching` allows. Errors from loading and encoding propagate.
    """
    info = encoder.info
    encoder.load(device, dtype)
    # Always four lengths: the hop is the slope over them.
    counts = _lengths(info)
    source = [_chirp(info.sample_rate, count) for count in counts] if clips is None else _audible(clips, info)
    cut = [np.resize(source[i % len(source)], count).astype(np.float32) for i, count in enumerate(counts)]
    alone = [_run(encoder, [clip], device) for clip in cut]
    again = [_run(encoder, [clip], device) for clip in cut]
    started = time.perf_counter()
    together = _batched(encoder, cut, device)
    seconds = time.perf_counter() - started

    problems = _broken(info, alone)
    frames = [int(encoded.valid[0]) for encoded in alone]
    hop = _slope(counts, frames, info.sample_rate)
    if info.hop_s == 0:
        if set(frames) != {1}:
            problems.append(f"declares one frame per clip (hop_s 0) but returns {max(frames)} for the longest")
    elif hop <= 0:
        advice = "; declare hop_s=0 if it gives one vector per clip" if set(frames) == {1} else ""
        problems.append(f"the number of valid frames does not grow with the length of the clip{advice}")
    elif abs(hop - info.hop_s) > HOP_TOLERANCE * info.hop_s:
        problems.append(f"declares one frame per {info.hop_s * 1000:g} ms but returns one per {hop * 1000:.4g} ms")
    deterministic = all(bool((a.frames == b.frames).all()) for a, b in zip(alone, again, strict=True))
    if not deterministic:
        problems.append("returns different frames for the same clip")
    deviation = max(_difference(_means(a)[0], b) for a, b in zip(alone, together, strict=True))
    tolerance = BATCH_TOLERANCE if dtype == "fp32" else 100 * BATCH_TOLERANCE
    if not deviation <= tolerance:
        problems.append(f"a clip's vector changes by {deviation:.2g} with its batch mates; declare another batching")
    measure = getattr(encoder, "input_deviation", None)
    features = measure(cut) if measure else 0.0
    if not features <= INPUT_TOLERANCE:
        problems.append(f"its input differs by {features:.2g} from that of the checkpoint's own feature extractor")
    speed = len(cut) / seconds
    return Conformance(info.name, hop, deviation, deterministic, speed, tuple(problems), audio, info)


def _audible(clips: Sequence[np.ndarray], info: EncoderInfo) -> list[np.ndarray]:
    """Return clips without the digital silence they begin with; raise EncoderError if nothing is left.

    The features of silence alone are rounding errors, of which no two computations agree.
    """
    trimmed = [np.trim_zeros(clip, "f") for clip in clips]
    audible = [clip for clip in trimmed if len(clip)]
    if not audible:
        raise EncoderError(
            "cannot be checked: every clip is digital silence", where=info.name, remedy="give another task"
        )
    return audible


def _batched(encoder: Encoder, clips: Sequence[np.ndarray], device: str) -> list[torch.Tensor]:
    """Return each clip's mean vectors from the fullest batch that its encoder allows."""
    batching = encoder.info.batching
    if batching == "padded":
        return list(_means(_run(encoder, clips, device)))
    if batching == "single":
        return [_means(_run(encoder, [clip], device))[0] for clip in clips]
    # A mate of the same length with other content.
    return [_means(_run(encoder, [clip, clip[::-1].copy()], device))[0] for clip in clips]


def _run(encoder: Encoder, clips: Sequence[np.ndarray], device: str) -> Any:
    import torch

    width = max(samples_in(encoder.info.min_s, encoder.info.sample_rate), *(len(clip) for clip in clips))
    waveforms = torch.zeros(len(clips), width)
    for row, clip in enumerate(clips):
        waveforms[row, : len(clip)] = torch.from_numpy(clip)
    inputs = {"waveforms": waveforms, "lengths": torch.tensor([len(clip) for clip in clips])}
    placed = [t if name in encoder.info.host_inputs else t.to(device) for name, t in inputs.items()]
    with torch.inference_mode():
        encoded = encoder.encode(placed[0], placed[1], range(len(encoder.info.layers)))
    return Encoded(encoded.frames, encoded.valid.to(encoded.frames.device))


def _means(encoded: Any) -> torch.Tensor:
    import torch

    frames = encoded.frames.double()
    inside = torch.arange(frames.shape[2], device=frames.device) < encoded.valid[:, None]
    valid_frames = frames.masked_fill(~inside[:, None, :, None], 0.0)
    return valid_frames.sum(2) / encoded.valid[:, None, None]


def _difference(expected: torch.Tensor, actual: torch.Tensor) -> float:
    return float(((expected - actual).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-12)).max())


def _lengths(info: EncoderInfo) -> list[int]:
    """Return four lengths in samples, whole declared hops apart: if the declaration is true, the slope is exact."""
    # Shorter than the context, because some encoders drop its last frame.
    longest = min(_LONGEST_S, 0.9 * (info.context_s or _LONGEST_S))
    first = max(info.min_s, longest / 4)
    hop = info.hop_s or 1 / info.sample_rate
    steps = [int((longest * share - first) / hop) for share in (0.45, 0.7, 1.0)]
    return [round((first + step * hop) * info.sample_rate) for step in (0, *steps)]


def _slope(samples: Sequence[int], frames: Sequence[int], rate: int) -> float:
    slope = 0.0 if len(set(frames)) == 1 else float(np.polyfit(samples, frames, 1)[0])
    return 1.0 / (slope * rate) if slope > 0 else 0.0


def _broken(info: EncoderInfo, encoded: Sequence[Any]) -> list[str]:
    problems = []
    for result in encoded:
        batch, layers, count, dim = result.frames.shape
        if (batch, layers, dim) != (1, len(info.layers), info.dim):
            problems.append(f"returns {layers} layers of {dim} values but declares {len(info.layers)} of {info.dim}")
        if not 1 <= int(result.valid[0]) <= count:
            problems.append(f"calls {int(result.valid[0])} of {count} frames valid")
        if not bool(result.frames.isfinite().all()):
            problems.append("returns NaN or infinite values")
    return list(dict.fromkeys(problems))


def _chirp(rate: int, samples: int) -> np.ndarray:
    times = np.arange(samples) / rate
    noise = np.random.default_rng(samples).normal(0.0, 0.02, samples)
    return (0.3 * np.sin(2 * np.pi * (200.0 + 300.0 * times) * times) + noise).astype(np.float32)
