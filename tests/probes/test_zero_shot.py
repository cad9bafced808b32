"""Zero-shot: argmax of cosines in plain numpy, a template that validation chooses, own encoders, CLAP, PE-Audio."""

from __future__ import annotations

import csv
import json
import re
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.metrics import average_precision_score

from conftest import Command
from encoders.text_models import make_clap, make_pe_audio
from probes.made_data import card as made_card
from probes.made_data import multi_label, shuffled, single_label
from uwbench import api
from uwbench.cards.find import find_card, find_protocol, load_vocabulary
from uwbench.encoders.base import ModelSpec
from uwbench.encoders.resolve import open_encoder
from uwbench.encoders.text_towers import text_tower_of
from uwbench.errors import InputError, ProbeError
from uwbench.probes.data import TaskData
from uwbench.probes.knn import unit_rows
from uwbench.probes.methods.zero_shot import Prompts, prompts_for, words
from uwbench.probes.run import run_probes
from uwbench.results.record import Score, read_predictions, read_result

UWBENCH = find_protocol("uwbench-1")
TEMPLATES = prompts_for(UWBENCH, made_card(), ()).templates


class Planted:
    """A space in which a text lies near the mean of its class, the nearer the earlier its template is in `order`."""

    def __init__(self, data: TaskData, classes: Sequence[str], order: Sequence[int], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.vectors = unit_rows(data.pooled[:, -1])
        rows = np.array(
            [[name in (label if isinstance(label, tuple) else (label,)) for name in classes] for label in data.labels]
        )
        means = unit_rows((rows.T.astype(np.float32) @ self.vectors) / rows.sum(0)[:, None])
        self.known: dict[str, np.ndarray] = {}
        for rank, template in enumerate(order):
            noise = rng.normal(size=means.shape) * rank / 4
            texts = Prompts((TEMPLATES[template],), tuple(classes)).texts()
            self.known.update(zip(texts, unit_rows(means + noise.astype(np.float32)), strict=True))

    def clips(self) -> np.ndarray:
        return self.vectors

    def texts(self, texts: Sequence[str], /) -> np.ndarray:
        return np.stack([self.known[text] for text in texts])

    def tower_hash(self) -> str:
        return "planted"


def zero_shot(data: TaskData) -> tuple[Score, list[str]]:
    outcome = run_probes(data, UWBENCH, methods=["zero-shot"])
    return outcome.scores["zero-shot"], outcome.predictions.column("prediction").to_pylist()


def test_the_score_is_the_argmax_of_cosines_under_the_template_that_validation_prefers() -> None:
    data = single_label(240, spread=1.2)
    classes = ("c0", "c1", "c2", "c3")
    space = Planted(data, classes, order=[3, 0, 1, 2, 4, 5, 6])
    score, predicted = zero_shot(replace(data, joint=space))
    truth = np.array([classes.index(str(label)) for label in data.labels])
    parts = {name: np.array(data.splits) == name for name in ("valid", "test")}
    of_templates = {}
    for template in TEMPLATES:
        texts = np.stack([space.known[template.replace("{}", name)] for name in classes])
        answers = (space.vectors @ texts.T).argmax(1)
        of_templates[template] = {name: (answers[rows] == truth[rows]).mean() for name, rows in parts.items()}
    best = max(TEMPLATES, key=lambda template: of_templates[template]["valid"])
    tested = [values["test"] for values in of_templates.values()]
    assert score.chosen["folds"][0]["template"] == best
    assert score.main_score == pytest.approx(of_templates[best]["test"])
    assert score.chosen["templates"] == pytest.approx({name: values["test"] for name, values in of_templates.items()})
    assert score.raw["median of templates"] == pytest.approx(np.median(tested))
    assert score.raw["lowest template"] == pytest.approx(min(tested))
    assert score.raw["upper quartile of templates"] == pytest.approx(np.quantile(tested, 0.75))
    low, high = score.chosen["median_ci95"]
    assert low < np.median(tested) < high
    assert [json.loads(text) for text in predicted].count("c0") > 0
    assert len(set(tested)) > 3  # the planted templates do differ


def test_several_labels_are_scored_by_average_precision_of_cosines() -> None:
    data = multi_label(240)
    classes = tuple(f"c{number}" for number in range(5))
    space = Planted(data, classes, order=range(7))
    score, predicted = zero_shot(replace(data, joint=space))
    rows = np.array(data.splits) == "test"
    relevant = np.array([[name in label for name in classes] for label in data.labels])
    chosen = score.chosen["folds"][0]["template"]
    cosines = (space.vectors @ space.texts(Prompts((chosen,), classes).texts()).T)[rows]
    assert score.main_score == pytest.approx(average_precision_score(relevant[rows], cosines), abs=1e-5)
    assert sorted(predicted) == sorted(json.dumps([classes[code]]) for code in cosines.argmax(1))
    assert not any(name.startswith("f1") for name in score.raw)
    low, high = score.chosen["median_ci95"]
    assert low < score.raw["median of templates"] < high


def test_the_template_is_chosen_without_the_test_part() -> None:
    data = single_label(240, spread=1.5)
    space = Planted(data, ("c0", "c1", "c2", "c3"), order=[5, 2, 0, 1, 3, 4, 6])
    before, _ = zero_shot(replace(data, joint=space))
    tested = np.array(data.splits) == "test"
    space.vectors = np.where(tested[:, None], -space.vectors, space.vectors)
    after, _ = zero_shot(replace(data, joint=space))
    assert after.chosen["folds"] == before.chosen["folds"]
    assert after.main_score < before.main_score


def test_the_order_of_clips_changes_nothing() -> None:
    data = single_label(120)
    classes = ("c0", "c1", "c2", "c3")
    mixed = shuffled(data, 3)
    first, second = (zero_shot(replace(d, joint=Planted(d, classes, range(7)))) for d in (data, mixed))
    assert first[0].chosen["folds"] == second[0].chosen["folds"]
    assert first[0].main_score == second[0].main_score


def test_labels_become_words_whatever_they_hold() -> None:
    assert words("Acoustic_guitar") == "Acoustic guitar"
    assert words("  a__b\tc ") == "a b c"
    assert words("_") == "_"
    made = prompts_for(UWBENCH, made_card(), ["{}", "50 % \\n", "{0}", "chat-é"])
    assert Prompts(("{}", "A {}."), made.words).texts() == [
        "{}", "50 % \\n", "{0}", "chat-é", "A {}.", "A 50 % \\n.", "A {0}.", "A chat-é.",
    ]  # fmt: skip


def test_labels_that_are_codes_have_words_on_the_card_of_the_protocol() -> None:
    of_lists = UWBENCH.methods["zero-shot"]["words"]
    assert all(set(of_labels) <= set(load_vocabulary(name)) for name, of_labels in of_lists.items())
    languages = load_vocabulary("voxlingua33")
    assert "Norwegian" in prompts_for(UWBENCH, find_card("voxlingua33"), languages).words
    assert not set(languages) & set(prompts_for(UWBENCH, find_card("voxlingua33"), languages).words)
    assert prompts_for(UWBENCH, find_card("librispeech_mf"), ("F", "M")).words == ("a woman", "a man")
    assert prompts_for(UWBENCH, made_card(), ("F",)).words == ("F",)


def test_templates_without_one_place_for_the_class_are_refused() -> None:
    for bad in ("no place", "{} and {}"):
        settings = {**UWBENCH.methods["zero-shot"], "templates": {d: [bad] for d in ("sound", "music", "speech")}}
        protocol = UWBENCH.model_copy(update={"methods": {**UWBENCH.methods, "zero-shot": settings}})
        with pytest.raises(InputError, match=r"protocol uwbench-1: methods\.zero-shot\.templates"):
            prompts_for(protocol, made_card(), ())


def test_vectors_without_a_space_of_texts_are_refused() -> None:
    with pytest.raises(ProbeError, match="an encoder that embeds texts"):
        run_probes(single_label(), UWBENCH, methods=["zero-shot"])


LOUD = '''
import numpy as np
from uwbench.api import Encoded, EncoderInfo

NAMES = ("a_low tone", "mid", "high-pitched {tone}")


class Tones:
    """Three bands of energy; the vector of a text is that of the tone whose name is in it."""

    def __init__(self):
        self.info = EncoderInfo(
            name="tones", family="example", sample_rate=16_000, dim=3, layers=("bands",), hop_s=0.02, context_s=None,
            identity={"version": 1},
        )

    def load(self, device, dtype):
        self.names = [" ".join(name.replace("_", " ").split()) for name in NAMES]

    def encode(self, waveforms, lengths, layers):
        samples, lengths = np.asarray(waveforms), np.asarray(lengths)
        count = -(-samples.shape[1] // 320)
        padded = np.pad(samples, ((0, 0), (0, count * 320 - samples.shape[1])))
        power = np.abs(np.fft.rfft(padded.reshape(len(samples), count, 320))) ** 2
        bands = np.stack([power[..., a:b].sum(-1) for a, b in ((1, 10), (10, 40), (40, 160))], -1).astype(np.float32)
        return self.encoded(np.stack([bands for _ in layers], 1), np.maximum(-(-lengths // 320), 1))

    def encoded(self, frames, valid):
        try:
            import torch
        except ImportError:
            return Encoded(frames, valid)
        return Encoded(torch.from_numpy(frames), torch.from_numpy(valid))

    def encode_text(self, texts):
        return np.array([[float(name in text) for name in self.names] for text in texts], np.float32)


class Wide(Tones):
    def encode_text(self, texts):
        return np.zeros((len(texts), 5), np.float32)


class Raises(Tones):
    def encode_text(self, texts):
        raise KeyError("no such word")


class Deaf(Tones):
    encode_text = None
'''


@pytest.fixture
def tones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """36 noisy tones of three classes with odd names in a manifest, and encoders in `loud.py`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loud.py").write_text(LOUD)
    folder = tmp_path / "tones"
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    labels = ("a_low tone", "mid", "high-pitched {tone}")
    for index in range(36):
        pitch = (200, 1200, 4000)[index % 3]
        tone = np.sin(2 * np.pi * pitch * np.arange(4000 + 100 * index) / 16_000)
        soundfile.write(folder / f"{index:02d}.wav", 0.1 * tone + 0.01 * rng.standard_normal(len(tone)), 16_000)
        rows.append((f"{index:02d}.wav", labels[index % 3], ("train", "valid", "test")[index // 3 % 3]))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "manifest.csv"


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in a worker"])
def test_encode_text_is_scored_and_scored_again_from_the_cache_alone(
    tones: Path, uwbench: Command, tmp_path: Path, *, elsewhere: bool
) -> None:
    options = ["--python", sys.executable] if elsewhere else ["-m", "logmel"]
    done = uwbench("run", "-m", "loud.py:Tones", *options, "-t", tones, "--method", "zero-shot,knn")
    assert done.code == 0, done.err
    assert elsewhere or "note: tones: not scored by zero-shot: logmel: embeds no texts" in done.err
    path = next((tmp_path / "results" / "tones").rglob("*.json"))
    result = read_result(path)
    assert result.scores["zero-shot"].main_score == 1.0
    assert set(result.scores) == {"knn", "zero-shot"}
    assert read_predictions(path, ["method"]).column("method").to_pylist().count("zero-shot") == 12
    assert uwbench("reproduce", path).code == 0
    (tmp_path / "loud.py").unlink()
    again = uwbench("probe", "-t", "tones", "--method", "zero-shot", "--results", "again")
    assert again.code == 0, again.err
    board = uwbench("leaderboard", "--method", "zero-shot")
    assert "Zero-shot" in board.out


def test_a_text_tower_that_fails_costs_no_other_score(tones: Path, uwbench: Command) -> None:
    for name, reason in (
        ("Wide", r"encode_text returns float32 \(.*, 5\).*as wide as a clip's vector"),
        ("Raises", r"encode_text fails with KeyError: 'no such word' \(loud.py:\d+\)"),
    ):
        done = uwbench("run", "-m", f"loud.py:{name}", "-t", tones, "--method", "zero-shot,knn")
        assert done.code == 1
        assert re.search(f"tones, tones, zero-shot: .*{reason}", done.err), done.err
        assert "kNN" in done.out


def test_a_model_without_texts_is_refused_by_name_and_left_out_of_all(
    tones: Path, uwbench: Command, tmp_path: Path
) -> None:
    done = uwbench("run", "-m", "loud.py:Deaf", "-t", tones, "--method", "zero-shot")
    assert done.code == 2
    assert "--method zero-shot: tones: embeds no texts; name a model with a text tower" in done.err
    assert uwbench("extract", "-m", "loud.py:Deaf", "-t", tones).code == 0
    done = uwbench("probe", "-t", "tones", "--method", "zero-shot")
    assert done.code == 2
    assert "the cache holds no texts of tones (uwbench run -m tones -t TASK --method zero-shot embeds them" in done.err
    done = uwbench("probe", "-t", "tones", "--method", "all")
    assert done.code == 0, done.err
    assert "note: tones: not scored by zero-shot: the cache holds no texts of tones" in done.err
    assert list((tmp_path / "results").rglob("*.json"))


def test_clap_is_scored_from_vectors_that_were_cached_before(tones: Path, uwbench: Command, tmp_path: Path) -> None:
    """The vector of a clip needs no second encoding, and is that of the model's own projection."""
    make_clap(tmp_path / "clap")
    assert uwbench("run", "-m", "clap", "-t", tones, "--method", "knn").code == 0
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("pooled-*.arrow")}
    assert parts
    done = uwbench("run", "-m", "./clap", "-t", tones, "--method", "zero-shot")
    assert done.code == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("pooled-*.arrow")} == parts
    (path,) = (tmp_path / "results").rglob("tones.json")
    result = read_result(path)
    assert set(result.scores) == {"knn", "zero-shot"}
    embeddings = api.load_embeddings("clap", "tones", pooling="mean-all")
    tower = text_tower_of(open_encoder(ModelSpec("./clap")))
    head = tower.head()
    assert head is not None
    clips = unit_rows(head(np.asarray(embeddings.vectors)[:, -1]))
    classes = sorted(set(map(str, embeddings.labels)))
    rows = np.array(embeddings.splits) == "test"
    truth = np.array([classes.index(str(label)) for label in embeddings.labels])
    for template, recorded in result.scores["zero-shot"].chosen["templates"].items():
        texts = unit_rows(tower.embed(Prompts((template,), tuple(map(words, classes))).texts(), "cpu"))
        answers = (clips @ texts.T).round(6).argmax(1)
        assert recorded == pytest.approx((answers[rows] == truth[rows]).mean())


def test_pe_audio_stores_the_layer_that_texts_need_and_no_probe_sees_it(
    tones: Path, uwbench: Command, tmp_path: Path
) -> None:
    make_pe_audio(tmp_path / "pe")
    assert uwbench("run", "-m", "pe", "-t", tones, "--method", "knn").code == 0
    (path,) = (tmp_path / "results").rglob("tones.json")
    before = read_result(path)
    done = uwbench("run", "-m", "pe", "-t", tones, "--method", "zero-shot,knn")
    assert done.code == 0, done.err
    assert list((tmp_path / "results").rglob("tones.json")) == [path]
    after = read_result(path)
    assert after.model.layers == ("joint", "2")
    assert after.scores["knn"] == before.scores["knn"]
    assert after.scores["knn"].chosen["layer"] == "2"
    assert 0 <= after.scores["zero-shot"].main_score <= 1
    assert uwbench("reproduce", path).code == 0
    assert uwbench("run", "-m", "pe", "-t", tones, "--method", "knn").code == 0  # by the last layer alone
    assert read_result(path).model.layers == ("joint", "2")
    assert uwbench("reproduce", path).code == 0
    assert uwbench("bundle", "pe", "-o", "pe.zip").code == 0
    done = uwbench("verify", "pe.zip", "--results", "elsewhere")
    assert done.code == 0, done.out + done.err
    with zipfile.ZipFile("pe.zip") as archive:
        assert [name for name in archive.namelist() if name.startswith("cache/texts/pe-")]
    done = uwbench("run", "-m", "pe", "-t", tones, "--method", "zero-shot", "--layers", "joint")
    assert done.code == 0, done.err
