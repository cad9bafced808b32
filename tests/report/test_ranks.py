"""What the board says of its ranks: intervals, orders under every method, equality within a margin, plans."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from conftest import Command
from report.made_results import TASKS, make_board_results
from report.simulated_ranks import SCENARIOS, averaged, equality_errors, true_ranks
from uwbench import api
from uwbench.api import UsageError
from uwbench.report.csv_file import render_csv
from uwbench.report.html import page_data
from uwbench.report.json_file import render_json
from uwbench.report.leaderboard import Leaderboard
from uwbench.report.markdown import render_markdown
from uwbench.report.plan import plan_task
from uwbench.report.ranks import EVERY, correlate, orders_under_every
from uwbench.report.ties import PairTest
from uwbench.results.ranks import data_needed, detectable, equivalence_p, kendall_tau, tau_bounds, tau_of_pairs

SKILLS = {"best": 0.85, "good": 0.8, "near": 0.79, "poor": 0.3}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    make_board_results(folder, SKILLS)
    return folder


@pytest.fixture(scope="module")
def leaderboard(results: Path) -> Leaderboard:
    return api.leaderboard(results, margin=12)


def test_equal_models_share_their_ranks_in_all_but_five_of_a_hundred_boards() -> None:
    """Without a correction for the number of pairs it would be about 25."""
    runs = 150
    equal = averaged(SCENARIOS[0], runs, seed=3)
    slack = 2.5 * (0.95 * 0.05 / runs) ** 0.5
    assert equal["all ranks in theirs"] > 0.95 - slack
    assert equal["rank in its interval"] > 0.95
    assert equal["wrong order claimed under every method"] < 0.05
    steps = averaged(SCENARIOS[1], 60, seed=4)
    assert steps["all ranks in theirs"] > 0.95
    assert steps["width"] < 2  # of five: the intervals say something
    assert steps["tau in its bounds"] > 0.95


def test_an_order_that_one_method_does_not_have_is_rarely_claimed() -> None:
    """The first method tells the two models apart on every board, under the second they are equal."""
    runs = 200
    wrong = averaged(SCENARIOS[4], runs, seed=5)["wrong order claimed under every method"]
    assert wrong < 0.05 + 2.5 * (0.05 * 0.95 / runs) ** 0.5


def test_models_a_margin_apart_are_rarely_called_equal() -> None:
    runs = 150
    assert equality_errors(runs, np.random.default_rng(6)) < 0.05 + 2.5 * (0.05 * 0.95 / runs) ** 0.5


def test_equivalence_is_the_larger_of_two_one_sided_t_tests() -> None:
    differences = np.random.default_rng(0).normal(0.004, 0.1, 800)
    error, margin = float(differences.std(ddof=1) / 800**0.5), 0.01
    sides = (("greater", -margin), ("less", margin))
    expected = [np.asarray(stats.ttest_1samp(differences, at, alternative=side))[1] for side, at in sides]
    p = equivalence_p(float(differences.mean()), error, 799, 800, margin)
    assert p == pytest.approx(float(np.max(expected)))
    assert equivalence_p(0.02, error, 799, 800, margin) == 1.0
    assert equivalence_p(0.0, 0.0, 99, 100, 0.05) == pytest.approx(0.95**100)  # no clip differs


@pytest.mark.parametrize(("difference", "error", "clusters"), [(0.03, 0.02, 300), (0.01, 0.05, 40), (0.2, 0.15, 12)])
def test_with_the_data_of_a_plan_a_t_test_has_its_power(difference: float, error: float, clusters: int) -> None:
    factor = data_needed(difference, error, clusters)
    assert factor is not None
    freedom = factor * clusters - 1
    shift = difference / (error / factor**0.5)
    power = stats.nct.sf(stats.t.ppf(0.975, freedom), freedom, shift)
    assert power == pytest.approx(0.8, abs=0.01)
    assert detectable(error / factor**0.5, freedom) == pytest.approx(difference, rel=1e-6)
    assert data_needed(0.0, error, clusters) is None
    assert data_needed(difference, 0.0, clusters) is None


def test_a_plan_counts_clips_and_is_done_once_models_differ() -> None:
    plan = plan_task("words", 0.02, 0.02, 0.32, 300, 100, power=0.8)
    more = (1.96 + 0.84) ** 2 * 300 - 300  # at these numbers t is nearly normal
    assert plan.more_clips == pytest.approx(more, rel=0.01)
    assert plan.detectable == pytest.approx(2.8 * 0.02, rel=0.02)
    assert plan_task("words", 0.05, 0.02, 0.01, 300, 100, power=0.8).more_clips == 0
    assert plan_task("words", 0.0, 0.02, 1.0, 300, 100, power=0.8).more_clips is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=7))
def test_tau_equals_scipys_and_lies_within_its_bounds(ranks: list[tuple[int, int]]) -> None:
    first, second = zip(*ranks, strict=True)
    pairs = np.triu_indices(len(ranks), 1)
    signs = [np.sign(np.subtract.outer(side, side))[pairs] for side in (first, second)]
    tau = tau_of_pairs(*signs)
    assert tau == kendall_tau(first, second)
    if tau is None:
        return
    assert tau == pytest.approx(stats.kendalltau(first, second)[0])
    low, high = tau_bounds(*signs)
    assert low - 1e-9 <= tau <= high + 1e-9
    assert tau_bounds(signs[0], np.zeros_like(signs[1])) == (-1, 1)


def pair(first: str, second: str, difference: float, p: float) -> PairTest:
    return PairTest(first, second, difference, [1e-4], [100], p, p)


def test_an_order_holds_under_every_method_if_it_is_significant_under_each() -> None:
    mlp = [pair("a", "b", 0.1, 0.001), pair("a", "c", 0.2, 0.001), pair("b", "c", 0.1, 0.001)]
    knn = [pair("a", "b", 0.1, 0.002), pair("a", "c", 0.1, 0.300), pair("b", "c", -0.1, 0.001)]
    orders = {(order.ahead, order.behind): order for order in orders_under_every([mlp, knn])}
    assert {names: order.verdict for names, order in orders.items()} == {
        ("a", "b"): "ahead",
        ("a", "c"): "same order",
        ("b", "c"): "order changes",
    }
    assert orders["a", "b"].p == pytest.approx(3 * 0.002)  # Holm over three pairs
    models, tau, low, high = correlate(mlp, knn) or (0, 0.0, 0.0, 0.0)
    assert (models, tau) == (3, pytest.approx(1 / 3))
    assert (low, high) == (pytest.approx(-1 / 3), pytest.approx(1 / 3))  # a and c may be in either order


def test_the_bounds_of_ranks_are_consistent_on_a_board(leaderboard: Leaderboard) -> None:
    board = leaderboard.board
    for method in board.methods:
        rows = [row for model in board.models if (row := board.row(model.key, method, "weighted"))]
        for row in rows:
            assert row.standing is not None
            assert row.rank is not None
            assert row.standing.place <= row.rank <= row.standing.last
            assert row.standing.last - row.standing.place == len(row.standing.tied)
        standings = {board.label(row.model): row.standing for row in rows if row.standing is not None}
        assert (standings["poor"].place, standings["poor"].last) == (4, 4)
    assert true_ranks([0.5, 0.5, 0.1]) == [(1, 2), (1, 2), (3, 3)]


def test_frames_have_the_certainty_of_ranks(leaderboard: Leaderboard) -> None:
    pairs, averages = leaderboard.pairs_frame(), leaderboard.averages_frame()
    assert len(pairs) == 3 * 6
    assert set(pairs[pairs.method == EVERY].verdict) <= {"ahead", "same order", "order changes"}
    of_method = pairs[pairs.method != EVERY]
    assert ((of_method.low <= of_method.difference) & (of_method.difference <= of_method.high)).all()
    equal = of_method[of_method.verdict == "practically equal"]
    names = {frozenset(pair) for pair in zip(equal.model, equal.other, strict=True)}
    assert frozenset(("good", "near")) in names
    assert not any("poor" in pair for pair in names)
    headline = averages[(averages.scope == "suite") & (averages.average == "weighted")]
    assert (headline.rank_low <= headline["rank"]).all()
    assert (headline["rank"] <= headline.rank_high).all()
    (tau,) = leaderboard.correlations_frame().to_dict("records")
    assert tau["low"] <= tau["tau"] <= tau["high"]


def test_every_form_of_the_board_has_the_certainty_of_its_ranks(results: Path, leaderboard: Leaderboard) -> None:
    board, sure = leaderboard.board, leaderboard.certainty
    shown = text_of(leaderboard)
    assert "of 6 pairs have a significant order under every method (MLP, kNN): " in shown
    assert "Rank correlation of MLP and kNN: tau-b " in shown
    assert "practically equal, with a margin of 12 points: " in shown
    data = json.loads(render_json(board))
    assert [row["verdict"] for row in data["pairs"]] == [row.verdict for row in sure.pairs]
    assert data["rank_correlations"][0]["tau"] == sure.correlations[0].tau
    rows = list(csv.DictReader(io.StringIO(render_csv(board))))
    assert sum(row["kind"] == "pair" for row in rows) == len(sure.pairs)
    assert {row["rank_high"] for row in rows if row["kind"] == "average" and row["model"] == "poor"} == {"4"}
    assert "| Rank | Place | Ranks | Model |" in render_markdown(board)
    assert list(page_data(board, {})["certainty"]["pairs"]) == data["pairs"]
    with pytest.raises(UsageError, match="--margin: 0 is not between"):
        api.leaderboard(results, margin=0)


@pytest.mark.parametrize(
    ("skill", "said"), [(0.3, "A significant order under every method (MLP, kNN): good > other"), (0.79, "")]
)
def test_of_two_models_nothing_is_said_that_two_points_cannot_say(tmp_path: Path, skill: float, said: str) -> None:
    make_board_results(tmp_path, {"good": 0.8, "other": skill})
    board = api.leaderboard(tmp_path)
    shown = text_of(board)
    assert said in shown
    assert "Rank correlation" not in shown
    assert "of 1 pairs" not in shown
    assert board.correlations_frame().empty
    assert len(board.pairs_frame()) == 3


def test_compare_says_what_would_tell_two_models_apart(
    results: Path, leaderboard: Leaderboard, uwbench: Command
) -> None:
    words = ("compare", "good", "near", "--results", results, "--plan")
    shown = uwbench(*words)
    assert shown.code == 0, shown.err
    assert "To tell A and B apart: MLP probe, power 80%" in shown.out
    assert "or more tasks" in shown.out
    comparison = leaderboard.compare("good", "near")
    plan = comparison.plan()
    assert json.loads(uwbench(*words, "--json").out)["plan"] == json.loads(json.dumps(asdict(plan)))
    frame = plan.to_frame()
    assert list(frame.clips) == [task.clips for task in comparison.tasks]
    assert (plan.averages_frame()["tasks"] == len(comparison.tasks)).all()
    apart = leaderboard.compare("best", "poor").plan()
    assert all(row.more_clips == 0 for row in apart.averages)


def text_of(view: object) -> str:
    out = io.StringIO()
    Console(file=out, width=200, no_color=True, highlight=False).print(view)
    return out.getvalue()


def test_curves_layers_limits_and_ranks_over_methods_are_in_frames_and_files(tmp_path: Path) -> None:
    make_board_results(tmp_path, {"good": 0.8, "poor": 0.4}, TASKS[:2], further=True)
    board = api.leaderboard(tmp_path)
    curves, layers, limits, ranks = (
        board.curves_frame(),
        board.layers_frame(),
        board.noise_limits_frame(),
        board.ranks_frame(),
    )
    assert set(curves["method"]) == {"few-shot"}
    assert len(curves) == 2 * 2 * 3
    assert curves.loc[curves["shots"].isna(), "clips"].tolist() == [30, 40] * 2
    assert (curves["low"] <= curves["score"]).all()
    assert set(layers["name"]) == {"1", "2", "3"}
    assert set(limits["method"]) == {"mlp", "knn"}
    assert ranks.to_dict("records") == [
        {"model": "good", "methods": 3, "best": 1, "worst": 1, "low": 1, "high": 1},
        {"model": "poor", "methods": 3, "best": 2, "worst": 2, "low": 2, "high": 2},
    ]
    kinds = [row["kind"] for row in csv.DictReader(io.StringIO(board.to_csv() or ""))]
    for kind, rows in (("curve", curves), ("layer", layers), ("noise limit", limits), ("ranks over methods", ranks)):
        assert kinds.count(kind) == len(rows)
    lists = json.loads(board.to_json() or "")
    for name, rows in (("curves", curves), ("layers", layers), ("noise_limits", limits), ("rank_envelopes", ranks)):
        assert len(lists[name]) == len(rows)
