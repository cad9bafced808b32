"""Validation is carved out of training clips by group, each class in proportion, whatever the order of clips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from probes.made_data import card, shuffled, single_label, task_data
from uwbench.audio.clip import Labels
from uwbench.cards.find import find_protocol
from uwbench.errors import ProbeError
from uwbench.probes.kinds import kind_of
from uwbench.probes.splits import carve, plan_folds, random_numbers, subsample

SETTINGS = find_protocol("uwbench-1").mlp


def folded(n: int = 100, groups: int = 20):
    rng = np.random.default_rng(3)
    labels: list[Labels] = [f"c{code}" for code in rng.integers(0, 4, n)]
    folds = [str(row % groups % 5) for row in range(n)]
    made = card(folds=["0", "1", "2", "3", "4"], splits=None)
    return task_data(
        made, rng.normal(size=(n, 3)), labels, folds=folds, groups=[f"g{row % groups}" for row in range(n)]
    )


def test_no_clip_and_no_group_is_on_both_sides() -> None:
    data = folded()
    folds = plan_folds(data, SETTINGS, kind_of(data).strata(), 0)
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested) == list(range(100))
    for fold in folds:
        assert fold.validation == "carved by group"
        parts = [fold.train, fold.valid, fold.test]
        assert sorted(np.concatenate(parts)) == list(range(100))
        groups = [{data.groups[row] for row in part} for part in parts]
        assert len(set.union(*groups)) == sum(map(len, groups))


def test_folds_do_not_depend_on_the_order_of_clips() -> None:
    data = folded()
    other = shuffled(data, 1)

    def ids(one) -> list[list[list[str]]]:
        folds = plan_folds(one, SETTINGS, kind_of(one).strata(), 0)
        return [[[one.ids[row] for row in part] for part in (fold.train, fold.valid, fold.test)] for fold in folds]

    assert ids(data) == ids(other)


@given(st.integers(0, 1000), st.integers(2, 6), st.integers(40, 200))
@example(0, 6, 198)
def test_classes_are_carved_in_proportion(seed: int, classes: int, n: int) -> None:
    strata = [(row % classes,) for row in range(n)]
    chosen, how = carve(strata, [None] * n, 0.2, random_numbers("t", seed))
    assert how == "carved by clip"
    counts = np.bincount(np.array(strata)[chosen, 0], minlength=classes)
    sizes = np.bincount(np.arange(n) % classes)
    wanted = np.maximum(np.rint(0.2 * sizes), 1)
    # No class gets more than its share; where the rounded shares are more than a fifth of all clips, the last ones go.
    assert (counts <= wanted).all()
    assert counts.sum() == min(wanted.sum(), round(0.2 * n))


@given(st.integers(0, 1000), st.integers(2, 8))
def test_groups_stay_whole_and_something_is_left_to_train_on(seed: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"g{code}" for code in rng.integers(0, groups, 60)]
    strata = [(int(code),) for code in rng.integers(0, 3, 60)]
    chosen, _ = carve(strata, names, 0.2, random_numbers("t", seed))
    assert chosen.any()
    assert not chosen.all()
    if len(set(names)) > 1:
        assert not {n for n, c in zip(names, chosen, strict=True) if c} & {
            n for n, c in zip(names, chosen, strict=True) if not c
        }


def test_a_single_group_is_carved_by_clip_and_said_so() -> None:
    chosen, how = carve([(0,), (1,)] * 20, ["one"] * 40, 0.2, random_numbers("t"))
    assert how == "carved by clip"
    assert 0 < chosen.sum() < 40


def test_a_published_validation_part_is_used_as_it_is() -> None:
    data = single_label()
    (fold,) = plan_folds(data, SETTINGS, kind_of(data).strata(), 0)
    assert fold.validation == "published"
    assert len(fold.valid) == 80


def test_xares_selects_on_the_test_fold_and_says_so() -> None:
    data = folded()
    for fold in plan_folds(data, find_protocol("xares-0.1.3").mlp, kind_of(data).strata(), 0):
        assert "leak" in fold.validation
        np.testing.assert_array_equal(fold.valid, fold.test)


def test_a_subsample_keeps_the_proportions() -> None:
    strata = [(0,)] * 900 + [(1,)] * 100
    kept = subsample(np.arange(1000), strata, 100, random_numbers("t"))
    assert np.bincount([strata[row][0] for row in kept]).tolist() == [90, 10]


def test_an_empty_test_part_is_an_error_that_names_the_task() -> None:
    data = task_data(card(), np.zeros((4, 2)), ["a", "b", "a", "b"], splits=["train"] * 4)
    with pytest.raises(ProbeError, match="made: 4 clips to train on and 0 to test"):
        plan_folds(data, SETTINGS, kind_of(data).strata(), 0)


def test_a_test_label_that_is_never_trained_is_an_error_that_names_the_clip() -> None:
    labels = ["a", "b", "a", "z"]
    data = task_data(card(), np.zeros((4, 2)), labels, splits=["train", "train", "valid", "test"])
    with pytest.raises(ProbeError, match="clip-00003: the label 'z' is no class"):
        kind_of(data)
