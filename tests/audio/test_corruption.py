"""Corruptions do what their names say, to the decibel, and depend on the clip's content alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from uwbench.audio.corrupt import active_rms, coloured_noise, corrupt, room_response
from uwbench.audio.corruption import CODECS, SETS, Corruption, corruption_of_file, parse_corruptions
from uwbench.errors import UsageError

RATE = 16_000
EVERY = parse_corruptions(["standard", *(f"codec:{name}" for name in CODECS), "gain:30dB", "noise:-5.5dB"])
KEY, OTHER_KEY = b"k" * 32, b"o" * 32


def one(name: str) -> Corruption:
    (corruption,) = parse_corruptions([name])
    return corruption


def clicks(seconds: float, rate: int = RATE) -> np.ndarray:
    """Return bursts of noise between silences, whose place in time is sharp."""
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(round(seconds * rate)) * (np.arange(round(seconds * rate)) // (rate // 20) % 4 == 1)
    return (0.1 * samples).astype(np.float32)


@given(
    st.sampled_from(EVERY),
    st.integers(1, 3000),
    st.sampled_from([4000, 8000, 11_025, 16_000, 22_050, 44_100, 96_000]),
)
@settings(max_examples=60)
def test_a_corrupted_clip_is_as_long_finite_and_the_same_again(corruption: Corruption, count: int, rate: int) -> None:
    samples = (0.1 * np.random.default_rng(count).standard_normal(count)).astype(np.float32)
    before = samples.copy()
    corrupted = corrupt(samples, rate, corruption, KEY)
    assert (corrupted.shape, corrupted.dtype) == (samples.shape, np.float32)
    assert np.isfinite(corrupted).all()
    np.testing.assert_array_equal(corrupted, corrupt(samples, rate, corruption, KEY))
    np.testing.assert_array_equal(samples, before)


@pytest.mark.parametrize("corruption", EVERY, ids=lambda corruption: corruption.name)
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_no_corruption_moves_a_clip_in_time(corruption: Corruption, rate: int) -> None:
    samples = clicks(1.5, rate)
    corrupted = corrupt(samples, rate, corruption, KEY)
    similarity = signal.correlate(corrupted, samples, method="fft")
    lag = signal.correlation_lags(len(corrupted), len(samples))[similarity.argmax()]
    assert abs(lag) <= rate / 4000  # a quarter of a millisecond; opus at 8 kbps moves single samples


@pytest.mark.parametrize("kind", ["noise:10dB", "noise:pink:10dB", "reverb:small"])
def test_random_numbers_come_from_the_clip_and_not_from_the_level(kind: str) -> None:
    samples = clicks(0.5)
    assert not np.array_equal(corrupt(samples, RATE, one(kind), KEY), corrupt(samples, RATE, one(kind), OTHER_KEY))
    loud, soft = (corrupt(samples, RATE, one(f"noise:{level}dB"), KEY) - samples for level in (0, 20))
    np.testing.assert_allclose(loud, 10 * soft, atol=2e-6)


@pytest.mark.parametrize("level", [-5, 0, 20])
@pytest.mark.parametrize("colour", ["white", "pink", "brown"])
def test_noise_has_its_level_below_the_active_part(colour: str, level: int) -> None:
    samples = np.concatenate([np.zeros(5 * RATE, np.float32), clicks(1.0)])
    noise = corrupt(samples, RATE, one(f"noise:{colour}:{level}dB"), KEY).astype(np.float64) - samples
    active = samples[np.abs(samples) > 0]  # a quarter of one second in six
    ratio_db = 10 * np.log10((active.astype(np.float64) ** 2).mean() / (noise**2).mean())
    assert ratio_db == pytest.approx(level, abs=0.02)
    assert active_rms(np.zeros(RATE, np.float32), RATE) == 0


@pytest.mark.parametrize(("colour", "slope_db"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_noise_falls_by_its_colour_per_octave(colour: str, slope_db: float) -> None:
    noise = coloured_noise(colour, 20 * RATE, RATE, np.random.default_rng(0))
    frequencies, power = signal.welch(noise, RATE, nperseg=4096)
    inside = (frequencies > 50) & (frequencies < 7000)
    slope = np.polyfit(np.log2(frequencies[inside]), 10 * np.log10(power[inside]), 1)[0]
    assert slope == pytest.approx(slope_db, abs=0.1)


@pytest.mark.parametrize(("room", "seconds", "direct_db"), [("small", 0.3, 6), ("medium", 0.6, 3), ("large", 1.2, 0)])
def test_a_room_decays_in_its_time(room: str, seconds: float, direct_db: float) -> None:
    """By Schroeder's backward integration from -5 to -25 dB of the reverberation, as ISO 3382 measures T20."""
    response = room_response(room, RATE, np.random.default_rng(0))
    assert (response**2).sum() == pytest.approx(1)
    assert response.argmax() == 0
    assert 10 * np.log10(response[0] ** 2 / (response[1:] ** 2).sum()) == pytest.approx(direct_db, abs=1e-9)
    decay = 10 * np.log10(np.cumsum((response[1:] ** 2)[::-1])[::-1] / (response[1:] ** 2).sum())
    fit = np.flatnonzero((decay < -5) & (decay > -25))
    assert -60 / (np.polyfit(fit / RATE, decay[fit], 1)[0]) == pytest.approx(seconds, rel=0.08)


def test_band_and_gain_do_as_they_say() -> None:
    tones = [0.2 * np.sin(2 * np.pi * f * np.arange(RATE) / RATE).astype(np.float32) for f in (1000, 6000)]
    low, high = (corrupt(tone, RATE, one("band:4k"), KEY) for tone in tones)
    np.testing.assert_allclose(low[2000:-2000], tones[0][2000:-2000], atol=1e-4)
    assert np.abs(high[2000:-2000]).max() < 1e-4
    np.testing.assert_array_equal(corrupt(tones[1], RATE, one("band:8k"), KEY), tones[1])  # nothing is above
    np.testing.assert_allclose(corrupt(tones[0], RATE, one("gain:-20dB"), KEY), tones[0] / 10, rtol=1e-6)
    assert corrupt(tones[0], RATE, one("gain:20dB"), KEY).max() == 1


def test_fewer_bits_leave_less_of_a_clip() -> None:
    samples = clicks(2.0, 44_100)

    def error_of(codec: str) -> float:
        return float(((corrupt(samples, 44_100, one(f"codec:{codec}"), KEY) - samples) ** 2).mean())

    assert error_of("mp3-128k") < error_of("mp3-64k") < error_of("mp3-32k") < (samples**2).mean()
    assert error_of("vorbis-q5") < error_of("vorbis-q0")


def test_each_corruption_has_one_name_and_its_own_key() -> None:
    assert [corruption.name for corruption in parse_corruptions(SETS["standard"])] == list(SETS["standard"])
    assert len(parse_corruptions(["standard", "noise:white:10.0dB", "noise:10dB"])) == len(SETS["standard"])
    assert len({corruption.key(KEY) for corruption in EVERY} | {KEY}) == len(EVERY) + 1
    assert all(corruption_of_file(corruption.file_name) == corruption for corruption in EVERY)
    assert corruption_of_file("1a2b3c4d") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nois:10dB", "did you mean noise"),
        ("standart", "did you mean standard"),
        ("noise", "use noise:"),
        ("noise:10", "LEVELdB"),
        ("noise:purple:3dB", "known: brown, pink, white"),
        ("reverb:smal", "did you mean small"),
        ("codec:mp3-33k", "did you mean mp3-32k"),
        ("band:4", "band:KHZk"),
        ("band:4dB", "band:KHZk"),
        ("gain:white:3dB", "gain:LEVELdB"),
        ("gain:100dB", "between -60 and 60 dB"),
        ("noise:nandB", "LEVELdB"),
        ("", "known"),
    ],
)
def test_a_wrong_name_is_refused_with_the_right_ones(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_corruptions([text])
