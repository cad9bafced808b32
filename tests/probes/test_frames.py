"""Frame targets and segments follow the clock: the definitions, spelt out frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from probes.made_data import card, frame_task, task_data
from uwbench.audio.clip import Event
from uwbench.cards.find import find_protocol
from uwbench.errors import ProbeError
from uwbench.probes.data import Frames
from uwbench.probes.kinds.frames import FrameLabels, frame_targets, segment_count, segment_truth
from uwbench.probes.run import run_probes
from uwbench.results.record import Method


@pytest.mark.parametrize("hop_ms", [10, 20, 40])
@given(st.integers(0, 3000), st.integers(1, 3000))
def test_an_event_gives_exactly_the_frames_whose_centres_it_covers(hop_ms: int, onset_ms: int, length_ms: int) -> None:
    frames = 4000 // hop_ms
    targets = frame_targets([(onset_ms / 1000, (onset_ms + length_ms) / 1000, 0)], frames, hop_ms / 1000, 1)[:, 0]
    # In half milliseconds, as integers: the centre of frame t is at (2 t + 1) * hop.
    centres = (2 * np.arange(frames) + 1) * hop_ms
    clear = (centres != 2 * onset_ms) & (centres != 2 * (onset_ms + length_ms))  # elsewhere float decides
    wanted = (centres >= 2 * onset_ms) & (centres < 2 * (onset_ms + length_ms))
    np.testing.assert_array_equal(targets[clear], wanted[clear])


def test_a_unit_event_at_known_times() -> None:
    for hop, first, last in ((0.01, 100, 199), (0.02, 50, 99), (0.04, 25, 49)):
        positive = np.flatnonzero(frame_targets([(1.0, 2.0, 0)], round(3 / hop), hop, 1)[:, 0])
        assert (positive[0], positive[-1], len(positive)) == (first, last, last - first + 1)


@given(st.integers(0, 50), st.integers(1, 30), st.sampled_from([1, 10]))
def test_segments_are_those_that_an_event_overlaps(onset: int, length: int, tenths: int) -> None:
    stop, segment_s = onset + length, tenths / 10
    truth = segment_truth([(onset / 10, stop / 10, 0)], 5.3, segment_s, 1)[:, 0]
    wanted = [onset < (j + 1) * tenths and stop > j * tenths for j in range(segment_count(5.3, segment_s))]
    assert truth.tolist() == wanted


def test_the_last_partial_segment_counts() -> None:
    assert [segment_count(d, 1.0) for d in (0.2, 1.0, 9.0, 9.98, 10.0)] == [1, 1, 9, 10, 10]
    assert segment_count(0.3, 0.1) == 3


def kind(hop_s: float) -> FrameLabels:
    """Two clips of 2.5 s: `a` sounds from 0.2 to 1.1 s in the first, nothing in the second."""
    n = round(2.5 / hop_s)
    frames = Frames(np.zeros((2 * n, 4), np.float16), np.array([0, n, 2 * n]), hop_s)
    labels = [(Event(0.2, 1.1, "a"),), ()]
    made = card("frame-multi-label", splits={"train": "t", "test": "u"})
    splits = ["train", "train"]
    return FrameLabels(
        task_data(made, np.zeros((2, 4)), labels, splits=splits, frames=frames, durations_s=np.array([2.5, 2.5]))
    )


@pytest.mark.parametrize("hop_s", [0.01, 0.02, 0.04])
def test_perfect_frames_score_one_at_any_hop(hop_s: float) -> None:
    labels = kind(hop_s)
    clips = np.arange(2)
    items = labels.items(clips)
    predicted = labels.predict(labels.targets(items), items, clips)
    assert labels.measure(predicted, clips) == 1
    assert predicted.counts is not None
    assert predicted.counts.tolist() == [[2, 0, 0], [0, 0, 0]]
    assert predicted.texts == ['["a"]', "[]"]


def test_one_positive_frame_makes_its_segment_positive() -> None:
    labels = kind(0.02)
    scores = np.zeros((250, 1))
    scores[[110, 130]] = 0.5  # both in the last, half segment of the first clip and the first of the second
    predicted = labels.predict(scores, labels.items(np.arange(2)), np.arange(2))
    assert predicted.counts is not None
    assert predicted.counts.tolist() == [[0, 1, 2], [0, 1, 0]]


def test_a_sample_holds_whole_segments_and_is_scored_on_them() -> None:
    data = frame_task()
    labels = FrameLabels(data)
    clips = np.arange(len(data.ids))
    items = labels.sample(clips, 600)
    assert 300 < len(items) < 900
    predicted = labels.predict(labels.targets(items), items, clips)
    everything = labels.predict(labels.targets(labels.items(clips)), labels.items(clips), clips)
    assert predicted.counts is not None
    assert everything.counts is not None
    assert 0 < predicted.counts.sum() < everything.counts.sum()
    assert (predicted.counts <= everything.counts).all()


@given(st.integers(1, 2000))
def test_thinning_is_even(limit: int) -> None:
    labels = FrameLabels(frame_task(clips=9))
    clips = np.array([0, 2, 3, 7])
    whole, thin = labels.items(clips), labels.thin(clips, limit)
    assert len(thin) == min(limit, len(whole))
    places = np.searchsorted(whole, thin)
    np.testing.assert_array_equal(whole[places], thin)
    if len(thin) > 1:
        assert np.ptp(np.diff(places)) <= 1


def test_a_run_equals_scikit_learn_on_its_own_predictions() -> None:
    """The micro-F1 of a nearest-neighbour run, recomputed from a plain search and scikit-learn."""
    data = frame_task(hop_s=0.1)
    assert data.frames is not None
    assert data.splits is not None
    labels = FrameLabels(data)
    outcome = run_probes(data, find_protocol("uwbench-1"), methods=["knn"])
    train, test = (np.flatnonzero(np.array(data.splits) == part) for part in ("train", "test"))
    x = data.frames.rows(np.arange(len(data.frames.values))).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    bank, queries = labels.items(train), labels.items(test)
    similarity = x[queries] @ x[bank].T
    near = np.argsort(-similarity, axis=1, kind="stable")[:, :10]
    weights = np.exp(np.take_along_axis(similarity, near, axis=1) / 0.07)
    votes = (weights[:, :, None] * labels.targets(bank)[near]).sum(axis=1) / weights.sum(axis=1, keepdims=True)
    truth, predicted = [], []
    for row in test:
        frames = labels.items(np.array([row]))
        scores = votes[np.searchsorted(queries, frames)]
        second = ((np.arange(len(frames)) + 0.5) * 0.1).astype(int)
        for j in range(int(np.ceil(data.durations_s[row]))):
            predicted.append((scores[second == j] >= 0.5).any(axis=0))
            events = [labels.events[row][i] for i in range(len(labels.events[row]))]
            truth.append([any(c == code and on < j + 1 and off > j for on, off, c in events) for code in range(3)])
    wanted = f1_score(np.array(truth), np.array(predicted), average="micro")
    assert outcome.scores["knn"].main_score == pytest.approx(wanted, abs=0.01)
    assert wanted > 0.6


@pytest.mark.parametrize(("method", "settings"), [("mlp", "test_frames"), ("knn", "query_frames")])
def test_a_long_test_part_is_scored_on_the_segments_that_are_drawn(method: Method, settings: str) -> None:
    """Of the same windows under every seed, each scored as in a run that predicts all of them."""
    data = frame_task(clips=60)
    protocol = find_protocol("uwbench-1")
    few = {"learning_rates": (0.01,), "weight_decays": (0.01,), "seeds": (0, 1), "epochs": 5} if method == "mlp" else {}

    def counts(limit: int) -> np.ndarray:
        """Hits, false alarms and misses `(seeds, clips, 3, classes)`."""
        own = getattr(protocol, method).model_copy(update={**few, settings: limit})
        table = run_probes(data, protocol.model_copy(update={method: own}), methods=[method]).predictions
        return np.array(table["counts"].to_pylist()).reshape(-1, 20, 3, 3)

    everything, drawn = counts(10_000), counts(300)
    labels = FrameLabels(data)
    test = np.flatnonzero(np.array(data.splits) == "test")
    frames = labels.sample(test, 300)
    assert 150 < len(frames) < 450 < len(labels.items(test))
    assert 0 < drawn.sum() < 0.8 * everything.sum()
    assert (drawn <= everything).all()
    true = labels.predict(labels.targets(frames), frames, test).counts
    assert true is not None
    wanted = true.reshape(20, 3, 3)
    for seed in drawn:  # hits and misses together are the true windows
        np.testing.assert_array_equal(seed[:, 0] + seed[:, 2], wanted[:, 0] + wanted[:, 2])


def test_labels_that_are_no_events_are_refused() -> None:
    frames = Frames(np.zeros((2, 3), np.float16), np.array([0, 1, 2]), 0.02)
    data = task_data(card("frame-multi-label"), np.zeros((2, 3)), ["a", "b"], splits=["train", "test"], frames=frames)
    with pytest.raises(ProbeError, match="clip-00000: events expected"):
        FrameLabels(data)
