"""Augmentation of training clips: two heard together, a stretch of one, noise, another level (`config.Augment`).

Every draw is determined by `key`: the run's seed, how often the clip was drawn before, and the id of the row that is
asked first. So a run that is resumed, or has other workers or ranks, hears the same. Waveforms are `(samples,)` float32
at 16 kHz; none is clipped, as the log-mel takes samples beyond 1.
"""

from __future__ import annotations

import numpy as np

from uniwhisper.config import Augment
from uniwhisper.data.answers import SEPARATOR
from uniwhisper.data.draws import pick, seed_of, uniform
from uniwhisper.data.examples import MIN_SAMPLES, SAMPLE_RATE
from uniwhisper.data.rows import Row
from uniwhisper.data.templates import find_form
from uwbench.api import Corruption, active_rms, corrupt

# Their answers name what sounds, so that those of two clips heard together name both.
NAMING_TASKS = frozenset({"sound_cls", "tagging", "vocal_sound", "instrument"})
# A stretch of the clip answers these as well. Not `tagging` (a stretch may lack a sound) or `quality` (attack, decay).
STRETCH_TASKS = frozenset(
    {
        *("lid", "gender", "age", "speaker_id", "emotion", "spoof"),
        *("sound_cls", "vocal_sound", "scene", "genre", "instrument", "pitch"),
    }
)
_COLOURS = ("white", "pink", "brown")
_FRAME = SAMPLE_RATE // 40  # 25 ms, in which a clip's loudest moment is sought

Key = tuple[int, int, str]


def names_sources(row: Row) -> bool:
    """Return whether a row's question is what sounds, with labels as its answer."""
    kind = find_form(row.task, row.slots.get("form")).answer
    return row.task in NAMING_TASKS and kind in ("label", "labels") and row.instruction is None


def a_stretch_answers(row: Row) -> bool:
    """Return whether a part of the clip answers a row's question: one of `STRETCH_TASKS` with a single answer."""
    lists = any(SEPARATOR in answer for answer in row.answers)
    return row.task in STRETCH_TASKS and not lists and row.instruction is None


def is_mixed(augment: Augment, key: Key) -> bool:
    """Return whether a clip is to be heard together with another."""
    return uniform(*key, "mix") < augment.mix_prob


def together(audio: np.ndarray, other: np.ndarray, augment: Augment, key: Key) -> np.ndarray | None:
    """Return two clips heard together, as long as the longer one; None if one of them is silent.

    The other's level is that of the first, up to `mix_db` louder or softer, whatever silence is around them; the
    shorter clip begins anywhere within the longer one.
    """
    levels = active_rms(audio, SAMPLE_RATE), active_rms(other, SAMPLE_RATE)
    if not min(levels):
        return None
    factor = levels[0] / levels[1] * _ratio(_between(-augment.mix_db, augment.mix_db, *key, "mix level"))
    mixed = np.zeros(max(len(audio), len(other)), np.float32)
    for clip in (audio, other * np.float32(factor)):
        start = pick(len(mixed) - len(clip) + 1, *key, "mix start")  # 0 for the longer one
        mixed[start : start + len(clip)] += clip
    return mixed


def augmented(audio: np.ndarray, augment: Augment, key: Key, *, cut: bool) -> np.ndarray:
    """Return a clip as it is heard in training: a stretch of it if it may be `cut`, with noise, at another level."""
    if cut and augment.crop_share < 1:
        audio = _stretch(audio, augment.crop_share, key)
    if uniform(*key, "noise") < augment.noise_prob:
        colour = _COLOURS[pick(len(_COLOURS), *key, "noise colour")]
        noise = Corruption("noise", colour, _between(*augment.noise_db, *key, "noise level"))
        audio = corrupt(audio, SAMPLE_RATE, noise, seed_of(*key, "noise samples").to_bytes(8, "big"))
    if augment.gain_db:
        audio = audio * np.float32(_ratio(_between(-augment.gain_db, augment.gain_db, *key, "gain")))
    return audio


def _stretch(audio: np.ndarray, share: float, key: Key) -> np.ndarray:
    """Return at least a `share` of a clip, and a second, with its loudest moment: silence answers no question."""
    length = round(len(audio) * _between(share, 1.0, *key, "stretch"))
    length = min(max(length, MIN_SAMPLES), len(audio))
    frames = audio[: len(audio) // _FRAME * _FRAME].reshape(-1, _FRAME)
    loudest = _FRAME * int(np.argmax((frames * frames).sum(axis=1))) if len(frames) else 0
    first, last = max(0, loudest + _FRAME - length), min(loudest, len(audio) - length)
    start = first + pick(last - first + 1, *key, "stretch start")
    return audio[start : start + length]


def _between(least: float, most: float, *key: object) -> float:
    return least + (most - least) * uniform(*key)


def _ratio(db: float) -> float:
    return 10 ** (db / 20)
