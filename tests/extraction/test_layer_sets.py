"""`--layers last` and `--layers all` of one encoder share vectors and are one model in results and on the board."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import uwbench
from spectrum_encoder import SpectrumEncoder
from tones import CARD, plan_for, run, tones
from uwbench.api import ExtractOptions
from uwbench.cache.store import open_encoders
from uwbench.sources.dataset import Dataset


class Counting(SpectrumEncoder):
    """The spectrum, and the number of clips that all objects of the class encoded."""

    clips = 0

    def encode(self, waveforms, lengths, layers):
        Counting.clips += len(waveforms)
        return super().encode(waveforms, lengths, layers)


def test_both_are_one_model_that_is_encoded_once_more_at_most() -> None:
    Counting.clips = 0
    clips, task = [], Dataset(CARD, tuple(tones(40)), "made")
    for layers in ("last", "all", "last"):
        options = ExtractOptions(layers=layers)
        results = uwbench.evaluate(Counting(), task, methods=("mlp", "knn"), extract=options)
        assert results.failures == []
        clips.append(Counting.clips)
    (_, result), *others = results.results
    assert not others
    # Before cached vectors of an own encoder are used, one clip is encoded again.
    assert clips[-1] - clips[-2] <= 1
    board = uwbench.leaderboard().board
    assert [model.label for model in board.models] == ["spectrum"]
    assert set(result.scores["mlp"].layers or {}) == {"magnitude", "log"}, "a plain run replaced the curve"
    assert result.model.layers == ("magnitude", "log")
    path = results.results[0][0]
    assert uwbench.reproduce(path).equal


def test_the_last_layer_is_read_from_all_layers(tmp_path: Path) -> None:
    clips, encoder = tones(40), SpectrumEncoder()
    every, _ = run(clips, tmp_path, encoder, layers="all")
    last = plan_for(clips, tmp_path, encoder, layers="last")
    assert last.to_encode == 0
    keys = last.task.table.keys
    expected = every.store.open_task("tones", keys).pooled()[:, 1:]
    assert np.array_equal(last.store.open_task("tones", keys).pooled(), expected)
    with_more, _ = run([*clips, *tones(45)[40:]], tmp_path, encoder, layers="last")
    assert with_more.to_encode == 5
    assert plan_for(clips, tmp_path, SpectrumEncoder(salt="other"), layers="last").to_encode == 40


def test_a_damaged_part_of_all_layers_is_encoded_again(tmp_path: Path) -> None:
    clips, encoder = tones(40), SpectrumEncoder()
    every, _ = run(clips, tmp_path, encoder, layers="all")
    part = next(every.store.folder.glob("tones/pooled-*.arrow"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    plan, extraction = run(clips, tmp_path, encoder, layers="last")
    assert 0 < extraction.encoded == plan.to_encode
    assert plan.store.open_task("tones", plan.task.table.keys).pooled().shape == (40, 1, encoder.info.dim)


def test_a_layer_that_is_not_the_last_is_another_model(tmp_path: Path) -> None:
    encoder = SpectrumEncoder()
    for layers in ("all", "0"):
        run(tones(8), tmp_path, encoder, layers=layers)
    first, every = (store.record for store in sorted(open_encoders(tmp_path)[0], key=lambda s: len(s.record.layers)))
    assert first.model_fingerprint != every.model_fingerprint
