"""Corrupted audio: noise, reverberation, codecs, a lost band and another level, drawn by a clip's content.

A clip is corrupted at its own sampling rate, so every encoder hears the same audio. The random numbers depend on the
clip's key and on the kind of corruption alone: neither on its level, nor on other clips, nor on the process.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
import soundfile
import soxr

from uwbench.audio.corruption import Corruption

_FRAME_S, _ACTIVE_DB = 0.025, 40.0  # a frame is active if its power is within so much of the loudest frame's
_FLATTENS_HZ = 20.0  # below this, coloured noise is flat: brown noise would be rumble alone
_EXPONENTS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # the power falls with the frequency to this exponent
# Seconds to -60 dB, direct to reverberant energy in dB, seconds to the first reflection.
_ROOMS = {"small": (0.3, 6.0, 0.002), "medium": (0.6, 3.0, 0.005), "large": (1.2, 0.0, 0.01)}
_MP3_RATES, _MP3_DELAY = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000), 576 + 529  # encoder's and decoder's samples
_MP3_KBPS = {False: (160, 8), True: (320, 32)}  # libsndfile's range: MPEG-2 below 32 kHz, MPEG-1 from there on
_OPUS_RATES, _OPUS_KBPS = (8_000, 12_000, 16_000, 24_000, 48_000), (256, 6)
_VORBIS_RATES = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000)
_SHORTEST_S = 0.1  # shorter clips are padded for the encoder


def corrupt(samples: np.ndarray, rate: int, corruption: Corruption, clip_key: bytes) -> np.ndarray:
    """Return samples corrupted: float32 `(samples,)` at `rate` Hz, as long as the input and aligned with it.

    `clip_key` is the key of the clean clip. Samples are limited to +-1 after `gain`, as a converter does, and before a
    codec; the others may exceed it.
    """
    rng = _random(clip_key, corruption.kind, corruption.variant)
    match corruption.kind:
        case "noise":
            corrupted = _with_noise(samples, rate, corruption.variant or "white", corruption.amount, rng)
        case "reverb":
            from scipy.signal import oaconvolve

            corrupted = oaconvolve(samples, room_response(corruption.variant, rate, rng))
        case "codec":
            corrupted = _through_codec(samples, rate, corruption.variant)
        case "band":
            corrupted = _resampled_twice(samples, rate, round(2000 * corruption.amount))
        case _:
            corrupted = np.clip(samples * 10 ** (corruption.amount / 20), -1, 1)
    return _of_length(corrupted, len(samples))


def active_rms(samples: np.ndarray, rate: int) -> float:
    """Return the root mean square of a clip's active part; 0 for a clip of zeros.

    The active part is all frames of 25 ms whose power is within 40 dB of the loudest frame's, so that digital silence
    around a sound does not lower its level.
    """
    size = max(1, round(_FRAME_S * rate))
    whole = samples[: len(samples) // size * size] if len(samples) >= size else samples
    frames = whole.reshape(-1, min(size, len(whole))).astype(np.float64)
    powers = (frames * frames).mean(axis=1)
    return float(np.sqrt(powers[powers >= powers.max() * 10 ** (-_ACTIVE_DB / 10)].mean()))


def room_response(room: str, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return a synthetic room response `(samples,)` of energy 1 whose first sample is the direct path.

    The reverberation is Gaussian noise that decays by 60 dB in the room's time (Polack's model, 1988).
    """
    seconds, direct_db, first_s = _ROOMS[room]
    times = np.arange(1, round(seconds * rate)) / rate
    tail = rng.standard_normal(len(times)) * 10 ** (-3 * times / seconds) * (times >= first_s)
    tail *= np.sqrt(10 ** (-direct_db / 10) / (tail * tail).sum())
    response = np.append(1.0, tail)
    return response / np.sqrt((response * response).sum())


def coloured_noise(colour: str, count: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise `(count,)` of root mean square 1 whose power falls with the frequency (white: not at all)."""
    noise = rng.standard_normal(count)
    if _EXPONENTS[colour]:
        frequencies = np.maximum(np.fft.rfftfreq(count, 1 / rate), _FLATTENS_HZ)
        noise = np.fft.irfft(np.fft.rfft(noise) * frequencies ** (-_EXPONENTS[colour] / 2), count)
    return noise / np.sqrt((noise * noise).mean())


def _with_noise(samples: np.ndarray, rate: int, colour: str, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    level = active_rms(samples, rate) * 10 ** (-snr_db / 20)
    return samples + level * coloured_noise(colour, len(samples), rate, rng)


def _through_codec(samples: np.ndarray, rate: int, codec: str) -> np.ndarray:
    """Encode and decode in memory, at the codec's nearest rate that is no lower; delays are taken out."""
    family, _, setting = codec.partition("-")
    value = float(setting.strip("kq"))
    rates = {"mp3": _MP3_RATES, "opus": _OPUS_RATES, "vorbis": _VORBIS_RATES}[family]
    of_codec = next((known for known in rates if known >= rate), rates[-1])
    if family == "vorbis":
        compression, subtype = 1 - value / 10, "VORBIS"
    else:  # libsndfile turns 0 to 1 into a bit rate, from the highest to the lowest
        most, least = _MP3_KBPS[of_codec >= 32_000] if family == "mp3" else _OPUS_KBPS
        compression = min(0.9999, (most - value) / (most - least))  # it refuses a whole 1
        subtype = "MPEG_LAYER_III" if family == "mp3" else "OPUS"
    moved = samples if of_codec == rate else soxr.resample(samples, rate, of_codec, quality="VHQ")
    padded = _of_length(np.clip(moved, -1, 1), max(len(moved), round(_SHORTEST_S * of_codec)))
    stream, form = io.BytesIO(), "MP3" if family == "mp3" else "OGG"
    mode = "CONSTANT" if family == "mp3" else None
    with soundfile.SoundFile(
        stream, "w", of_codec, 1, subtype, format=form, compression_level=compression, bitrate_mode=mode
    ) as file:
        file.write(padded)
    stream.seek(0)
    decoded, _ = soundfile.read(stream, dtype="float32")
    if family == "mp3" and len(decoded) > len(padded):  # low bit rates leave no room for the tag that tells the delay
        decoded = decoded[_MP3_DELAY:]
    return decoded if of_codec == rate else soxr.resample(decoded, of_codec, rate, quality="VHQ")


def _resampled_twice(samples: np.ndarray, rate: int, through: int) -> np.ndarray:
    """Return the samples without what lies above half the rate `through`."""
    if through >= rate:
        return samples
    return soxr.resample(soxr.resample(samples, rate, through, quality="VHQ"), through, rate, quality="VHQ")


def _of_length(samples: np.ndarray, count: int) -> np.ndarray:
    samples = samples[:count].astype(np.float32)
    return np.pad(samples, (0, count - len(samples)))


def _random(clip_key: bytes, *words: str) -> np.random.Generator:
    seed = hashlib.sha256("\0".join(["corruption", *words]).encode() + clip_key).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(seed[:16], "little")))
