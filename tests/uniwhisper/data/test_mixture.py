"""Mixtures: the candidate's hours, and shares within caps, domains, quotas and replay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniwhisper.config import DOMAINS, Data, Domain
from uniwhisper.data.mixture import Mixture, by_domain, changed, fill, load_mixture, parse_mixture, target_shares
from uwbench.api import InputError, UsageError


def entry(name: str, domain: str, **values: Any) -> dict[str, Any]:
    return {
        "name": name,
        "title": name,
        "domain": domain,
        "hours": 1.0,
        "tasks": ["asr"] if domain == "speech" else ["tagging"],
        "licence": "CC0",
        "where": "here",
        "available": "open",
        "hours_verified": True,
        "licence_verified": True,
        **values,
    }


def mixture(*entries: dict[str, Any], **values: Any) -> Mixture:
    return parse_mixture({"name": "test", "datasets": list(entries), **values})


def test_the_candidate_has_the_hours_of_the_recipe() -> None:
    mixed = load_mixture("candidate-38k")
    assert mixed.hours == 38_118
    hours = by_domain(mixed, {entry.name: entry.hours for entry in mixed.datasets})
    assert [hours[domain] for domain in DOMAINS] == [20_310, 4_726, 8_308, 4_774]
    strict = load_mixture("candidate-38k-strict")
    assert [dataset.name for dataset in strict.datasets] == [
        dataset.name for dataset in mixed.datasets if not dataset.overlaps
    ]
    assert {"librispeech", "fma_large", "nsynth", "fsd50k", "clotho", "vocalsound"}.isdisjoint(
        dataset.name for dataset in strict.datasets
    )


@pytest.mark.parametrize(("alpha", "expected"), [(0.5, (0.46, 0.19, 0.21, 0.14)), (1.0, (0.53, 0.12, 0.22, 0.13))])
def test_the_root_of_hours_is_near_the_default_domains(alpha: float, expected: tuple[float, ...]) -> None:
    # The recipe's arithmetic before domains are fixed; its table joins several sets into one line, so only about.
    weights = {dataset.name: dataset.hours**alpha for dataset in load_mixture("candidate-38k").datasets}
    total = sum(weights.values())
    mixed = by_domain(load_mixture("candidate-38k"), weights)
    assert [value / total for value in mixed.values()] == pytest.approx(expected, abs=0.02)


def test_the_candidates_shares_are_the_default_domains() -> None:
    mixed = load_mixture("candidate-38k")
    hours = {dataset.name: dataset.hours for dataset in mixed.datasets}
    shares = target_shares(mixed, hours, mixed.hours)
    assert sum(shares.values()) == pytest.approx(1)
    assert list(by_domain(mixed, shares).values()) == pytest.approx([0.45, 0.15, 0.22, 0.18])
    for name, share in shares.items():
        assert share * mixed.hours <= mixed.caps.of(hours[name]) * (1 + 1e-9)
    assert shares["mls"] / shares["librispeech"] == pytest.approx((6000 / 960) ** 0.5)
    assert shares["iemocap"] * mixed.hours == pytest.approx(64)  # eight hours, eight times


def test_domains_without_data_leave_their_share_to_the_others() -> None:
    mixed = mixture(entry("a", "speech"), entry("b", "sound"), entry("c", "music"), replay={"share": 0})
    shares = target_shares(mixed, {"a": 100.0, "b": 100.0}, 50.0)
    assert shares == pytest.approx({"a": 0.45 / 0.67, "b": 0.22 / 0.67})


def test_a_quota_fixes_a_dataset_and_a_weight_scales_it() -> None:
    mixed = mixture(
        entry("a", "speech", quota=0.1), entry("b", "speech"), entry("c", "speech", weight=3.0), replay={"share": 0}
    )
    shares = target_shares(mixed, {"a": 100.0, "b": 100.0, "c": 100.0}, 50.0)
    assert shares == pytest.approx({"a": 0.1, "b": 0.225, "c": 0.675})


def test_what_a_capped_domain_cannot_take_goes_to_the_others() -> None:
    mixed = mixture(entry("a", "speech"), entry("b", "sound"), caps={"epochs": 1, "small_epochs": 1})
    shares = target_shares(mixed, {"a": 10.0, "b": 90.0}, 100.0)
    assert shares == pytest.approx({"a": 0.1, "b": 0.9})
    with pytest.raises(UsageError, match=r"needs 101.00 h and the caps allow 100.00 h"):
        target_shares(mixed, {"a": 10.0, "b": 90.0}, 101.0)


def test_speech_is_replayed() -> None:
    mixed = mixture(
        entry("a", "speech"), entry("b", "sound"), domains={"speech": 0.2, "sound": 0.8}, replay={"share": 0.5}
    )
    assert target_shares(mixed, {"a": 9.0, "b": 9.0}, 10.0) == pytest.approx({"a": 0.5, "b": 0.5})


def shares_of_domains(**values: Any) -> list[float]:
    data = Data(hours=1, clip_s=1, prompt_tokens=1, answer_tokens=1, pad30_prob=0, **values)
    candidate = load_mixture("candidate-38k")
    hours = {dataset.name: dataset.hours for dataset in candidate.datasets}
    mixed = changed(candidate, data, hours)
    return list(by_domain(mixed, target_shares(mixed, hours, 10_000)).values())


@pytest.mark.parametrize("share", [0.0, 0.25, 0.45, 0.6])
def test_the_share_of_speech_is_what_the_key_says_and_the_others_keep_their_proportions(share: float) -> None:
    others = [(1 - share) * value / 0.55 for value in (0.15, 0.22, 0.18)]
    assert shares_of_domains(speech_share=share) == pytest.approx([share, *others])


@pytest.mark.parametrize("left_out", DOMAINS)
def test_a_domain_is_left_out(left_out: Domain) -> None:
    mixed = dict(zip(DOMAINS, shares_of_domains(without_domains=(left_out,)), strict=True))
    default: dict[Domain, float] = dict(zip(DOMAINS, (0.45, 0.15, 0.22, 0.18), strict=True))
    rest = 1 - default.pop(left_out)
    assert mixed.pop(left_out) == 0
    assert mixed == pytest.approx({name: value / rest for name, value in default.items()})


def test_domains_that_leave_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="leaves no dataset"):
        shares_of_domains(without_domains=DOMAINS)
    with pytest.raises(UsageError, match="there is only speech at hand"):
        shares_of_domains(speech_share=0.5, without_domains=("paralinguistic", "sound", "music"))
    with pytest.raises(UsageError, match="no dataset of speech"):
        shares_of_domains(speech_share=0.5, without_domains=("speech",))


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 1)), min_size=1, max_size=12), st.floats(0.01, 1))
def test_filling_holds_caps_and_proportions(entries: list[tuple[float, float]], part: float) -> None:
    weights, caps = zip(*entries, strict=True)
    total = part * sum(caps)
    amounts = fill(weights, caps, total)
    assert sum(amounts) == pytest.approx(total)
    free = [
        amount / weight for amount, weight, cap in zip(amounts, weights, caps, strict=True) if amount < cap * (1 - 1e-9)
    ]
    assert all(amount <= cap * (1 + 1e-9) for amount, cap in zip(amounts, caps, strict=True))
    if free:
        assert max(free) == pytest.approx(min(free))
        # A capped one would have had more by its weight.
        for amount, weight, cap in zip(amounts, weights, caps, strict=True):
            if amount >= cap * (1 - 1e-9):
                assert weight * free[0] >= cap * (1 - 1e-6)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "x", "datasets": [entry("a", "speech", hors=3)]}, "datasets.0.hors: is not a key"),
        ({"name": "x", "datasets": [entry("a", "noise")]}, "datasets.0.domain"),
        ({"name": "x", "datasets": [entry("a", "speech"), entry("a", "music")]}, "named twice: a"),
        ({"name": "x", "base": "candidate-38k", "without": ["librispech"]}, "did you mean librispeech"),
        ({"name": "x", "base": "candidate-38k", "datasets": []}, "datasets: is not a key"),
    ],
)
def test_bad_mixtures_are_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_mixture(values, where="x.yaml")


def test_an_unknown_mixture_gets_a_hint() -> None:
    with pytest.raises(UsageError, match="did you mean candidate-38k"):
        load_mixture("candidate-38")
