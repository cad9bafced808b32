"""Compute the clips of the built-in `mini` suite: deterministic, without a download.

There are three small tasks that look like real ones: vowels by speakers who differ in pitch and vocal-tract length
(`vowels`), everyday sounds in four folds of recordings (`scenes`), and instruments over two octaves (`instruments`).
All sounds are additive synthesis or filtered noise, with room noise 0 to 20 dB below the sound, so that scores lie
between chance and one. They show that the program works and say nothing about an encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from uwbench.audio.clip import AudioArray, Clip
from uwbench.base.registry import suggestion
from uwbench.errors import UsageError

RATE = 16_000  # Hz

# First three formants in Hz of an average male speaker: Peterson and Barney (1952), table II.
_VOWELS = {
    "iy": (270, 2290, 3010),
    "ae": (660, 1720, 2410),
    "aa": (730, 1090, 2440),
    "ao": (570, 840, 2410),
    "uw": (300, 870, 2240),
    "er": (490, 1350, 1690),
}
_SCENES = ("birds", "clicks", "engine", "rain", "siren", "wind")
_INSTRUMENTS = ("bell", "bowed", "organ", "pluck", "reed")


def generate(name: str) -> list[Clip]:
    """Return the clips of `vowels`, `scenes` or `instruments`; raise UsageError for another name."""
    makers: dict[str, Callable[[], Iterator[Clip]]] = {
        "vowels": _vowels,
        "scenes": _scenes,
        "instruments": _instruments,
    }
    if name not in makers:
        raise UsageError(f"unknown generated set {name!r}", remedy=suggestion(name, makers))
    return list(makers[name]())


def _vowels() -> Iterator[Clip]:
    """Yield six vowels by each of 20 speakers: 12 train, 3 valid, 5 test."""
    for speaker in range(20):
        voice = np.random.default_rng([1, speaker])
        pitch, tract = voice.uniform(90, 260), voice.uniform(0.85, 1.2)
        split = "train" if speaker < 12 else "valid" if speaker < 15 else "test"
        for vowel, formants in _VOWELS.items():
            rng = np.random.default_rng([2, speaker, list(_VOWELS).index(vowel)])
            time = _time(rng.uniform(0.3, 0.9))
            contour = pitch * (1 + 0.15 * rng.uniform(-1, 1) * time / time[-1] + 0.01 * np.sin(2 * np.pi * 5 * time))
            phase = 2 * np.pi * np.cumsum(contour) / RATE
            sound = np.zeros_like(time)
            for harmonic in range(1, int(0.45 * RATE / contour.max())):
                frequency = harmonic * pitch
                gain = sum(1 / (1 + ((frequency - f * tract) / (60 + 0.05 * f)) ** 2) for f in formants)
                sound += gain / harmonic * np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi))
            clip_id = f"speaker{speaker:02d}-{vowel}"
            yield Clip(clip_id, _finish(sound, rng, clip_id), vowel, split=split, group=f"speaker{speaker:02d}")


def _scenes() -> Iterator[Clip]:
    """Yield six sounds with five recordings per fold, in four folds; one recording of the five gives two clips."""
    for label_index, label in enumerate(_SCENES):
        for recording in range(20):
            fold = str(1 + recording % 4)
            for take in range(2 if recording < 4 else 1):
                rng = np.random.default_rng([3, label_index, recording, take])
                character = np.random.default_rng([4, label_index, recording]).uniform(size=3)
                time = _time(rng.uniform(0.5, 1.5))
                clip_id = f"{label}-{recording:02d}-{take}"
                sound = _SCENE_SOUNDS[label](time, character, rng)
                group = f"{label}-{recording:02d}"
                yield Clip(clip_id, _finish(sound, rng, clip_id), label, fold=fold, group=group)


def _instruments() -> Iterator[Clip]:
    """Yield 24 semitones of each of five instruments; every sixth note is validation, every third is test."""
    for index, instrument in enumerate(_INSTRUMENTS):
        for note in range(24):
            rng = np.random.default_rng([5, index, note])
            time = _time(rng.uniform(0.4, 1.2))
            frequency = 130.81 * 2 ** (note / 12)  # from C3
            split = "valid" if note % 6 == 5 else "test" if note % 3 == 1 else "train"
            clip_id = f"{instrument}-{note:02d}"
            sound = _INSTRUMENT_SOUNDS[instrument](time, frequency, rng)
            yield Clip(clip_id, _finish(sound, rng, clip_id), instrument, split=split, group=clip_id)


def _birds(time: np.ndarray, character: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rate, centre = 3 + 5 * character[0], 2500 + 2500 * character[1]
    sweep = centre * (1 + 0.2 * np.sin(2 * np.pi * rate * 2 * time + rng.uniform(0, 6)))
    return np.sin(2 * np.pi * np.cumsum(sweep) / RATE) * (np.sin(2 * np.pi * rate * time) > 0.3)


def _clicks(time: np.ndarray, character: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    impulses = (rng.uniform(size=len(time)) < (5 + 20 * character[0]) / RATE).astype(float)
    ring = np.exp(-np.arange(400) / (20 + 100 * character[1])) * np.sin(np.arange(400) * (0.3 + character[2]))
    return np.convolve(impulses, ring)[: len(time)]


def _engine(time: np.ndarray, character: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    base = 25 + 50 * character[0]
    tones = sum(np.sin(2 * np.pi * base * k * time + rng.uniform(0, 6)) / k for k in range(1, 30))
    return tones * (1 + 0.5 * np.sin(2 * np.pi * base / 2 * time))


def _rain(time: np.ndarray, character: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _shaped_noise(len(time), lambda f: (f > 500 + 1500 * character[0]) / (1 + (f / 5000) ** 2), rng)


def _siren(time: np.ndarray, character: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sweep = 700 + 500 * character[0] + 400 * np.sin(2 * np.pi * (0.5 + 2 * character[1]) * time + rng.uniform(0, 6))
    return np.sign(np.sin(2 * np.pi * np.cumsum(sweep) / RATE)) * 0.5


def _wind(time: np.ndarray, character: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = _shaped_noise(len(time), lambda f: 1 / (1 + (f / (150 + 300 * character[0])) ** 4), rng)
    return noise * (1 + 0.8 * np.sin(2 * np.pi * (0.3 + character[1]) * time + rng.uniform(0, 6)))


def _bell(time: np.ndarray, frequency: float, rng: np.random.Generator) -> np.ndarray:
    ratios = (1.0, 2.76, 5.4, 8.93)  # partials of a free bar
    partials = (np.exp(-time * (2 + 2 * i)) * np.sin(2 * np.pi * frequency * r * time) for i, r in enumerate(ratios))
    return sum(partials, start=np.zeros_like(time))


def _bowed(time: np.ndarray, frequency: float, rng: np.random.Generator) -> np.ndarray:
    phase = 2 * np.pi * np.cumsum(frequency * (1 + 0.006 * np.sin(2 * np.pi * 6 * time))) / RATE
    return np.minimum(1, time / 0.1) * _harmonics(phase, frequency, lambda h: 1 / h)


def _organ(time: np.ndarray, frequency: float, rng: np.random.Generator) -> np.ndarray:
    return _harmonics(2 * np.pi * frequency * time, frequency, lambda h: float(h in (1, 2, 4, 8)))


def _pluck(time: np.ndarray, frequency: float, rng: np.random.Generator) -> np.ndarray:
    top = int(0.45 * RATE / frequency)
    decays = (np.exp(-time * (1.5 + 0.4 * h * h / 4)) / h for h in range(1, top))
    partials = (decay * np.sin(2 * np.pi * frequency * h * time) for h, decay in enumerate(decays, start=1))
    return sum(partials, start=np.zeros_like(time))


def _reed(time: np.ndarray, frequency: float, rng: np.random.Generator) -> np.ndarray:
    return np.minimum(1, time / 0.04) * _harmonics(2 * np.pi * frequency * time, frequency, lambda h: h % 2 / h)


_Scene = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
_SCENE_SOUNDS: dict[str, _Scene] = {
    "birds": _birds,
    "clicks": _clicks,
    "engine": _engine,
    "rain": _rain,
    "siren": _siren,
    "wind": _wind,
}
_Instrument = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
_INSTRUMENT_SOUNDS: dict[str, _Instrument] = {
    "bell": _bell,
    "bowed": _bowed,
    "organ": _organ,
    "pluck": _pluck,
    "reed": _reed,
}


def _time(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * RATE)) / RATE


def _harmonics(phase: np.ndarray, frequency: float, gain: Callable[[int], float]) -> np.ndarray:
    """Return the sum of the harmonics below 0.45 of the sample rate, which do not alias."""
    count = int(0.45 * RATE / (frequency * 1.01))
    return sum((gain(h) * np.sin(h * phase) for h in range(1, count + 1)), start=np.zeros_like(phase))


def _shaped_noise(samples: int, response: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    return np.fft.irfft(spectrum * response(np.fft.rfftfreq(samples, 1 / RATE)), samples)


def _finish(sound: np.ndarray, rng: np.random.Generator, name: str) -> AudioArray:
    """Fade the ends, add room noise 0 to 20 dB below the sound, and scale the peak to a random level."""
    fade = np.minimum(1, np.minimum(np.arange(len(sound)), np.arange(len(sound))[::-1]) / (0.01 * RATE))
    sound = sound * fade
    power = np.sqrt(np.mean(sound**2)) + 1e-12
    room = _shaped_noise(len(sound), lambda f: 1 / np.sqrt(1 + (f / 300) ** 2), rng)
    room *= power * 10 ** (-rng.uniform(0, 20) / 20) / np.sqrt(np.mean(room**2))
    mixed = sound + room
    return AudioArray((mixed / np.abs(mixed).max() * rng.uniform(0.1, 0.9)).astype(np.float32), RATE, name)
