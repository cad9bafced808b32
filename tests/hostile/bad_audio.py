"""The odd audio files of docs/audio.md: what full disks, cut downloads and wrong headers leave behind."""

from __future__ import annotations

import io
import struct

import numpy as np
import soundfile

RATE = 16_000
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)


def encoded(samples: np.ndarray, rate: int = RATE, form: str = "WAV", subtype: str = "PCM_16") -> bytes:
    """Return the bytes of an audio file written by libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def bad_files() -> dict[str, bytes]:
    """Return every file of the table by its name there."""
    wav, flac = encoded(TONE), encoded(TONE, form="FLAC")
    ogg, mp3 = encoded(TONE, form="OGG", subtype="VORBIS"), encoded(TONE, form="MP3", subtype="MPEG_LAYER_III")
    holed = TONE.copy()
    holed[100] = np.nan
    endless = TONE.copy()
    endless[100] = np.inf
    two = np.stack([TONE, np.zeros(RATE)], axis=1)
    return {
        "an empty file": b"",
        "text": b"this is no audio at all, whatever it is called",
        "a WAV header, cut": wav[:30],
        "a WAV header alone": wav[:44],
        "a WAV of 0 samples": encoded(np.zeros(0)),
        "a FLAC header alone": flac[:42],
        "a WAV cut in the middle": wav[:16_044],
        "a FLAC cut in the middle": flac[: len(flac) // 2],
        "an MP3 cut in the middle": mp3[: len(mp3) // 2],
        "an Ogg Vorbis without its last page": ogg[: ogg.rindex(b"OggS")],
        "a FLAC named .mp3": flac,
        "one sample at the encoder's rate": encoded(np.array([0.5])),
        "one sample at 4 kHz": encoded(np.array([0.5]), 4_000),
        "one sample at 44.1 kHz": encoded(np.array([0.5]), 44_100),
        "8-bit integers": encoded(TONE, subtype="PCM_U8"),
        "16-bit integers": wav,
        "24-bit integers": encoded(TONE, subtype="PCM_24"),
        "32-bit integers": encoded(TONE, subtype="PCM_32"),
        "32-bit floats": encoded(TONE, subtype="FLOAT"),
        "64-bit floats": encoded(TONE, subtype="DOUBLE"),
        "64-bit floats beyond 32 bits": encoded(np.full(RATE, 1e300), subtype="DOUBLE"),
        "a NaN among the samples": encoded(holed, subtype="FLOAT"),
        "an infinity among the samples": encoded(endless, subtype="DOUBLE"),
        "two channels": encoded(two, subtype="FLOAT"),
        "eight channels": encoded(np.tile(TONE[:, None], 8), subtype="FLOAT"),
        "no channels": _put(wav, 22, "<H", 0),
        "65,535 channels": _put(wav, 22, "<H", 65_535),
        "a rate of 4 kHz": encoded(TONE[::4], 4_000),
        "a rate of 192 kHz": encoded(np.repeat(TONE, 12), 192_000),
        "a rate of 0 Hz": _put(wav, 24, "<I", 0),
        "a rate of 1 Hz": _put(wav, 24, "<I", 1),
        "a rate of 4 GHz": _put(wav, 24, "<I", 2**31 - 1),
        "a constant offset (DC)": encoded(np.full(RATE, 0.5)),
        "silence": encoded(np.zeros(RATE)),
        "full-scale clipping": encoded(np.clip(TONE * 100, -1, 1), subtype="FLOAT"),
        "floats beyond full scale": encoded(TONE * 8, subtype="FLOAT"),
        "a WAV whose data size is too large": _put(wav, 40, "<I", 0xFFFFFFFF),
        "a WAV whose data size is too small": _put(wav, 40, "<I", 16_000),
        "a WAV whose data size is 0": _put(wav, 40, "<I", 0),
        "a WAV whose RIFF size is wrong": _put(wav, 4, "<I", 0),
        "a FLAC whose length is too large": _flac_of(flac, 2 * RATE),
        "a FLAC whose length is too small": _flac_of(flac, RATE // 2),
        "a FLAC of unknown length": _flac_of(flac, 0),
    }


def _put(data: bytes, offset: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, offset, value)
    return bytes(changed)


def _flac_of(data: bytes, samples: int) -> bytes:
    """Return a FLAC with another number of samples in STREAMINFO: the low 36 bits of the 5 bytes at 21."""
    changed = bytearray(data)
    before = int.from_bytes(changed[21:26], "big")
    changed[21:26] = (before >> 36 << 36 | samples).to_bytes(5, "big")
    return bytes(changed)
