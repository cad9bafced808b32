"""The plan: a pure function of the step that covers all clips within the budget and the mixture's shares."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniwhisper.data.draws import mixed, permuted
from uniwhisper.data.mixture import Mixture, parse_mixture
from uniwhisper.sampling.clips import Units, group, rotated
from uniwhisper.sampling.schedule import Planner, Sizes
from uwbench.api import UsageError

DOMAINS = ("speech", "paralinguistic", "sound", "music")


def clips(counts: list[int], *, seed: int = 0, mean: float = 4.0, questions: int = 1) -> Units:
    """Return units of datasets d0, d1, ... with lengths as real sets have them, `questions` rows each, in any order."""
    rng = np.random.default_rng(seed)
    dataset = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    seconds = (rng.gamma(4, mean / 4, len(dataset)) * (1 + dataset)).clip(0.1, 45)
    clip = np.arange(len(dataset))
    order = rng.permutation(len(dataset) * questions)
    clip, dataset, seconds = (np.tile(values, questions)[order] for values in (clip, dataset, seconds))
    names = tuple(f"d{i}" for i in range(len(counts)))
    return group(clip, dataset, seconds, names, np.ones(len(order), bool))


def mixture(count: int, epochs: float = 100_000) -> Mixture:
    datasets = [
        {
            "name": f"d{i}",
            "title": "x",
            "domain": DOMAINS[i % 4],
            "hours": 1,
            "tasks": ["asr"],
            "licence": "CC0",
            "where": "here",
            "available": "open",
            "hours_verified": True,
            "licence_verified": True,
        }
        for i in range(count)
    ]
    return parse_mixture({"name": "x", "datasets": datasets, "caps": {"epochs": epochs, "small_epochs": epochs}})


def planner(counts: list[int], *, steps: int = 64, seed: int = 0, data: Any = None, **sizes: Any) -> Planner:
    wanted = {"batch_s": 240.0, "micro_batch_s": 60.0, "together": 1, **sizes}
    return Planner(clips(counts, **(data or {})), mixture(len(counts)), Sizes(**wanted), steps=steps, seed=seed)


many = st.lists(st.integers(30, 400), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None)
@given(many, st.integers(0, 99), st.sampled_from([0.0, 0.3]), st.sampled_from([None, 1, 2]), st.integers(8, 80))
def test_no_micro_batch_exceeds_the_budget(
    counts: list[int], seed: int, pad30: float, together: int | None, steps: int
) -> None:
    plan = planner(counts, steps=steps, seed=seed, pad30=pad30, together=together)
    for step in {0, steps // 2, steps - 1}:
        found = plan.draws(step)
        assert len(found) == 4
        for micro in found:
            assert micro
            longest = max(30.0 if draw.pad30 else max(1.0, float(plan.units.seconds[draw.unit])) for draw in micro)
            assert len(micro) * longest <= 60.0 + 1e-4


@settings(max_examples=10, deadline=None)
@given(many, st.integers(0, 99))
def test_a_step_depends_on_its_number_only(counts: list[int], seed: int) -> None:
    one, other = planner(counts, steps=200, seed=seed), planner(counts, steps=200, seed=seed)
    forward = [one.draws(step) for step in range(200)]
    for step in np.random.default_rng(seed).permutation(200)[:20].tolist():
        assert other.draws(step) == forward[step]
    assert planner(counts, steps=200, seed=seed + 1).draws(3) != forward[3]


@settings(max_examples=10, deadline=None)
@given(many)
def test_no_clip_is_used_twice_more_than_another(counts: list[int]) -> None:
    plan = planner(counts, steps=640, micro_batch_s=120.0)
    heard = Counter((draw.unit, draw.visit) for step in range(640) for micro in plan.draws(step) for draw in micro)
    assert max(heard.values()) == 1
    times = np.zeros(len(plan.units), int)
    for unit, _ in heard:
        times[unit] += 1
    # The last round may stop within a pass, and a round may leave out draws that fill no step: one more time apart.
    for code in range(len(counts)):
        own = times[plan.units.first[code] : plan.units.first[code + 1]]
        assert own.min() >= 1
        assert own.max() - own.min() <= 2 + plan.round_steps * own.mean() / 640


def test_shares_are_those_of_the_mixture() -> None:
    plan = planner([4000, 9000, 1000, 2000], steps=2000)
    seconds = plan.realised()
    total = sum(seconds.values())
    for name, share in plan.shares.items():
        assert seconds[name] / total == pytest.approx(share, rel=0.01)
    counted = dict.fromkeys(plan.shares, 0.0)
    for step in range(500):
        for micro in plan.draws(step):
            for draw in micro:
                counted[plan.units.names[plan.units.dataset[draw.unit]]] += float(plan.units.seconds[draw.unit])
    assert counted == pytest.approx(plan.realised(500), rel=1e-6)


def test_most_of_a_batch_is_audio() -> None:
    plan = planner([4000, 9000], steps=1000, micro_batch_s=120.0, batch_s=480.0)
    assert sum(plan.realised().values()) > 0.8 * 1000 * 480
    longest = planner([4000, 9000], steps=1000, micro_batch_s=120.0, batch_s=480.0, bins=1)
    assert sum(longest.realised().values()) < 0.5 * 1000 * 480


def test_micro_batches_together_are_of_one_bin() -> None:
    plan = planner([3000, 3000], steps=200, together=2)
    edges = plan.edges
    for step in range(0, 200, 7):
        found = [
            {int(np.searchsorted(edges, max(1.0, plan.units.seconds[draw.unit]))) for draw in micro}
            for micro in plan.draws(step)
        ]
        for first, second in zip(found[::2], found[1::2], strict=True):
            assert abs(max(first) - max(second)) <= 1


def test_questions_rotate() -> None:
    units = clips([50], questions=5)
    assert len(units) == 50
    for unit in range(50):
        of_clip = set(units.rows[units.starts[unit] : units.starts[unit + 1]].tolist())
        asked = [rotated(units.rows_of(unit), visit, 2, offset=7) for visit in range(5)]
        assert all(len(set(two)) == 2 for two in asked)
        assert Counter(row for two in asked for row in two) == dict.fromkeys(of_clip, 2)
    assert sorted(units.rows.tolist()) == list(range(250))


def test_a_third_of_the_clips_is_padded() -> None:
    plan = planner([3000], steps=400, pad30=0.3)
    drawn = [draw.pad30 for step in range(400) for micro in plan.draws(step) for draw in micro]
    assert np.mean(drawn) == pytest.approx(0.3, abs=0.03)


def test_stand_ins_are_of_the_dataset_and_fit() -> None:
    plan = planner([200, 300])
    for micro in plan.draws(5):
        for draw in micro[:3]:
            found = list(plan.stand_ins(draw))
            assert draw.unit not in found
            assert len(set(found)) == len(found) > 0
            assert {int(plan.units.dataset[unit]) for unit in found} == {int(plan.units.dataset[draw.unit])}
            edge = min(
                e for e in plan.edges.tolist() if e >= min(plan.units.seconds[draw.unit], 30.0) or e == plan.edges[-1]
            )
            assert max(float(plan.units.seconds[unit]) for unit in found) <= max(edge, 1.0)


def test_partners_are_others_of_the_dataset_that_fit_in_a_new_order_each_time() -> None:
    plan = planner([200, 30], steps=200)
    orders: dict[int, list[list[int]]] = {}
    for step in range(200):
        for draw in (draw for micro in plan.draws(step) for draw in micro[:2]):
            others = list(plan.partners(draw))
            assert draw.unit not in others
            assert len(set(others)) == len(others) <= 64
            assert {int(plan.units.dataset[unit]) for unit in others} <= {int(plan.units.dataset[draw.unit])}
            assert set(others) <= set(plan.stand_ins(draw))
            if plan.units.dataset[draw.unit] == 1:  # a small dataset: all that fit
                assert set(others) == set(plan.stand_ins(draw))
            orders.setdefault(draw.unit, []).append(others)
    repeated = [found for found in orders.values() if len(found) > 1 and len(found[0]) > 10]
    assert len(repeated) > 20
    assert all(found[0] != found[1] for found in repeated)


def test_memory_and_work_are_those_of_a_round() -> None:
    units = clips([400_000, 100_000])
    plan = Planner(units, mixture(2), Sizes(240.0, 60.0, together=1), steps=100_000, seed=0)
    plan.draws(0)
    tracemalloc.start()
    plan.draws(99_999)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.round_steps == 1000
    assert peak < 400 * 240 * 1000 / 4  # bytes a drawn clip, of which a round has about that many


def test_a_few_clips_fill_a_step() -> None:
    plan = planner([1], steps=1, data={"mean": 30.0}, batch_s=300.0, micro_batch_s=30.0)
    assert [len(micro) for micro in plan.draws(0)] == [1] * 10


def test_bad_plans_are_refused() -> None:
    with pytest.raises(UsageError, match=r"a clip of 30.0 s does not fit"):
        planner([300], micro_batch_s=20.0, batch_s=20.0, pad30=0.1)
    with pytest.raises(UsageError, match="no multiple of 3"):
        planner([300], together=3)
    with pytest.raises(UsageError, match="outside the plan of 64 steps"):
        planner([300]).draws(64)
    with pytest.raises(UsageError, match="the caps allow"):
        Planner(clips([30]), mixture(1, epochs=2), Sizes(240.0, 60.0), steps=64, seed=0)


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_a_permutation_is_one(size: int, seed: int) -> None:
    found = permuted(np.arange(size), size, seed)
    assert np.array_equal(np.sort(found), np.arange(size))


def test_permutations_and_hashes_are_random() -> None:
    found = permuted(np.arange(10_000), 10_000, 1)
    assert abs(np.corrcoef(found, np.arange(10_000))[0, 1]) < 0.05
    assert not np.array_equal(found, permuted(np.arange(10_000), 10_000, 2))
    shares = mixed(np.arange(100_000), 5).astype(float) / 2**64
    assert np.histogram(shares, 10)[0] == pytest.approx(np.full(10, 10_000), rel=0.05)
