"""Retrieval: recall both ways against plain counting, captions embedded by a real sentence encoder and kept on disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probes.made_data import card, spread_over_segments, task_data
from uwbench.cards.find import find_protocol
from uwbench.cards.protocol import Protocol
from uwbench.errors import InputError, ProbeError, UsageError
from uwbench.probes import sentences
from uwbench.probes.data import TaskData
from uwbench.probes.kinds.retrieval import Retrieval
from uwbench.probes.run import run_probes
from uwbench.probes.sentences import TextVectors, embed_captions, find_text_encoder
from uwbench.results.bootstrap import seed_scores
from uwbench.results.items import read_items

UWBENCH = find_protocol("uwbench-1")
FEW: Protocol = UWBENCH.model_copy(
    update={
        "mlp": UWBENCH.mlp.model_copy(
            update={"widths": (0,), "learning_rates": (0.01,), "weight_decays": (0.01,), "seeds": (0, 1)}
        )
    }
)


def made(n: int = 150, each: int = 5, related: bool = True, folds: bool = False) -> TaskData:
    """Clips and captions that are noisy views of the same eight numbers, or of numbers of their own."""
    rng = np.random.default_rng(3)
    hidden = rng.normal(size=(n, 8))
    of_text = hidden if related else rng.normal(size=(n, 8))
    vectors = hidden @ rng.normal(size=(8, 24)) + 0.2 * rng.normal(size=(n, 24))
    texts = np.repeat(of_text @ rng.normal(size=(8, 16)), each, axis=0) + 0.2 * rng.normal(size=(n * each, 16))
    labels = [tuple(f"clip {row}, caption {k}" for k in range(each)) for row in range(n)]
    splits = [("train", "valid", "test")[3 * row // n] for row in range(n)]
    if folds:
        of_folds = card("retrieval", metric="recall-at-1", folds=["0", "1", "2"])
        data = task_data(of_folds, vectors, labels, folds=[str(row % 3) for row in range(n)])
    else:
        data = task_data(card("retrieval", metric="recall-at-1"), vectors, labels, splits=splits)
    text = TextVectors(texts.astype(np.float32), np.arange(0, n * each + 1, each), "made")
    return replace(data, text=text)


def test_a_relation_is_learnt_and_recall_is_the_mean_of_both_ways() -> None:
    outcome = run_probes(made(), FEW)
    assert set(outcome.scores) == {"mlp"}  # captions are no classes to vote for
    score = outcome.scores["mlp"]
    assert score.main_score > 0.8
    assert score.main_score == pytest.approx((score.raw["audio to text"] + score.raw["text to audio"]) / 2)
    rows = outcome.predictions.to_pylist()
    assert len(rows) == 2 * 50
    hits = [json.loads(row["prediction"]) in json.loads(row["truth"]) for row in rows]
    assert np.mean(hits) == pytest.approx(score.raw["audio to text"])
    back = [row["counts"][2] / row["counts"][3] for row in rows]
    assert np.mean(back) == pytest.approx(score.raw["text to audio"])
    assert score.chosen["text_encoder"] == "made"


def test_attention_over_segments_learns_a_relation_too() -> None:
    settings = {**UWBENCH.methods["attentive"], "learning_rates": [0.01], "weight_decays": [0.01]}
    few = FEW.model_copy(update={"methods": {"attentive": settings}})
    score = run_probes(spread_over_segments(made()), few, methods=["attentive"]).scores["attentive"]
    assert score.main_score > 0.6  # chance is 0.02
    assert score.chosen["text_encoder"] == "made"


def test_unrelated_captions_score_about_chance() -> None:
    score = run_probes(made(related=False), FEW).scores["mlp"]
    assert score.main_score < 0.15  # 1 / 50 by chance


def test_the_interval_is_computed_from_the_predictions() -> None:
    outcome = run_probes(made(folds=True), FEW)
    score = outcome.scores["mlp"]
    items = read_items(outcome.predictions, "mlp", "recall-at-1")
    np.testing.assert_allclose(seed_scores(items), score.per_seed)
    assert len(score.per_fold) == 3


def test_recall_is_counted_as_by_hand() -> None:
    data = made(n=3, each=2)
    kind = Retrieval(data)
    similarity = np.array([[9, 1, 8, 2, 3, 4], [9, 5, 1, 1, 2, 2], [0, 0, 0, 9, 1, 1.0]])
    predicted = kind.predict(similarity, np.arange(3), np.arange(3))
    # Nearest captions: 0 of clip 0 (right), 0 of clip 0 (wrong), 3 of clip 1 (wrong). Nearest clips of the captions:
    # 0 (a tie, the first; right), 1 (wrong), 0 (wrong), 2 (wrong), 0 and 0 (wrong).
    assert predicted.counts is not None
    assert predicted.counts.tolist() == [[1, 1, 1, 2], [0, 1, 0, 2], [0, 1, 0, 2]]
    assert kind.measure(predicted, np.arange(3)) == pytest.approx((1 / 3 + 1 / 6) / 2)


def test_the_choice_never_sees_the_test_part() -> None:
    data = made()
    pooled = data.pooled.copy()
    pooled[100:] = np.random.default_rng(1).normal(size=pooled[100:].shape)
    first, second = (run_probes(part, FEW).scores["mlp"] for part in (data, replace(data, pooled=pooled)))
    assert first.chosen == second.chosen
    assert first.main_score != second.main_score


def test_what_is_missing_is_said() -> None:
    with pytest.raises(UsageError, match="--text-encoder"):
        run_probes(replace(made(), text=None), FEW)
    with pytest.raises(ProbeError, match="uwbench-1"):
        run_probes(made(), find_protocol("xares-0.1.3"))
    with pytest.raises(ProbeError, match="runs none of knn"):
        run_probes(made(), FEW, methods=["knn"])
    with pytest.raises(ProbeError, match="clip-00000: captions expected"):
        run_probes(replace(made(), labels=[()] * 150), FEW)


def test_minilm_gives_its_published_vector(minilm: str) -> None:
    """The first numbers are those that the model's documentation prints for this sentence."""
    texts = [
        "This is an example sentence",
        "A much longer sentence about a dog that barks in the rain, padded by none.",
    ]
    vectors = find_text_encoder(minilm).embed(texts)
    np.testing.assert_allclose(vectors[0, :4], [0.0676569, 0.0634959, 0.0487131, 0.0793049], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[:1], find_text_encoder(minilm).embed(texts[:1]), atol=1e-5)


def test_captions_are_embedded_once(minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = [("a dog barks", "a barking dog"), ("rain falls",)]
    first = embed_captions(captions, minilm, tmp_path)
    assert first.offsets.tolist() == [0, 2, 3]
    near = first.values @ first.values.T
    assert near[0, 1] > 0.7 > 0.5 > near[0, 2]
    fresh: list[list[str]] = []
    embed = sentences.TextEncoder.embed

    def counted(encoder: sentences.TextEncoder, texts: list[str], *, device: str = "cpu") -> np.ndarray:
        fresh.append(texts)
        return embed(encoder, texts, device=device)

    monkeypatch.setattr(sentences.TextEncoder, "embed", counted)
    again = embed_captions([*captions, ("a cat",)], minilm, tmp_path)
    assert fresh == [["a cat"]]
    np.testing.assert_array_equal(again.values[:3], first.values)


def test_a_changed_encoder_has_a_cache_of_its_own(minilm: str, tmp_path: Path) -> None:
    source = find_text_encoder(minilm).folder
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    assert find_text_encoder(str(copy)).sha256 == find_text_encoder(minilm).sha256
    settings = json.loads((copy / "sentence_bert_config.json").read_text())
    (copy / "sentence_bert_config.json").write_text(json.dumps(settings | {"max_seq_length": 3}))
    changed = find_text_encoder(str(copy))
    assert changed.sha256 != find_text_encoder(minilm).sha256
    whole, cut = find_text_encoder(minilm).embed(["dogs bark loudly"]), changed.embed(["dogs bark loudly"])
    assert np.abs(whole - cut).max() > 0.01
    modules = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(json.dumps(modules[:2]))
    assert np.linalg.norm(find_text_encoder(str(copy)).embed(["dogs bark loudly"])) != pytest.approx(1, abs=0.01)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        find_text_encoder(str(copy))


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("nobody/nothing", "no-such-encoder"):
        with pytest.raises(UsageError, match=name):
            find_text_encoder(name)
    with pytest.raises(InputError, match=r"modules\.json"):
        find_text_encoder(str(tmp_path))
    (tmp_path / "modules.json").write_text('[{"type": "a.Transformer"}, {"type": "a.Pooling"}, {"type": "a.Dense"}]')
    with pytest.raises(InputError, match="Dense"):
        find_text_encoder(str(tmp_path))
