"""Contamination flags: consistent facts, the rules that use them, and a board that shows or drops the scores."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from conftest import ROOT, Command
from report.made_results import TASKS, make_result
from uwbench.cards.find import find_cards
from uwbench.encoders.catalogue import CATALOGUE
from uwbench.errors import InputError
from uwbench.report.build import build_board
from uwbench.report.csv_file import render_csv
from uwbench.report.json_file import render_json
from uwbench.report.legend import MARKS
from uwbench.report.markdown import render_markdown
from uwbench.report.table import board_view
from uwbench.results.contamination import FLAGS, MEANINGS, SEEN, judge, read_lineage, training_of
from uwbench.results.record import Flag


def flag(task: str, *data: dict[str, Any], folds: bool = False) -> Flag:
    return judge(task, "own", data, folds=folds).flag


def test_every_card_has_a_lineage_and_every_name_resolves() -> None:
    lineage = read_lineage()
    assert [name for name in find_cards()[0] if lineage.find(name) is None] == []
    for key, dataset in lineage.datasets.items():
        assert all(part in lineage.datasets for part in dataset.holds), key
        # No name is another dataset's too.
        assert all(lineage.find(name) == key for name in (key, *dataset.names)), key


def test_training_data_of_models_are_known_datasets() -> None:
    lineage = read_lineage()
    for name, training in lineage.models.items():
        for entry in training.data:
            assert entry.sources is not None or lineage.find(entry.dataset) is not None, f"{name}: {entry.dataset}"
    # A model of the catalogue is found both by its name and by its hub id.
    for entry in CATALOGUE:
        by_name = training_of(entry.name, lineage)
        if by_name is not None and entry.hub_id is not None and entry.family != "whisper":
            assert training_of(entry.hub_id, lineage) == by_name, entry.name
    assert training_of("somebody/wav2vec2-base", lineage) is None


@pytest.mark.parametrize(
    ("task", "dataset", "split", "folds", "expected"),
    [
        ("fsd50k", "FSD50K", "train", False, "trained on train"),
        ("fsd50k", "fsd50k", "dev", False, "trained on train"),
        ("fsd50k", "fsd50k", "eval", False, "trained on test"),
        ("fsd50k", "fsd50k", "all", False, "trained on test"),
        ("esc50", "ESC-50", "train", True, "trained on test"),  # every clip of a k-fold task is scored
        ("esc10", "esc50", "train", True, "trained on test"),  # ESC-10 is part of it
        ("esc50", "esc10", "train", True, "trained on test"),
        ("clotho", "wavcaps", "train", False, "same source"),
        ("esc50", "fsd50k", "train", True, "same source"),
        ("desed", "audiocaps", "train", False, "same source"),
        ("desed", "desed", "validation", False, "trained on test"),  # on which the task is scored
        ("libricount", "librispeech", "train", True, "same source"),
        ("librispeech_asr", "librispeech", "train-clean-360", False, "trained on train"),
        ("librispeech_mf", "openslr/librispeech_asr", "test-clean", False, "trained on test"),
        ("librispeech_asr", "libri_light", "train", False, "same source"),
        ("fma_small", "fma_large", "training", False, "trained on train"),
        ("fma_small", "fma_large", "all", False, "trained on test"),
        ("voxceleb1", "voxceleb2", "dev", False, "same source"),
        ("voxceleb1", "vggsound", "train", False, "unknown"),  # both out of YouTube, which says nothing
        ("voxlingua33", "voxlingua107", "dev", False, "trained on test"),
        ("ravdess", "librispeech", "train", True, "clean"),
        ("nsynth", "my recordings", "train", False, "unknown"),
        ("my_task", "librispeech", "train", False, "unknown"),
        ("my_task", "My Task", "train", False, "trained on train"),
        ("mini_sound", "audioset", "all", False, "clean"),  # computed on the spot
    ],
)
def test_a_training_dataset_gives_a_task_its_flag(
    task: str, dataset: str, split: str, folds: bool, expected: Flag
) -> None:
    verdict = judge(task, "own", [{"dataset": dataset, "split": split, "licence": "CC0"}], folds=folds)
    assert verdict.flag == expected
    assert bool(verdict.because) == (expected != "clean" or task.startswith("mini"))


def test_the_worst_of_several_datasets_counts() -> None:
    clean, same, train = (
        {"dataset": "ravdess", "split": "train"},
        {"dataset": "wavcaps", "split": "train"},
        {"dataset": "fsd50k", "split": "train"},
    )
    assert flag("fsd50k", clean) == "clean"
    assert flag("fsd50k", clean, same) == "same source"
    assert flag("fsd50k", train, same, clean) == "trained on train"
    assert judge("fsd50k", "own", [train, same], folds=False).because == ("fsd50k (train)",)
    assert flag("fsd50k") == "clean"


def test_a_training_set_may_name_the_source_of_its_recordings() -> None:
    assert flag("esc50", {"dataset": "mine", "split": "train", "sources": ["Freesound"]}) == "same source"
    assert flag("esc50", {"dataset": "mine", "split": "train", "sources": ["our studio"]}) == "clean"
    assert flag("esc50", {"dataset": "mine", "split": "train", "sources": []}) == "clean"
    assert flag("esc50", {"dataset": "mine", "split": "train", "sources": ["WavCaps"]}) == "same source"


def test_a_public_model_is_judged_by_known_facts_unless_it_has_its_own_list() -> None:
    assert judge("librispeech_asr", "facebook/wav2vec2-base", None, folds=False).flag == "trained on train"
    assert judge("cremad", "wav2vec2-base", None, folds=False).flag == "clean"
    assert judge("cremad", "wavlm-base", None, folds=False).flag == "unknown"  # noise of other sets was mixed in
    assert judge("librispeech_asr", "wavlm-base", None, folds=False).flag == "trained on train"
    assert judge("esc50", "openai/whisper-base", None, folds=True).flag == "unknown"
    assert judge("esc50", "whisper-tiny.en", [{"dataset": "esc50", "split": "test"}], folds=True).flag == SEEN[-1]
    assert judge("esc50", "logmel", None, folds=True).flag == "clean"
    assert judge("esc50", "a-new-model", None, folds=True).because == ("what it was trained on is not known",)


def test_the_flags_are_those_of_the_schema() -> None:
    from typing import get_args

    assert set(FLAGS) == set(get_args(Flag)) == set(MEANINGS)
    assert set(MARKS) == set(SEEN)


def test_an_invalid_file_of_facts_is_named(tmp_path: Path) -> None:
    (tmp_path / "datasets.yaml").write_text("broad: []\ndatasets: {a: {form: [b]}}\n")
    with pytest.raises(InputError, match=r"datasets\.yaml: datasets\.a\.form: unknown field"):
        read_lineage(tmp_path)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write results of two models on three tasks, one trained on one task's training clips and another's folds."""
    folder = tmp_path_factory.mktemp("made")
    seen = ({"dataset": "words", "split": "train"}, {"dataset": "scenes", "split": "train"})
    for task in TASKS[:3]:
        make_result(folder, "good", task, 0.8, training_data=seen)
        make_result(folder, "fair", task, 0.6)
    return folder


def test_every_format_of_the_board_shows_the_flag(results: Path) -> None:
    board = build_board(results)
    scored = (row for row in csv.DictReader(io.StringIO(render_csv(board))) if row["kind"] == "task")
    rows = {(row["model"], row["name"]): row for row in scored}
    assert rows[("good", "words")]["contamination"] == "trained on train"
    assert rows[("good", "scenes")]["contamination"] == "trained on test"
    assert rows[("good", "scenes")]["because"].startswith("scenes (train)")
    assert rows[("fair", "words")]["contamination"] == "unknown"
    scores = {(score["model"], score["task"]): score for score in json.loads(render_json(board))["scores"]}
    assert scores[("good", "words")]["contamination"] == "trained on train"
    assert scores[("good", "words")]["because"] == ["words (train)"]

    markdown = render_markdown(board)
    line = next(line for line in markdown.splitlines() if line.startswith("| Scenes"))
    assert line.split("|")[5].rstrip().endswith(MARKS["trained on test"])
    assert MARKS["trained on test"] not in line.split("|")[6]
    assert f"{MARKS['trained on train']} trained on train: {MEANINGS['trained on train']}" in markdown
    assert MEANINGS["same source"] not in markdown
    assert "is not known: good (1 of 3 tasks), fair." in markdown

    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=100).print(board_view(board))
    assert f"{MARKS['trained on test']} trained on test" in out.getvalue()


def test_dropped_scores_are_listed_and_an_average_over_fewer_tasks_has_no_rank(results: Path) -> None:
    board = build_board(results, contaminated="drop")
    off = {(row.model, row.task): row.reason for row in board.off}
    assert set(off) == {("good", "words"), ("good", "scenes")}
    assert off[("good", "words")] == "trained on train: words (train)"
    by_label = {model.label: board.row(model.key, "mlp", "weighted") for model in board.models}
    good, fair = by_label["good"], by_label["fair"]
    assert good is not None
    assert fair is not None
    assert (len(good.average.tasks), good.average.of, good.rank) == (1, 3, None)
    assert (len(fair.average.tasks), fair.rank) == (3, 1)


def test_a_run_records_the_flag_and_the_board_can_drop_the_score(uwbench: Command, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "adding-an-encoder.md").read_text(encoding="utf-8")
    (source,) = (b for b in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "class BandEnergies" in b)
    stated = 'training_data=({"dataset": "Beeps", "split": "train"},),'
    (tmp_path / "own.py").write_text(source.replace("context_s=None,", f"context_s=None, {stated}"))
    rng = np.random.default_rng(0)
    rows = ["path,label,split"]
    for index in range(24):
        tone = np.sin(2 * np.pi * (400 if index % 2 else 2000) * np.arange(4000) / 16_000)
        soundfile.write(tmp_path / f"{index}.wav", 0.3 * tone + 0.05 * rng.standard_normal(4000), 16_000)
        rows.append(f"{index}.wav,{index % 2},{('train', 'train', 'valid', 'test')[index // 2 % 4]}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    for model in (f"{tmp_path}/own.py:BandEnergies", "logmel"):
        run = uwbench("run", "-m", model, "-t", tmp_path / "manifest.csv", "--name", "beeps")
        assert run.code == 0, run.err
    flags = {}
    for path in (tmp_path / "results").rglob("beeps.json"):
        written = json.loads(path.read_text())
        flags[written["model"]["name"]] = written["contamination"]
    assert flags["band-energies"] == {"flag": "trained on train", "because": ["Beeps (train)"]}
    assert flags["logmel"] == {"flag": "clean", "because": []}

    scores = json.loads(uwbench("leaderboard", "--json").out)["scores"]
    assert {(score["model"], score["contamination"]) for score in scores} == {
        ("band-energies", "trained on train"),
        ("logmel", "clean"),
    }
    scores = json.loads(uwbench("leaderboard", "--json", "--contaminated", "drop").out)["scores"]
    assert {score["model"] for score in scores} == {"logmel"}
    assert uwbench("leaderboard", "--contaminated", "maybe").code == 2


def test_every_dataset_in_a_training_mixture_has_a_lineage() -> None:
    lineage = read_lineage()
    mixtures = sorted((ROOT / "bench" / "uniwhisper" / "mixtures").glob("*.yaml"))
    names = [row["name"] for path in mixtures for row in yaml.safe_load(path.read_text()).get("datasets", [])]
    assert len(names) > 30
    assert [name for name in names if lineage.find(name) is None] == []


@pytest.mark.parametrize(
    ("taken_from", "trained_on", "expected"),
    [
        (("freesound",), "fsd50k", "same source"),
        (("FSD50K",), "fsd50k", "same source"),
        (("own",), "fsd50k", "clean"),
        (("librivox",), "fsd50k", "clean"),
        (("own", "Freesound"), "esc50", "same source"),
        ((), "fsd50k", "unknown"),
        (("youtube",), "audioset", "unknown"),
    ],
)
def test_the_origin_of_own_data_leads_to_flags(taken_from: tuple[str, ...], trained_on: str, expected: Flag) -> None:
    data = [{"dataset": trained_on, "split": "train"}]
    assert judge("my_sounds", "own", data, folds=False, taken_from=taken_from).flag == expected


def test_own_data_and_an_own_encoder_are_flagged_by_what_they_state(uwbench: Command, tmp_path: Path) -> None:
    rows = ["path,label,split"]
    for index in range(8):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, np.sin(np.arange(4000) * (0.05 + 0.1 * (index % 2))), 16_000)
        rows.append(f"{path.name},{'ab'[index % 2]},{'train' if index < 4 else 'test'}")
    (tmp_path / "sounds.csv").write_text("\n".join(rows))
    (tmp_path / "tone.py").write_text(
        "class Tone:\n    sampling_rate, output_dim, hop_size_in_ms = 16_000, 4, 20\n    training_data = ['fsd50k']\n"
        "    def __call__(self, x):\n        return x[:, : x.shape[1] // 320 * 320].reshape(len(x), -1, 320)[..., :4]\n"
    )
    command = ("run", "-m", "tone.py:Tone", "--method", "knn", "--json", "-t")
    for task, words in (("sounds.csv", ("--source", "freesound")), ("sounds.csv[source=freesound]", ())):
        (result,) = json.loads(uwbench(*command, task, *words).out)
        assert result["contamination"]["flag"] == "same source"
        assert result["task"]["taken_from"] == ["freesound"]
    assert [cell.contamination.flag for cell in build_board(tmp_path / "results").cells] == ["same source"]
    (result,) = json.loads(uwbench(*command, "other=sounds.csv").out)
    assert result["contamination"]["flag"] == "unknown"
    done = uwbench(*command, "sounds.csv", "--source", "freesond")
    assert done.code == 2
    assert "did you mean freesound?" in done.err
    assert "--source can be used with own data only" in uwbench(*command, "mini_music[source=freesound]").err
