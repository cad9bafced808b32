"""The attentive probe: what it finds and the mean does not, its statistics, its choice, and its way to the segments."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import uwbench
from probes.made_data import card, multi_label, single_label, spread_over_segments, task_data, with_segments
from uwbench.cards.find import find_protocol
from uwbench.cards.protocol import Protocol
from uwbench.errors import ProbeError
from uwbench.probes.data import TaskData
from uwbench.probes.kinds import kind_of
from uwbench.probes.methods import attentive
from uwbench.probes.reproduce import reproduce
from uwbench.probes.run import run_probes
from uwbench.probes.search import Attention, Search
from uwbench.results.bootstrap import seed_scores
from uwbench.results.items import read_items

UWBENCH = find_protocol("uwbench-1")


def with_grid(**fields: object) -> Protocol:
    """The default protocol with two seeds, and a grid of one point for attention unless others are given."""
    grid = {"learning_rates": [0.01], "weight_decays": [0.01], **fields}
    methods = {"attentive": {**UWBENCH.methods["attentive"], **grid}}
    mlp = UWBENCH.mlp.model_copy(update={"seeds": (0, 1), "learning_rates": (0.01,), "weight_decays": (0.01,)})
    return UWBENCH.model_copy(update={"methods": methods, "mlp": mlp})


FEW = with_grid()
QUICK = FEW.model_copy(update={"mlp": FEW.mlp.model_copy(update={"epochs": 8})})


def quiet(layers: int, n: int = 480, dim: int = 16) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Return the leaves `(n, layers, 8, dim)` of clips of noise, their classes, and the generator."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, layers, 8, dim)), np.arange(n) % 4, rng


def in_thirds(leaves: np.ndarray, codes: np.ndarray) -> TaskData:
    splits = [("train", "valid", "test")[int(3 * row / len(codes))] for row in range(len(codes))]
    made = task_data(card(), leaves[:, 0, 0], [f"c{code}" for code in codes], splits=splits)
    return with_segments(made, leaves)


def test_attention_finds_a_class_in_one_part_of_the_clip_and_the_mean_cannot() -> None:
    """Of two of a clip's parts, one has its class and a mark, the other the opposite: they cancel in the mean."""
    leaves, codes, rng = quiet(layers=1)
    event = 4 * np.eye(16)[codes] + 3 * np.eye(16)[4]
    places = rng.choice([0, 2, 4, 6], len(codes))
    leaves[np.arange(len(codes)), 0, places] += event
    leaves[np.arange(len(codes)), 0, places + 1] -= event
    outcome = run_probes(in_thirds(leaves, codes), FEW, methods=["mlp", "attentive"])
    assert outcome.scores["mlp"].main_score < 0.35  # chance is 0.25
    assert outcome.scores["attentive"].main_score > 0.8
    assert outcome.scores["attentive"].settings == FEW.methods["attentive"]


def test_attention_over_all_layers_finds_the_one_that_has_the_class() -> None:
    leaves, codes, _ = quiet(layers=3)
    leaves[:, 1] += 2 * np.eye(16)[codes][:, None]
    score = run_probes(in_thirds(leaves, codes), FEW, methods=["attentive"]).scores["attentive"]
    assert score.main_score < 0.35  # of the last layer
    assert score.raw["all layers"] > 0.8
    assert score.chosen["layer"] == "layer 2"
    assert score.chosen["all_layers"]["layers"] == ["layer 0", "layer 1", "layer 2"]


@pytest.mark.parametrize("make", [single_label, multi_label])
def test_it_is_scored_from_its_predictions_and_repeats_itself(make: Callable[[], TaskData]) -> None:
    data = spread_over_segments(make())
    first, again, other = (run_probes(data, QUICK, methods=["attentive"], seed=seed) for seed in (0, 0, 1))
    score = first.scores["attentive"]
    np.testing.assert_allclose(
        seed_scores(read_items(first.predictions, "attentive", score.metric)), score.per_seed, atol=1e-6
    )
    assert score.main_score > 0.4
    assert first.predictions.equals(again.predictions)
    assert not first.predictions.equals(other.predictions)


def test_segments_read_batch_by_batch_give_the_same_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    data = spread_over_segments(single_label())
    at_once = run_probes(data, QUICK, methods=["attentive"])
    monkeypatch.setattr(attentive, "_IN_MEMORY", 0)
    assert run_probes(data, QUICK, methods=["attentive"]).predictions.equals(at_once.predictions)


def test_its_choice_never_sees_the_test_part() -> None:
    data = spread_over_segments(single_label(spread=4.0))
    assert isinstance(data.segments, np.ndarray)
    segments, test = data.segments.copy(), np.array(data.splits) == "test"
    segments[test] = np.random.default_rng(1).normal(size=segments[test].shape)
    names = map(str, data.labels)
    labels = [f"c{(int(name[1:]) + 1) % 4}" if tested else name for name, tested in zip(names, test, strict=True)]
    grid = with_grid(learning_rates=[0.001, 0.01], weight_decays=[0.01, 1.0])
    changed = replace(data, segments=segments, labels=labels)
    first, second = (run_probes(some, grid, methods=["attentive"]).scores["attentive"] for some in (data, changed))
    assert first.chosen == second.chosen
    assert first.main_score > second.main_score


def test_the_segments_of_a_layer_share_their_statistics() -> None:
    data = spread_over_segments(single_label())
    assert isinstance(data.segments, np.ndarray)
    segments = np.concatenate([data.segments, 5 + 3 * data.segments], axis=1).reshape(len(data.ids), 30, -1)
    search = Search(
        kind_of(data),
        UWBENCH.mlp,
        data.card.xares,
        segments.__getitem__,
        seed=0,
        device="cpu",
        attention=Attention(4, 15, 100),
    )
    rows = np.arange(7, 90)
    centre, scale = search._statistics(rows)
    for layer in (slice(0, 15), slice(15, 30)):
        values = segments[rows, layer].reshape(-1, segments.shape[2]).astype(np.float64)
        np.testing.assert_allclose(centre[layer], np.tile(values.mean(0), (15, 1)), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(scale[layer], np.tile(1 / values.std(0), (15, 1)), rtol=1e-5)


def test_large_training_sets_are_thinned_for_the_final_seeds() -> None:
    data = spread_over_segments(single_label())
    thinned = run_probes(data, with_grid(train_clips=40), methods=["attentive"]).scores["attentive"]
    assert [fold["trained_on"] for fold in thinned.chosen["folds"]] == [40]


def test_without_segments_it_says_what_to_do() -> None:
    with pytest.raises(ProbeError, match="no segments to attend over; extract the task with --segments"):
        run_probes(single_label(), FEW, methods=["attentive"])


def test_a_run_extracts_segments_for_it_and_a_probe_without_them_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`probe` fails if the method was named and leaves a note if a group named it; other methods are scored."""
    groups = {"all": ("knn", "attentive")}
    monkeypatch.setattr(Protocol, "in_group", lambda _, name: groups.get(name, (name,)))
    rules = with_grid().model_copy(update={"name": "few"})
    (tmp_path / "few.yaml").write_text(json.dumps(rules.model_dump(mode="json")))
    places: dict[str, Any] = {"cache": tmp_path / "cache", "results": tmp_path / "results"}
    places["protocol"] = str(tmp_path / "few.yaml")
    uwbench.evaluate("mfcc", "mini_sound", methods="knn", **places)
    missing = "not scored by attentive: .* no segments; run: uwbench extract --model mfcc --task mini_sound --segments"
    alone = uwbench.probe("mfcc", "mini_sound", methods="attentive", **places)
    assert alone.exit_code == 1
    assert re.search(missing, alone.failures[0])
    both = uwbench.probe("mfcc", "mini_sound", methods=["knn", "attentive"], **places)
    assert (list(both.to_frame()["method"]), len(both.failures)) == (["knn"], 1)
    every = uwbench.probe("mfcc", "mini_sound", methods="all", **places)
    assert (list(every.to_frame()["method"]), every.failures) == (["knn"], [])
    assert re.search(missing, every.notes[0])
    scored = uwbench.evaluate("mfcc", "mini_sound", methods="attentive", **places)
    assert (scored.failures, scored.extractions[0][2] is None) == ([], False)
    assert set(scored.to_frame()["method"]) == {"knn", "attentive"}
    board = uwbench.leaderboard(places["results"], protocol=places["protocol"], methods="attentive", references=False)
    assert set(board.to_frame()["method"]) == {"attentive"}
    path, result = scored.results[0]
    assert result.scores["attentive"].ci95 is not None
    assert reproduce(path, places["cache"], protocol=rules).equal


def test_ready_vectors_have_no_segments(tmp_path: Path) -> None:
    places: dict[str, Any] = {"cache": tmp_path / "cache", "results": tmp_path / "results"}
    uwbench.extract("mfcc", "mini_sound", **places)
    exported = tmp_path / "vectors.parquet"
    uwbench.load_embeddings("mfcc", "mini_sound", cache=places["cache"]).to_parquet(exported)
    scored = uwbench.evaluate(str(exported), "mini_sound", methods=["knn", "attentive"], **places)
    assert list(scored.to_frame()["method"]) == ["knn"]
    assert "has one ready vector per clip, and no segments" in scored.failures[0]
