"""Transcription: characters planted in frames are read back; the score is jiwer's; slow hops can still spell."""

from __future__ import annotations

import json
from dataclasses import replace

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.made_data import card, task_data
from uwbench.cards.find import find_protocol
from uwbench.cards.protocol import Protocol
from uwbench.errors import ProbeError
from uwbench.probes.data import Frames, TaskData
from uwbench.probes.kinds.transcription import BLANK, Transcription
from uwbench.probes.run import run_probes
from uwbench.results.bootstrap import seed_scores
from uwbench.results.items import read_items

UWBENCH = find_protocol("uwbench-1")
FEW: Protocol = UWBENCH.model_copy(
    update={
        "mlp": UWBENCH.mlp.model_copy(
            # On 20 clips, about one seed in three never learns more than blanks; these two learn.
            update={"widths": (0,), "learning_rates": (0.03,), "weight_decays": (0.01,), "seeds": (2, 3)}
        )
    }
)
SIGNS = " abcd"


def made(clips: int = 60, hop_s: float = 0.02, noise: float = 0.1, signs_a_frame: int = 1) -> TaskData:
    """Each frame leans to the characters it covers; some frames of nothing lie between."""
    rng = np.random.default_rng(5)
    directions = rng.normal(size=(signs_a_frame, len(SIGNS), 12))
    texts, values, counts = [], [], []
    for _ in range(clips):
        text = " ".join(rng.choice(["ab", "ba", "cab", "dad"], 4))
        padded = text + " " * (-len(text) % signs_a_frame)
        rows = []
        for start in range(0, len(padded), signs_a_frame):
            row = sum(directions[place, SIGNS.index(sign)] for place, sign in enumerate(padded[start:][:signs_a_frame]))
            rows += [row] if signs_a_frame > 1 else [row] * int(rng.integers(2, 4)) + [np.zeros(12)]
        x = np.stack(rows)
        texts.append(text.upper())
        values.append(x + noise * rng.normal(size=x.shape))
        counts.append(len(x))
    frames = Frames(np.concatenate(values).astype(np.float16), np.cumsum([0, *counts]), hop_s)
    splits = [("train", "valid", "test")[3 * row // clips] for row in range(clips)]
    return task_data(
        card("transcription", metric="one-minus-wer"), np.zeros((clips, 2)), texts, splits=splits, frames=frames
    )


def test_planted_characters_are_read_back() -> None:
    outcome = run_probes(made(noise=0.6), FEW)
    assert set(outcome.scores) == {"mlp"}
    score = outcome.scores["mlp"]
    assert 0.5 < score.main_score <= 1
    rows = outcome.predictions.to_pylist()
    for seed, value in zip(FEW.mlp.seeds, score.per_seed, strict=True):
        own = [row for row in rows if row["seed"] == seed]
        truth, predicted = ([json.loads(row[name]) for row in own] for name in ("truth", "prediction"))
        assert value == pytest.approx(max(0.0, 1 - jiwer.wer(truth, predicted)))
    items = read_items(outcome.predictions, "mlp", "one-minus-wer")
    np.testing.assert_allclose(seed_scores(items), score.per_seed)


def test_noise_scores_nothing() -> None:
    data = made()
    assert data.frames is not None
    noise = np.random.default_rng(0).normal(size=np.asarray(data.frames.values).shape).astype(np.float16)
    frames = replace(data.frames, values=noise)
    assert run_probes(replace(data, frames=frames), FEW).scores["mlp"].main_score < 0.35


def test_an_encoder_of_long_hops_can_spell() -> None:
    """Two characters a frame of 80 ms: one output a frame could write half of them at most."""
    score = run_probes(made(hop_s=0.08, signs_a_frame=2), FEW).scores["mlp"]
    assert score.main_score > 0.3


@given(st.text(alphabet=SIGNS, max_size=12), st.data())
def test_spelling_undoes_any_alignment(text: str, data: st.DataObject) -> None:
    """Repeat each character any number of times, blanks between and around: the same text with single spaces."""
    kind = Transcription(made(clips=3))
    number = {sign: code for code, sign in enumerate(kind.classes, start=1)}
    path: list[int] = []
    for at, sign in enumerate(text):
        least = 1 if at and text[at - 1] == sign else 0  # equal neighbours are told apart by a blank
        path += [BLANK] * data.draw(st.integers(least, 2)) + [number[sign]] * data.draw(st.integers(1, 3))
    assert kind.spell(np.array(path, int)) == " ".join(text.split())


def test_the_choice_never_sees_the_test_part() -> None:
    data = made()
    assert data.frames is not None
    values = np.array(data.frames.values)
    values[int(data.frames.offsets[40]) :] = 0
    blind = replace(data, frames=replace(data.frames, values=values))
    first, second = (run_probes(part, FEW).scores["mlp"] for part in (data, blind))
    assert first.chosen == second.chosen
    assert first.main_score > second.main_score


def test_clips_without_frames_and_unknown_signs_are_errors_of_theirs_alone() -> None:
    data = made()
    assert data.frames is not None
    offsets = data.frames.offsets.copy()
    values = np.asarray(data.frames.values)[: int(offsets[-2])]
    offsets[-1] = offsets[-2]  # the last test clip has no frames
    labels = [*data.labels[:-2], "zzz zzz zzz zzz", data.labels[-1]]
    outcome = run_probes(replace(data, labels=labels, frames=replace(data.frames, values=values, offsets=offsets)), FEW)
    rows = {row["id"]: row for row in outcome.predictions.to_pylist()}
    assert rows[data.ids[-1]]["prediction"] == '""'
    assert rows[data.ids[-1]]["counts"] == [4, 4]
    assert rows[data.ids[-2]]["counts"][0] >= 4
    assert outcome.scores["mlp"].main_score == pytest.approx(0.9, abs=0.06)


def test_what_cannot_be_scored_is_said() -> None:
    with pytest.raises(ProbeError, match="uwbench-1"):
        run_probes(made(), find_protocol("xares-0.1.3"))
    with pytest.raises(ProbeError, match="runs none of knn"):
        run_probes(made(), FEW, methods=["knn"])
    with pytest.raises(ProbeError, match="clip-00000: a text expected"):
        run_probes(replace(made(), labels=[("a",)] * 60), FEW)
