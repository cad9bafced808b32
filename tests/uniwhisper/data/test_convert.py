"""Converting: real data sets become questions; test clips and held-out labels are left out."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from miniatures import write_miniature
from uniwhisper.cli.main import main
from uniwhisper.data.convert import Request, convert, count_tasks, plan_conversion, read_classes
from uniwhisper.data.ontology import read_ancestors
from uniwhisper.data.rows import Row, open_rows
from uniwhisper.data.shards import read_audio
from uwbench.api import AudioFile, InputError, UsageError, decode, load_task

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def uniwhisper(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process; return its exit code and what it printed."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["uniwhisper", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        printed = capfd.readouterr()
        return (code if isinstance(code, int) else int(code is not None)), printed.out, printed.err

    return call


def listed(data: Path, dataset: str) -> list[dict[str, str]]:
    with (data / dataset / "manifest.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def manifest(folder: Path, rows: list[dict[str, object]], name: str = "manifest.jsonl") -> Path:
    """Write short noises and a manifest that lists them; every row has a path, and a split unless it says."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, row in enumerate(rows):
        path = f"audio/{number}.wav"
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 4_000)
        soundfile.write(folder / path, noise, 16_000)
        lines.append(json.dumps({"path": path, **({} if "fold" in row else {"split": "train"}), **row}))
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder / name


def rows_of(folder: Path) -> list[Row]:
    return list(open_rows([folder]))


def test_spoken_digits_are_asked_twice_and_read_back(shared_data: Path, tmp_path: Path) -> None:
    planned, done = convert(Request(str(shared_data / "fsdd")), tmp_path / "out")
    train = [row for row in listed(shared_data, "fsdd") if row["split"] == "train"]
    rows = rows_of(tmp_path / "out")
    wanted = Counter((row["path"], "keyword", row["digit"]) for row in train)
    wanted += Counter((row["path"], "speaker_id", f"speaker {row['speaker']}") for row in train)
    assert Counter((row.clip, row.task, *row.answers) for row in rows) == wanted
    assert (done.clips, done.rows, planned.excluded, planned.unasked) == (len(train), 2 * len(train), 0, 0)
    assert {(row.dataset, row.split, row.domain, row.licence) for row in rows} == {
        ("fsdd", "train", "speech", "CC BY-SA 4.0")
    }
    assert planned.classes["keyword/digit"] == tuple("0123456789")
    for row in rows[:: len(rows) // 20]:
        original = decode(AudioFile(shared_data / "fsdd" / row.clip), 16_000)
        assert np.abs(read_audio(row) - np.clip(original, -1, 1)).max() <= 1 / 32_768 + 1e-9


def test_four_questions_about_an_instrument(shared_data: Path) -> None:
    planned = plan_conversion(Request(str(shared_data / "philharmonia")))
    train = {row["path"]: row for row in listed(shared_data, "philharmonia") if row["split"] == "train"}
    assert {item.clip for item in planned.items} == set(train)
    answer_of = {
        (item.clip, question.task, question.slots.get("form")): question.answers
        for item in planned.items
        for question in item.asked
    }
    assert len(answer_of) == 4 * len(train)
    for path, row in train.items():
        assert answer_of[path, "instrument", None] == (row["instrument"].replace("french-horn", "French horn"),)
        assert answer_of[path, "pitch", None] == (row["note"].replace("s", "#"),)
        assert answer_of[path, "quality", "dynamic"] == (row["dynamic"],)
        assert answer_of[path, "quality", "articulation"] == (
            row["articulation"].replace("arco-normal", "arco").replace("-", " "),
        )


def test_sounds_of_training_folds_without_one_that_is_held_out(shared_data: Path) -> None:
    request = Request(str(shared_data / "esc10"), folds=("1", "2", "3", "4"), exclude=("label=dog_bark",))
    planned = plan_conversion(request)
    kept = {
        row["path"]: row for row in listed(shared_data, "esc10") if row["fold"] != "5" and row["label"] != "dog_bark"
    }
    assert {item.clip for item in planned.items} == set(kept)
    assert planned.excluded == 32
    assert {item.asked[0].answers[0] for item in planned.items} >= {"crying baby", "crackling fire", "rain"}
    assert {item.source for item in planned.items} == {path.split("-")[1] for path in kept}
    in_words = Request(str(shared_data / "esc10"), folds=("1", "2", "3", "4"), exclude=("label=dog",))
    assert plan_conversion(in_words).items == planned.items


def test_a_label_held_out_takes_its_clips_with_all_their_questions(shared_data: Path) -> None:
    whole = plan_conversion(Request(str(shared_data / "fsdd")))
    held = plan_conversion(
        Request(str(shared_data / "fsdd"), ask=("digit:keyword/digit",), exclude=("speaker=theo", "digit=7"))
    )
    rows = listed(shared_data, "fsdd")
    left = {r["path"] for r in rows if r["split"] == "train" and r["speaker"] != "theo" and r["digit"] != "7"}
    assert {item.clip for item in held.items} == left
    assert held.excluded == len(whole.items) - len(left)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("fsdd", {"splits": ("test",)}, "what the benchmark tests on"),
        ("fsdd", {"splits": ("train", "dev")}, "'dev' is not one of"),
        ("fsdd", {"folds": ("1",)}, "no folds"),
        ("esc10", {}, "each of them a test fold in turn"),
        ("esc10", {"folds": ("1", "2", "3", "4", "5")}, "every fold is what the benchmark tests on"),
        ("esc10", {"folds": ("6",)}, "'6' is not one of 1, 2, 3, 4, 5"),
        ("esc10", {"folds": ("1",), "exclude": ("label=cat",)}, "no clip has label 'cat'"),
        ("esc10", {"folds": ("1",), "exclude": ("dog_bark",)}, "is not COLUMN=LABEL"),
        ("esc10", {"folds": ("1",), "ask": ("label",)}, "is not COLUMN:TASK"),
        ("esc10", {"folds": ("1",), "ask": ("label:sounds",)}, "no task 'sounds'"),
        ("fsdd", {"ask": ("digit:keyword/number",)}, "no form 'number'"),
        ("fsdd", {"slots": ("asr.language=en",)}, "nothing asks 'asr'"),
    ],
)
def test_impossible_requests_name_the_option(
    shared_data: Path, source: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan_conversion(Request(str(shared_data / source), **options))


def test_labels_that_do_not_fit_their_question_are_named(shared_data: Path) -> None:
    with pytest.raises(
        InputError, match=r"'george' is not a note .speaker of recordings/0_george_0.wav, asked as pitch"
    ):
        plan_conversion(Request(str(shared_data / "fsdd"), ask=("speaker:pitch",)))
    with pytest.raises(InputError, match="'colour' is missing"):
        plan_conversion(Request(str(shared_data / "fsdd"), ask=("colour:quality",)))


def test_test_clips_are_converted_if_allowed(shared_data: Path) -> None:
    planned = plan_conversion(Request(str(shared_data / "fsdd"), splits=("train", "test"), allow_test=True))
    assert Counter(item.split for item in planned.items) == {"train": 2400, "test": 300}


def test_a_manifest_of_training_clips_alone_with_gaps_slots_and_captions(tmp_path: Path) -> None:
    path = manifest(
        tmp_path / "mine",
        [
            {"text": "BONJOUR <COMMA> TOI", "lang": "fr", "gender": "F", "said": ["a man", "A man.", "someone speaks"]},
            {"text": "GUTEN TAG", "lang": "de-AT", "gender": None, "said": []},
            {"text": "<NOISE>", "lang": "de", "gender": "other", "said": ""},
        ],
    )
    ask = ("text:asr", "lang:lid", "gender:gender", "said:caption", "text:st", "gender:qa")
    slots = ("asr.language=@lang", "st.target=en", "qa.question=@text")
    with pytest.raises(UsageError, match="no licence"):
        plan_conversion(Request(str(path), ask=ask, slots=slots))
    planned = plan_conversion(Request(str(path), ask=ask[:3], slots=slots[:1], licence="CC0"))
    asked = {
        (item.clip, question.task): (question.answers, question.slots)
        for item in planned.items
        for question in item.asked
    }
    assert asked == {
        ("audio/0.wav", "asr"): (("bonjour, toi",), {"language": "French"}),
        ("audio/0.wav", "lid"): (("French",), {}),
        ("audio/0.wav", "gender"): (("female",), {}),
        ("audio/1.wav", "asr"): (("guten tag",), {"language": "German"}),
        ("audio/1.wav", "lid"): (("German",), {}),
        ("audio/2.wav", "lid"): (("German",), {}),
    }
    asked = plan_conversion(Request(str(path), ask=("gender:qa",), slots=("qa.question=@text",), licence="CC0")).items
    assert [(item.asked[0].instruction, item.asked[0].answers) for item in asked] == [
        ("BONJOUR <COMMA> TOI", ("F",)),
        ("<NOISE>", ("other",)),
    ]
    with pytest.raises(InputError, match="needs target"):
        plan_conversion(Request(str(path), ask=("text:st",), licence="CC0"))
    with pytest.raises(UsageError, match="leaves no clip"):
        plan_conversion(Request(str(path), ask=("text:asr",), splits=("valid",), licence="CC0"))


def test_captions_tags_and_events_come_from_lists(tmp_path: Path) -> None:
    path = manifest(
        tmp_path / "lists",
        [
            {
                "captions": '["a dog barks", "rain"]',
                "tags": "Dog;Rain_on_surface;Dog",
                "events": [{"onset": 0.51, "offset": 1.0, "label": "Dog"}],
            }
        ],
    )
    ask = ("captions:caption", "tags:tagging", "events:sed")
    (item,) = plan_conversion(Request(str(path), ask=ask, licence="CC0")).items
    assert [question.answers for question in item.asked] == [
        ("A dog barks.", "Rain."),
        ("dog; rain on surface",),
        ("0.5-1.0 dog",),
    ]


def test_labels_that_others_imply_are_left_out_by_an_ontology(tmp_path: Path) -> None:
    entries = [
        {"id": "/a", "name": "Animal", "child_ids": ["/p"]},
        {"id": "/p", "name": "Domestic animals, pets", "child_ids": ["/d"]},
        {"id": "/d", "name": "Dog", "child_ids": ["/b"]},
        {"id": "/b", "name": "Bark", "child_ids": []},
        {"id": "/r", "name": "Rain", "child_ids": []},
    ]
    ontology = tmp_path / "ontology.json"
    ontology.write_text(json.dumps(entries))
    labels = ["Bark;Dog;Domestic_animals_and_pets;Animal;Rain", "Animal;Dog", "Animal", "Unheard_of;Rain"]
    path = manifest(tmp_path / "mine", [{"label": text} for text in labels])
    request = Request(str(path), ask=("label:tagging",), licence="CC0", ontology=ontology)
    answers = [item.asked[0].answers for item in plan_conversion(request).items]
    assert answers == [("bark; rain",), ("dog",), ("animal",), ("unheard of; rain",)]
    ontology.write_text('[{"id": "/a"}]')
    with pytest.raises(InputError, match="is no ontology"):
        plan_conversion(request)


def test_an_ontology_in_which_a_name_is_above_itself_is_refused(tmp_path: Path) -> None:
    ontology = tmp_path / "ontology.json"
    ontology.write_text(json.dumps([{"id": a, "name": a, "child_ids": [b]} for a, b in ("ab", "bc", "ca")]))
    with pytest.raises(InputError, match="is above itself"):
        read_ancestors(ontology)


def test_a_card_brings_its_labels_licence_and_splits(tmp_path: Path) -> None:
    planned, done = convert(Request("mini_speech", ask=("label:keyword",)), tmp_path / "out")
    assert done.clips == len(planned.items) > 0
    assert {(row.licence, row.split, row.domain) for row in open_rows([tmp_path / "out"])} == {
        ("Apache-2.0", "train", "speech")
    }
    with pytest.raises(UsageError, match="give --label"):
        plan_conversion(Request("mini_speech"))


# What a card's clips are asked, and answers that its miniature has; the cards of the benchmark that have training data.
OF_CARDS = {
    "asvspoof2015": ("spoof", {"genuine", "spoof"}),
    "clotho": ("caption", {'Something number 0 sounds, said 0 times, "loudly".'}),
    "cremad": ("emotion", {"angry", "happy"}),
    "desed": ("tagging", {"dog; speech"}),
    "esc50": ("sound_cls", {"dog", "helicopter"}),
    "fluentspeechcommands": ("intent", {"Change language"}),
    "fma_small": ("genre", {"hip-hop", "folk"}),
    "fsd50k": ("tagging", {"bark; dog; animal"}),
    "fsdkaggle2018": ("sound_cls", {"gunshot or gunfire", "hi-hat"}),
    "gtzan": ("genre", {"hip-hop", "blues"}),
    "libricount": ("spk_count", {"0"}),
    "librispeech_asr": ("asr", {"zero"}),
    "librispeech_mf": ("gender", {"male", "female"}),
    "nsynth": ("instrument/family", {"bass", "guitar"}),
    "ravdess": ("emotion", {"neutral", "angry"}),
    "speechcommands_v1": ("keyword", {"bed", "zero"}),
    "urbansound8k": ("sound_cls", {"car horn", "gun shot"}),
    "vocalsound": ("vocal_sound", {"throat clearing", "cough"}),
    "voxceleb1": ("speaker_id", {"speaker id10001"}),
    "voxlingua33": ("lid", {"Ukrainian"}),
}


@pytest.mark.parametrize("card", OF_CARDS)
def test_public_datasets_have_their_known_questions_on_training_parts(
    card: str, shared_data: Path, tmp_path: Path
) -> None:
    write_miniature(card, "publisher", tmp_path / "data" / card, shared_data)
    clips = load_task(card, data=tmp_path / "data").clips
    folds = sorted({clip.fold for clip in clips if clip.fold})[:-1]
    planned = plan_conversion(Request(card, data=tmp_path / "data", folds=tuple(folds)))
    trained = [clip for clip in clips if (clip.fold in folds if folds else clip.split == "train")]
    assert [item.clip for item in planned.items] == [clip.id for clip in trained]
    task, answers = OF_CARDS[card]
    assert {name for name, _, _ in count_tasks(planned.items)} == {task}
    assert answers <= {text for item in planned.items for question in item.asked for text in question.answers}
    if task in planned.classes and task != "tagging":
        assert len(planned.classes[task]) == len({clip.labels for clip in clips})


KILLED = """
import os, signal, sys
from pathlib import Path
from uniwhisper.data.convert import Request, convert

def progress(done, total):
    if done == 250:
        os.kill(os.getpid(), signal.SIGKILL)

convert(Request(sys.argv[1]), Path(sys.argv[2]), shard_bytes=2_000_000, progress=progress)
"""


def test_converting_twice_or_after_a_kill_gives_the_same_bytes(shared_data: Path, tmp_path: Path) -> None:
    source = str(shared_data / "philharmonia")
    for name in ("one", "two"):
        convert(Request(source), tmp_path / name, shard_bytes=2_000_000)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", KILLED, source, tmp_path / "killed"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list((tmp_path / "killed").glob("*.tar"))
    convert(Request(source), tmp_path / "killed", shard_bytes=2_000_000)
    first, *others = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())}
        for name in ("one", "two", "killed")
    )
    assert sum(name.endswith(".tar") for name in first) > 2
    assert all(rows == first for rows in others)


def test_two_datasets_share_a_folder_and_their_closed_sets(shared_data: Path, tmp_path: Path, uniwhisper: Run) -> None:
    first = manifest(tmp_path / "first", [{"label": "yes"}, {"label": "no"}])
    second = manifest(tmp_path / "second", [{"label": "rock"}])
    for path, task in ((first, "keyword"), (second, "genre")):
        words = ["--output", tmp_path / "out", "--label", f"label:{task}", "--licence", "CC0", "--json"]
        code, out, err = uniwhisper("convert", path, *words)
        assert code == 0, err
        assert json.loads(out)["tasks"] == [
            {"task": task, "rows": 2 - (task == "genre"), "answers": 2 - (task == "genre")}
        ]
    assert read_classes(tmp_path / "out") == {"first": {"keyword": ["no", "yes"]}, "second": {"genre": ["rock"]}}
    assert [row.dataset for row in rows_of(tmp_path / "out")] == ["first", "first", "second"]


def test_the_command_names_what_could_not_be_decoded_and_keeps_the_rest(tmp_path: Path, uniwhisper: Run) -> None:
    path = manifest(tmp_path / "mine", [{"label": "yes"}, {"label": "no"}])
    (tmp_path / "mine" / "audio" / "1.wav").write_bytes(b"no audio")
    words = ("convert", path, "--output", tmp_path / "out", "--label", "label:keyword", "--licence", "CC0")
    code, out, err = uniwhisper(*words)
    assert code == 1
    assert "1 clips that could not be decoded" in out
    assert "audio/1.wav" in err
    assert [row.clip for row in rows_of(tmp_path / "out")] == ["audio/0.wav"]


def test_the_command_shows_templates_and_draws(uniwhisper: Run) -> None:
    code, out, _ = uniwhisper("templates")
    assert code == 0
    assert len(out.splitlines()) > 26
    code, out, _ = uniwhisper("templates", "keyword/digit", "--draws", 5, "--json")
    assert code == 0
    assert len(json.loads(out)) == 5
    code, _, err = uniwhisper("templates", "st", "--draws", 5)
    assert code == 2
    assert "needs target" in err
    assert uniwhisper("templates", "nothing")[0] == 2
