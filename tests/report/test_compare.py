"""`compare` finds real differences, and its false positives are as rare as it claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from report.made_results import TASKS, make_board_results, make_result
from uwbench.errors import UsageError
from uwbench.report.build import build_board
from uwbench.report.compare import compare_models, draw_tasks_too, find_model
from uwbench.report.sensitivity import sensitivity
from uwbench.report.ties import TaskDraws, difference_terms, p_value
from uwbench.results.averages import Entry
from uwbench.results.bootstrap import difference_interval, paired_replicates
from uwbench.results.items import Items
from uwbench.results.ranks import kendall_tau


def rivals(rng: np.random.Generator, clusters: int, size: int, gap: float = 0.0) -> list[Items]:
    """Return two models of equal expected accuracy, apart from `gap`, with similar errors on clustered items."""
    n = clusters * size
    cluster = np.repeat(np.arange(clusters), size)
    ease = rng.normal(size=clusters)[cluster] * 0.6 + rng.normal(size=n)
    models = []
    for shift in (gap, 0.0):
        # A model's strengths are clustered too.
        strength = rng.normal(size=clusters)[cluster] * 0.3 + rng.normal(size=n) * 0.7
        right = (ease + strength + shift > -0.8).astype(int)
        models.append(
            Items("accuracy", np.arange(n).astype(str), cluster, np.zeros(n, int), (0,), np.ones(n, int), right[None])
        )
    return models


def score_of(items: Items) -> float:
    assert items.predicted is not None
    return float((items.predicted == 1).mean())


@pytest.mark.parametrize(("clusters", "size"), [(200, 1), (30, 6)])
def test_equal_models_differ_significantly_five_times_in_a_hundred(clusters: int, size: int) -> None:
    rng, called, runs = np.random.default_rng(11), 0, 1500
    for _ in range(runs):
        pair = rivals(rng, clusters, size)
        draws = paired_replicates(pair, 200, rng, [rng, rng])
        difference = score_of(pair[0]) - score_of(pair[1])
        called += p_value(difference, [float((draws[0] - draws[1]).var())], [clusters]) < 0.05
    assert abs(called / runs - 0.05) < 0.02


def test_equal_models_differ_significantly_overall_five_times_in_a_hundred() -> None:
    rng, called, runs = np.random.default_rng(12), 0, 600
    wide_called = 0
    for _ in range(runs):
        pairs = [rivals(rng, clusters, 3) for clusters in (20, 40, 60, 30)]
        draws = []
        entries: tuple[list[Entry], list[Entry]] = ([], [])
        for index, pair in enumerate(pairs):
            scores = paired_replicates(pair, 200, rng, [rng, rng])
            draws.append(TaskDraws({"a": scores[0], "b": scores[1]}, pair[0].n_clusters))
            for of_model, items in zip(entries, pair, strict=True):
                of_model.append(Entry(f"t{index}", "sound", float(index + 1), 0.0, score_of(items)))
        called += p_value(*difference_terms(entries[0], entries[1], draws, ("a", "b"), "weighted")) < 0.05
        first, second = (np.stack([task.scores[model] for task in draws]) for model in ("a", "b"))
        wider = draw_tasks_too("task", entries[0], first, second, rng)
        gap = float(np.mean([a.score - b.score for a, b in zip(*entries, strict=True)]))
        wide_called += p_value(gap, [float(wider.var())], [len(pairs)]) < 0.05
    assert abs(called / runs - 0.05) < 0.02
    assert wide_called / runs < 0.07  # drawing tasks too counts the items' noise twice: on the safe side


def test_a_real_difference_is_found() -> None:
    rng, called = np.random.default_rng(13), 0
    for _ in range(100):
        pair = rivals(rng, 200, 2, gap=0.5)
        draws = paired_replicates(pair, 200, rng, [rng, rng])
        called += p_value(score_of(pair[0]) - score_of(pair[1]), [float((draws[0] - draws[1]).var())], [200]) < 0.05
    assert called > 90


def test_a_comparison_names_tasks_effects_and_overall(tmp_path: Path) -> None:
    make_board_results(tmp_path, {"good": 0.8, "poor": 0.5})
    make_result(tmp_path, "half", TASKS[0], 0.6)
    board = build_board(tmp_path)
    comparison = compare_models(board, "good", "poor", "mlp")
    assert [row.task for row in comparison.tasks] == [task.info.name for task in board.tasks]
    for row in comparison.tasks:
        assert row.low is not None
        assert row.high is not None
        assert row.p is not None
        assert row.p_corrected is not None
        assert row.low < row.difference < row.high
        assert row.difference == pytest.approx(row.first - row.second)
        assert row.p <= row.p_corrected
        assert row.effect > 0
    weighted = comparison.overall[0]
    assert weighted.average == "weighted"
    assert weighted.p < 0.01
    assert weighted.tasks_low < weighted.low
    assert weighted.ahead > 0.95
    back = compare_models(board, "poor", "good", "mlp")
    assert back.overall[0].difference == pytest.approx(-weighted.difference)
    part = compare_models(board, "good", "half", "knn")
    assert [row.task for row in part.tasks] == ["words"]
    assert len(part.left_out) == 5


def test_models_are_found_by_label_name_fingerprint_and_parts_of_these(tmp_path: Path) -> None:
    make_result(tmp_path, "openai/whisper-base", TASKS[0], 0.7, fingerprint="ab" * 32)
    make_result(tmp_path, "openai/whisper-base", TASKS[0], 0.6, fingerprint="ef" * 32, context="trimmed")
    make_result(tmp_path, "openai/whisper-tiny", TASKS[0], 0.5)
    make_result(tmp_path, "logmel", TASKS[0], 0.4)
    board = build_board(tmp_path)
    for name in ("openai/whisper-base", "whisper-base", "WHISPER-BASE", "ab" * 4, "ab" * 2, "ab" * 32):
        assert board.label(find_model(board, name)) == "openai/whisper-base"
    for name in ("openai/whisper-base (trimmed)", "whisper-base (trimmed)", "trimmed", "ef" * 4):
        assert board.label(find_model(board, name)) == "openai/whisper-base (trimmed)"
    assert board.label(find_model(board, "tiny")) == "openai/whisper-tiny"
    for model in board.models:
        assert find_model(board, model.label) == find_model(board, model.key) == model.key
    with pytest.raises(UsageError, match=r"one of 'openai/whisper-base', 'openai/whisper-base .trimmed.', 'openai/w"):
        find_model(board, "whisper")
    with pytest.raises(UsageError, match="did you mean logmel"):
        find_model(board, "logmell")


def test_sensitivity_shows_whose_rank_depends_on_one_task(tmp_path: Path) -> None:
    make_board_results(tmp_path, {"broad": 0.7, "poor": 0.3})
    for task in TASKS:
        make_result(tmp_path, "one-sided", task, 0.95 if task.name == "words" else 0.5)
    board = build_board(tmp_path)
    keys = {model.label: model.key for model in board.models}
    result = sensitivity(board, "mlp")
    assert result is not None
    views = {(view.kind, view.name): view for view in result.views}
    assert views["average", "weighted"].ranks[keys["one-sided"]] == 1
    assert views["without task", "words"].ranks[keys["one-sided"]] == 2
    assert views["borda", "borda"].ranks[keys["broad"]] == 1
    assert (result.best[keys["one-sided"]], result.worst[keys["one-sided"]]) == (1, 2)
    assert views["average", "weighted"].tau == 1.0
    assert {name for kind, name in views if kind == "without domain"} == {"speech", "sound", "music"}


def test_sensitivity_shows_whose_rank_depends_on_the_number_of_neighbours(tmp_path: Path) -> None:
    for task in TASKS:
        make_result(tmp_path, "broad", task, 0.7, one_neighbour=0.3)
        make_result(tmp_path, "near", task, 0.5, one_neighbour=0.6)
    board = build_board(tmp_path)
    keys = {model.label: model.key for model in board.models}
    result = sensitivity(board, "knn")
    assert result is not None
    settings = {view.name: view for view in result.views if view.kind == "setting"}
    assert list(settings) == ["k=1", "standardised k=20"]
    assert settings["k=1"].ranks == {keys["near"]: 1, keys["broad"]: 2}
    assert settings["k=1"].tau == -1
    assert set(settings["standardised k=20"].ranks.values()) == {1}
    probed = sensitivity(board, "mlp")
    assert probed is not None
    assert not [view for view in probed.views if view.kind == "setting"]


def test_the_interval_of_a_difference_excludes_zero_exactly_if_p_is_small() -> None:
    rng = np.random.default_rng(14)
    for gap in (0.0, 0.2, 0.4):
        for _ in range(40):
            pair = rivals(rng, 25, 4, gap=gap)
            draws = paired_replicates(pair, 200, rng, [rng, rng])
            terms = score_of(pair[0]) - score_of(pair[1]), [float((draws[0] - draws[1]).var())], [25]
            low, high = difference_interval(*terms, 0.95)
            assert (low > 0 or high < 0) == (p_value(*terms) < 0.05)


def test_kendall_tau_equals_scipy() -> None:
    from scipy.stats import kendalltau

    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.integers(1, 5, (2, 8)).tolist()
        assert kendall_tau(first, second) == pytest.approx(kendalltau(first, second)[0])
