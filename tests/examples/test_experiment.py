"""The miniature experiment on a few real clips: its data, its stages, resuming, its page."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from small_lm import write_lm
from small_whisper import ENCODER
from uniwhisper.cli.train import overlay_of
from uniwhisper.config import overlaid
from uniwhisper.data.rows import open_rows
from uniwhisper.evaluate import Difference
from uniwhisper.language_model import shape_of
from uniwhisper.model.transcribe import WINDOW_S
from uniwhisper.training.checkpoint import checkpoints
from uniwhisper.training.train import train
from uniwhisper_miniature.experiment import Outcome, run_experiment
from uniwhisper_miniature.levers import FOLDER, Levers, Tried, find_lever, run_levers
from uniwhisper_miniature.page import ARMS_MARKS, LEVERS_MARKS, report, report_levers, write_tables
from uniwhisper_miniature.scored_data import SCOPES, SCORED, read_rows, refuse_leaks, write_tasks
from uniwhisper_miniature.speech import WORD_WINDOW_S, Transcribed, read_sentences, transcribe
from uniwhisper_miniature.speech import spoken_digits as read_digits
from uniwhisper_miniature.stages import ARMS, Chosen, Scores, Settings, Training, training_config
from uniwhisper_miniature.training_data import HEARD, classes_of, write_rows
from uwbench.api import InputError, UsageError, UwbenchError

OVERLAY = {
    "encoder": ENCODER,
    "data": {"bins": 1},
    "stages": {"bridge": 1, "joint": 3},
    "run": {"batch_s": 12, "micro_batch_s": 12, "save_every": 100, "keep": 1},
    "optimiser": {"warmup_steps": 1},
}
SETTINGS = Settings(overlay=OVERLAY, arms=("control",), alphas=(0.5, 1.0), clips=40, spoken=2)


def silent(text: str) -> None:
    """Log nothing."""


@pytest.fixture(scope="module")
def data(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few clips of each part and of each of some labels of the data sets, under their own names."""
    folder = tmp_path_factory.mktemp("data")
    parts = {source.name: source.part for source in SCORED}
    columns = {"fsdd": "digit", "esc10": "label", "urbansound8k": "label", "fluidr3": "instrument"}
    for name in (*columns, "philharmonia"):
        rows = read_rows(shared_data, name)
        if name == "philharmonia":  # a few notes on several instruments
            rows = [row for row in rows if row["label"] in ("bassoon", "cello", "trombone")]
            notes = [note for note, _ in Counter(row["note"] for row in rows).most_common(4)]
            chosen = {row["path"]: row for row in rows if row["note"] in notes}
        else:
            groups: dict[tuple[str, str], list[dict[str, str]]] = {}
            for row in rows:
                groups.setdefault((row[columns[name]], parts[name](row) if name in parts else ""), []).append(row)
            labels = sorted({label for label, _ in groups})[:3]
            pairs = [
                [*group[:4], *group[-4:]]
                for (label, part), group in groups.items()
                if label in labels and part not in ("4", "5")  # two folds and the one for validation are enough
            ]
            chosen = {row["path"]: row for pair in pairs for row in pair}
        (folder / name).mkdir()
        with (folder / name / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(chosen.values())
        for path in chosen:
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(shared_data / name / path, folder / name / path)
    return folder


@pytest.fixture(scope="module")
def rows(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_rows(data, tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def finished(data: Path, small_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of an experiment with the control alone."""
    output = tmp_path_factory.mktemp("experiment")
    run_experiment(data, small_whisper, output, SETTINGS, log=silent)
    return output


def test_arms_differ_in_what_answers_alone(small_whisper: Path, tmp_path: Path) -> None:
    lm = write_lm(tmp_path / "lm", "llama")
    settings = Settings(overlay=overlaid(OVERLAY, overlay_of([], lm=str(lm))))
    arms = {arm: training_config(settings, small_whisper, Training(arm, arm), {"digit": ["1", "2"]}) for arm in ARMS}
    assert {arm: (config.lm.kind, config.lm.train) for arm, config in arms.items()} == {
        "lm": ("causal", "lora"),
        "random": ("random-causal", "full"),
        "whisper": ("whisper", "full"),
        "control": ("heads", "full"),
    }
    assert shape_of(arms["random"].lm) == shape_of(arms["lm"].lm)
    assert arms["control"].lm.classes == {"digit": ("1", "2")}
    first, *others = [config.model_dump(exclude={"lm"}) for config in arms.values()]
    assert all(other == first for other in others)
    with pytest.raises(UsageError, match="--arm lm: needs a pretrained language model"):
        run_experiment(tmp_path, small_whisper, tmp_path / "out", replace(SETTINGS, arms=("lm",)))
    assert not (tmp_path / "out").exists()


def test_a_clip_is_asked_several_questions_in_words(data: Path, rows: list[Path]) -> None:
    table = [row for folder in rows for row in open_rows([folder])]
    asked = {name: {row.question for row in table if row.dataset == name} for name in ("urbansound8k", "fsdd")}
    assert asked["urbansound8k"] == {
        *("sound_cls", "sound_cls/kind", "scene", "sound_cls/origin", "sound_cls/character", "caption")
    }
    assert asked["fsdd"] == {"keyword/digit", "speaker_id", "asr"}
    clip = next(row for row in read_rows(data, "fluidr3") if row["instrument"] == "French horn")
    told = {row.question: row.answers[0] for row in table if row.clip.endswith(clip["path"])}
    assert told["instrument"] == "French horn"
    assert told["instrument/family"] == "brass"
    assert (told["pitch"], told["pitch/midi"]) == (clip["note"], clip["midi"])
    manner = {"piano": "softly", "forte": "loudly"}[told["quality/dynamic"]]
    assert told["music_caption"] == f"The note {clip['note']}, played {manner} on the French horn."
    counts = Counter(row.clip for row in table)
    assert set(counts.values()) == {len(source.ask) for source in HEARD}
    answers = {row.answers for row in table if row.question == "asr"}
    assert answers == {("zero",), ("one",), ("two",)}


def test_the_control_has_a_head_for_each_question_of_few_answers(rows: list[Path]) -> None:
    classes = classes_of(rows)
    assert classes["asr"] == ["one", "two", "zero"]
    assert classes["pitch/midi"] == sorted(classes["pitch/midi"])
    questions = {row.question for row in open_rows(rows)}
    assert set(classes) == questions  # of a few clips, all are of few answers
    table = list(open_rows(rows))
    assert all(set(row.answers) <= set(classes[row.question]) for row in table)


def test_no_clip_that_is_scored_or_held_out_is_trained_on(
    shared_data: Path, data: Path, rows: list[Path], tmp_path: Path
) -> None:
    trained = {Path(row.clip) for row in open_rows(rows)}
    assert {path.relative_to(data).parts[0] for path in trained} == {"urbansound8k", "fluidr3", "fsdd"}
    scored = set()
    for use in ("valid", "test"):
        for manifest in write_tasks(data, tmp_path, 40, use).values():
            with manifest.open(encoding="utf-8", newline="") as file:
                scored |= {Path(row["path"]) for row in csv.DictReader(file) if row.get("split") in (None, "test")}
    assert len(scored) > 40
    assert not scored & trained
    heard = {row["group"] for row in read_rows(shared_data, "urbansound8k")}
    held_out = {Path(row["path"]).name.split("-")[1] for row in read_rows(shared_data, "esc10")}
    assert len(held_out) > 100
    assert not heard & held_out  # the numbers of recordings on Freesound


def test_validation_clips_choose_and_test_clips_are_others(shared_data: Path, tmp_path: Path) -> None:
    scored: dict[str, dict[str, set[str]]] = {}
    for use in ("valid", "test"):
        for task, manifest in write_tasks(shared_data, tmp_path, 300, use).items():
            with manifest.open(encoding="utf-8", newline="") as file:
                table = list(csv.DictReader(file))
            tested = {row["path"] for row in table if row.get("split", "test") == "test"}
            scored.setdefault(task, {})[use] = tested
    assert set(scored) == {task for tasks in SCOPES.values() for task in tasks}
    for uses in scored.values():
        assert len(uses["test"]) > 100
        assert not uses["test"] & uses.get("valid", set())
    assert "valid" not in scored["urbansound8k_label"]
    assert len(scored["esc10_label"]["test"]) == 320


def test_a_recording_of_the_held_out_set_among_the_rows_stops_the_experiment(
    data: Path, rows: list[Path], tmp_path: Path
) -> None:
    leaky = tmp_path / "leaky"
    shutil.copytree(data, leaky)
    (heard,) = {row.source for row in list(open_rows(rows))[:1]}
    manifest = leaky / "esc10" / "manifest.csv"
    first = read_rows(leaky, "esc10")[0]["path"]
    renamed = f"audio/1-{heard}-A.ogg"
    (leaky / "esc10" / first).rename(leaky / "esc10" / renamed)
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(first, renamed), encoding="utf-8")
    said: list[str] = []
    with pytest.raises(InputError, match="clips that are scored"):
        refuse_leaks(leaky, rows, tmp_path, said.append)
    assert any("by source" in line and "urbansound8k" in line for line in said)


def test_the_control_is_trained_chosen_and_scored(data: Path, small_whisper: Path, finished: Path) -> None:
    said: list[str] = []
    outcome = run_experiment(data, small_whisper, finished, SETTINGS, log=said.append)
    (scores,) = outcome.arms
    assert [text for text in said if text.startswith("leakage gate: fsdd") and text.endswith("0 rows leak")]
    assert not [text for text in said if "training" in text and "rows" not in text]  # nothing is trained again
    assert (scores.arm, scores.steps) == ("control", 4)
    assert set(scores.valid) == {"0", "0.5", "1"}
    assert scores.valid[f"{scores.alpha:g}"] == max(scores.valid["0.5"], scores.valid["1"])
    names = {scope: {row.name for row in rows} - {"average (task)"} for scope, rows in scores.scopes.items()}
    assert names == {scope: {f"{task}_test" for task in tasks} for scope, tasks in SCOPES.items()}
    assert outcome.speech["digits"].clips == 2
    assert set(scores.speech) == {f"{scores.alpha:g}", "1"}
    card = json.loads((finished / "encoders" / "control-0.5" / "uniwhisper.json").read_text())
    assert card["alpha"] == 0.5
    assert {entry["dataset"] for entry in card["training_data"]} == {"urbansound8k", "fluidr3", "fsdd"}
    lines = report(outcome)
    assert sum(line.startswith(f"| control | {scores.alpha:g} | esc10_label | ") for line in lines) == 2


@pytest.mark.slow
def test_all_arms_run_side_by_side_to_the_scores_of_one_after_the_other(
    data: Path, small_whisper: Path, finished: Path, tmp_path: Path
) -> None:
    output = tmp_path / "jobs"
    shutil.copytree(finished, output)
    for name in ("control.json", "experiment.json"):
        (output / name).unlink()
    for name in ("runs", "encoders"):
        shutil.rmtree(output / name)
    lm = write_lm(tmp_path / "lm", "llama")
    settings = replace(SETTINGS, overlay=overlaid(OVERLAY, overlay_of([], lm=str(lm))), arms=tuple(ARMS))
    outcome = run_experiment(data, small_whisper, output, settings, log=silent, jobs=2)
    assert [(scores.arm, scores.steps) for scores in outcome.arms] == [(arm, 4) for arm in ARMS]
    assert set(outcome.compared) == set(ARMS) - {"lm"}
    assert (output / "control.json").read_bytes() == (finished / "control.json").read_bytes()


@pytest.mark.slow
def test_a_stopped_training_is_not_scored_and_resumes(
    data: Path, small_whisper: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "stopped"
    shutil.copytree(finished, output)
    for folder in ("runs", "encoders"):
        shutil.rmtree(output / folder)
    before = (output / "control.json").read_bytes()
    (output / "control.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("uniwhisper.training.train.train", partial(train, until=2))
        with pytest.raises(UwbenchError, match="stopped by SIGTERM at step 2"):
            run_experiment(data, small_whisper, output, SETTINGS, log=silent)
    assert not (output / "control.json").exists()
    assert not (output / "encoders").exists()
    run_experiment(data, small_whisper, output, SETTINGS, log=silent)
    assert (output / "control.json").read_bytes() == before
    (last,) = checkpoints(output / "runs" / "control")
    at = (last / "model.safetensors").stat().st_mtime_ns
    (output / "control.json").unlink()
    run_experiment(data, small_whisper, output, SETTINGS, log=silent)
    assert (output / "control.json").read_bytes() == before
    assert (last / "model.safetensors").stat().st_mtime_ns == at


def test_other_settings_in_the_same_folder_are_refused(data: Path, small_whisper: Path, finished: Path) -> None:
    with pytest.raises(UsageError, match="another clips"):
        run_experiment(data, small_whisper, finished, replace(SETTINGS, clips=5), log=silent)
    with pytest.raises(UsageError, match="gtzan"):
        run_experiment(data, small_whisper, finished, replace(SETTINGS, arms=("gtzan",)), log=silent)


def test_whispers_decoder_transcribes_from_its_encoder_but_not_from_noise(
    shared_data: Path, whisper_tiny: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import WhisperModel

    manifests = write_tasks(shared_data, tmp_path / "tasks", 600, "test")
    digits = read_digits(manifests["fsdd_digit"], 6)
    own = transcribe(whisper_tiny, whisper_tiny, digits, WORD_WINDOW_S)
    assert (own.clips, own.words) == (6, 6)
    assert own.right >= 2
    encoder = WhisperModel.from_pretrained(whisper_tiny, dtype=torch.float32).encoder
    with torch.no_grad():
        encoder.layer_norm.weight.zero_()
    encoder.save_pretrained(tmp_path / "deaf")
    assert transcribe(whisper_tiny, tmp_path / "deaf", digits, WORD_WINDOW_S).right < own.right


def test_sentences_are_read_from_a_table_and_compared_without_case_and_signs(
    shared_data: Path, whisper_tiny: Path, tmp_path: Path
) -> None:
    for name, text in (("7_jackson_0", "Seven!"), ("3_jackson_1", "3")):
        shutil.copyfile(shared_data / "fsdd" / "recordings" / f"{name}.wav", tmp_path / f"{name}.wav")
        with (tmp_path / "manifest.csv").open("a", encoding="utf-8") as file:
            file.write(f"{name}.wav,{text}\n" if file.tell() else f"path,text\n{name}.wav,{text}\n")
    sentences = read_sentences(tmp_path)
    assert [said.text for said in sentences] == ["seven", "three"]
    heard = transcribe(whisper_tiny, whisper_tiny, sentences, WINDOW_S)
    assert (heard.clips, heard.words) == (2, 2)
    assert heard.right >= 1
    (tmp_path / "manifest.csv").write_text("file,words\na.wav,b\n")
    with pytest.raises(InputError, match="has not the columns path and text"):
        read_sentences(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_sentences(tmp_path / "nowhere")


def test_the_tables_set_held_out_sets_and_those_trained_on_apart() -> None:
    def scopes(difference: float) -> dict[str, tuple[Difference, ...]]:
        def row(name: str) -> Difference:
            return Difference(name, "knn", 0.5, 0.5 + difference, difference, difference - 0.02, difference + 0.02)

        return {
            "held out": (row("esc10_label_test"), row("average (task)")),
            "other takes": (row("fsdd_digit_test"),),
            "other recordings": (),
        }

    digits = {"digits": Transcribed(60, 39, 60, 0.43)}
    lm = Scores("lm", 240, 1800.0, 0.75, {"0": 0.5, "0.75": 0.55, "1": 0.54}, "f", scopes(0.03), {"0.75": digits})
    control = replace(lm, arm="control", alpha=1.0)
    lines = report(Outcome((lm, control), digits, {"control": scopes(0.01)}))
    assert "| lm | 240 | 30 min | 50.0 | 55.0 | 54.0 | 0.75 |" in lines
    held, trained = (
        next(i for i, line in enumerate(lines) if start in line) for start in ("never heard", "other takes")
    )
    assert lines.index("| lm | 0.75 | esc10_label | knn | 50.0 | 53.0 | +3.0 [+1.0, +5.0] |") in range(held, trained)
    assert lines.index("| lm | 0.75 | fsdd_digit | knn | 50.0 | 53.0 | +3.0 [+1.0, +5.0] |") > trained
    assert "| control | held out | knn | 50.0 | 51.0 | +1.0 [-1.0, +3.0] |" in lines
    assert "| original encoder |  | 39 of 60 | 43 % |" in lines
    assert "| lm | 0.75 | 39 of 60 | 43 % |" in lines


def test_tables_go_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (begin, end), others = ARMS_MARKS, "\n".join(LEVERS_MARKS)
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n{others}\n")
    for _ in range(2):
        write_tables(page, ARMS_MARKS, "uniwhisper experiment", ["| a |"])
    inner = "\n\n    uniwhisper experiment\n\n| a |\n\n"
    assert page.read_text() == f"before\n{begin}{inner}{end}\nafter\n{others}\n"
    page.write_text("no marks\n")
    with pytest.raises(InputError, match="marks"):
        write_tables(page, LEVERS_MARKS, "uniwhisper experiment", [])


@pytest.mark.slow
def test_levers_are_compared_on_validation_clips_and_the_best_alone_is_tested(
    data: Path, small_whisper: Path, finished: Path, tmp_path: Path
) -> None:
    output, lever = tmp_path / "levers", tmp_path / "frozen.yaml"
    shutil.copytree(finished, output)
    lever.write_text("title: The encoder does not learn\nchange: {encoder: {train: frozen}}\n")
    levers = run_levers(data, small_whisper, output, SETTINGS, [str(lever)], log=silent)
    plain, frozen = levers.tried
    assert (plain.title, frozen.title) == ("As it is", "The encoder does not learn")
    assert (plain.chosen.arm, frozen.chosen.arm) == ("control", "control+frozen")
    assert frozen.chosen.valid["1"] == frozen.chosen.valid["0"]  # the original encoder's scores
    best = max(levers.tried, key=lambda tried: max(tried.chosen.valid["0.5"], tried.chosen.valid["1"])).chosen
    assert levers.best.arm == best.arm
    assert set(levers.best.scopes) == set(SCOPES)
    tested = run_experiment(data, small_whisper, finished, SETTINGS, log=silent).arms[0]
    assert plain.chosen.valid == tested.valid
    logged: list[str] = []
    assert run_levers(data, small_whisper, output, SETTINGS, [str(lever)], log=logged.append) == levers
    assert not [text for text in logged if text.endswith("training and validation")]
    lever.write_text("title: A part of it\nchange: {encoder: {layer_decay: 0.5}}\n")
    with pytest.raises(UsageError, match="was trained with another change; give the lever another name"):
        run_levers(data, small_whisper, output, SETTINGS, [str(lever)], log=silent)


def test_levers_that_change_nothing_or_are_unknown_are_refused(
    data: Path, small_whisper: Path, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="unknown lever 'brigde-120'; did you mean bridge-120"):
        run_levers(data, small_whisper, finished, SETTINGS, ["brigde-120"], log=silent)
    same = tmp_path / "same.yaml"
    same.write_text("title: Nothing\nchange: {stages: {bridge: 1}}\n")
    with pytest.raises(UsageError, match="--lever same: changes nothing of this arm"):
        run_levers(data, small_whisper, finished, SETTINGS, [str(same)], log=silent)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_lever_changes_the_miniature(path: Path, small_whisper: Path, tmp_path: Path) -> None:
    lm = write_lm(tmp_path / "lm", "llama")
    settings = Settings(overlay=overlay_of([], lm=str(lm)))
    plain = training_config(settings, small_whisper, Training("lm", "lm"))
    changed = training_config(settings, small_whisper, Training("lever", "lm", find_lever(path.stem).change))
    assert changed != plain


def test_the_table_of_levers_has_the_unchanged_training_first() -> None:
    digits = {"digits": Transcribed(60, 39, 60, 0.43)}
    plain = Chosen("lm", 240, 1800.0, 0.5, {"0": 0.5, "0.5": 0.51, "1": 0.49})
    best = Scores("lm+slow", 240, 1800.0, 1.0, {"0": 0.5, "0.5": 0.52, "1": 0.53}, "f", dict.fromkeys(SCOPES, ()), {})
    tried = (Tried("As it is", plain), Tried("A slower encoder", replace(plain, arm="lm+slow", alpha=1.0)))
    lines = report_levers(Levers("lm", tried, best, digits))
    rows = [line for line in lines if line.startswith("| lm")]
    assert rows[0] == "| lm | As it is | 240 | 30 min | 50.0 | 51.0 | 49.0 | 0.5 |"
    assert rows[1].startswith("| lm+slow | A slower encoder | 240 |")
    assert "Of these, lm+slow is best on validation clips, and scored on test clips." in lines
