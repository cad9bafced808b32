"""The public functions: every name called twice in one process, the example as written, and each form of input."""

from __future__ import annotations

import doctest
import inspect
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

import uwbench
from spectrum_encoder import DIM, RATE, SpectrumEncoder
from uwbench import api
from uwbench.api import (
    AudioArray,
    Clip,
    DataError,
    ExtractOptions,
    ModelSpec,
    ProbeOptions,
    StoreError,
    TaskSpec,
    UsageError,
    UwbenchError,
)
from uwbench.cards import card

EXAMPLE = "\n".join(line[4:] for line in (api.__doc__ or "").splitlines() if line.startswith("    "))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with the cache and the results that the example of the API makes, and the example's variables."""
    folder = tmp_path_factory.mktemp("api")
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UWBENCH_CACHE", str(folder / "cache"))
        patch.setenv("UWBENCH_RESULTS", str(folder / "results"))
        exec(EXAMPLE, names)
    return folder, names


@pytest.fixture
def folder(scored: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `scored`, whose cache and results are the default ones."""
    monkeypatch.setenv("UWBENCH_CACHE", str(scored[0] / "cache"))
    monkeypatch.setenv("UWBENCH_RESULTS", str(scored[0] / "results"))
    return scored[0]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A manifest of eight tones with two columns of labels."""
    rows = ["path,pitch,hand,split"]
    for number in range(8):
        pitch, hand = ("low", "high")[number % 2], ("left", "right")[number // 2 % 2]
        times = np.arange(RATE // 4) / RATE
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * np.sin(2e3 * (1 + number % 2) * times + number), RATE)
        rows.append(f"{number}.wav,{pitch},{hand},{'train' if number < 4 else 'test'}")
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(rows))
    return path


def test_the_example_gives_what_it_says(scored: tuple[Path, dict[str, Any]]) -> None:
    names = scored[1]
    assert names["results"].failures == [] == list(names["results"].missing)
    frame = names["scores"]
    assert list(frame) == ["model", "task", "method", "score", "low", "high", "n", "status", "contamination"]
    assert [*zip(frame["model"], frame["method"], strict=True)] == [
        (model, method) for model in ("logmel", "mfcc") for method in ("mlp", "knn")
    ]
    assert (frame["low"] <= frame["score"]).all()
    assert (frame["score"] <= frame["high"]).all()
    embeddings = names["embeddings"]
    assert embeddings.vectors.shape[:2] == (len(embeddings.ids), len(embeddings.layers))
    assert embeddings.vectors.dtype == np.float32
    labels = embeddings.to_frame()
    assert list(labels) == ["id", "label", "split", "fold", "group"]
    assert tuple(labels["id"]) == embeddings.ids
    assert [row.task for row in names["comparison"].tasks] == ["mini_music"]
    assert {model.label for model in names["board"].board.models} == {"logmel", "mfcc"}


@pytest.mark.parametrize("name", [name for name in uwbench.__all__ if inspect.isfunction(getattr(api, name))])
def test_the_example_in_a_docstring_is_true(name: str, folder: Path) -> None:
    tests = doctest.DocTestFinder(recurse=False).find(getattr(api, name), name, globs={"uwbench": uwbench})
    examples = [example for test in tests for example in test.examples]
    assert examples or name == "reproduce", "it needs a file of an earlier run"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    printed = io.StringIO()
    for test in tests:
        runner.run(test, out=printed.write)
    assert not runner.failures, printed.getvalue()


def result_of(folder: Path) -> Path:
    return next((folder / "results").glob("mfcc/*/*/mini_music.json"))


# A quick call of every public function.
CALLS: dict[str, Callable[[Path], object]] = {
    "bundle": lambda folder: api.bundle("mfcc", folder / "mfcc.zip"),
    "check_data": lambda _: api.check_data("mini_music"),
    "check_encoder": lambda _: api.check_encoder("mfcc"),
    "compare": lambda _: api.compare("logmel", "mfcc", method="knn"),
    "access_problem": api.access_problem,
    "active_rms": lambda _: api.active_rms(np.ones(8000, np.float32), 8000),
    "corrupt": lambda _: api.corrupt(np.ones(8000, np.float32), 8000, api.Corruption("noise", "pink", 10.0), b"a clip"),
    "crossings": lambda _: [
        api.probe(["logmel", "mfcc"], "mini_music", methods="few-shot", results="curves"),
        api.crossings("logmel", "mfcc", results="curves"),
    ][1],
    "decode": lambda _: api.decode(api.load_task("mini_music").clips[0].audio, 8000),
    "describe_access": api.describe_access,
    "describe_model": lambda _: api.describe_model("logmel"),
    "evaluate": lambda _: api.evaluate("mfcc", "mini_music", methods=["knn"]),
    "extract": lambda _: api.extract(["logmel", "mfcc"], "mini_music"),
    "fetch_data": lambda _: refused(lambda: api.fetch_data("mini_music")),
    "find_manifest": lambda folder: api.find_manifest(str(folder)),
    "folders": lambda _: api.folders(),
    "free_bytes": api.free_bytes,
    "leaderboard": lambda _: api.leaderboard(suite="mini"),
    "list_cache": lambda _: api.list_cache(),
    "list_models": lambda _: api.list_models(),
    "list_protocols": lambda _: api.list_protocols(),
    "list_tasks": lambda _: api.list_tasks(),
    "load_card": lambda _: api.load_card("esc50"),
    "load_embeddings": lambda _: api.load_embeddings("mfcc", "mini_music"),
    "load_encoder": lambda _: api.load_encoder("mfcc"),
    "load_protocol": lambda _: api.load_protocol("uwbench-1"),
    "load_task": lambda _: api.load_task("mini_music"),
    "measure_inflation": lambda _: refused(lambda: api.measure_inflation(["mini_music"], ["mfcc"])),
    "model_card": lambda _: api.model_card("mfcc"),
    "probe": lambda _: api.probe("mfcc", "mini_music", methods="knn"),
    "prune_cache": lambda _: api.prune_cache(dry_run=True),
    "read_bytes": lambda _: api.read_bytes(api.load_task("mini_music").clips[0].audio),
    "read_manifest": lambda folder: api.read_manifest(write_manifest(folder), "label"),
    "reproduce": lambda folder: api.reproduce(result_of(folder)).equal,
    "sensitivity": lambda _: api.sensitivity(method="knn"),
    "suite_names": lambda _: api.suite_names(),
    "task_names": lambda _: api.task_names(),
    "verify": lambda folder: api.verify(api.bundle("mfcc", folder / "mfcc.zip").path),
    "verify_cache": lambda _: api.verify_cache(),
    "write_figures": lambda folder: api.write_figures(folder / "figures", formats=["svg"]),
}
FOR_THE_COMMAND_LINE = {
    "counted",
    "disk_error",
    "escaped",
    "is_own_data",
    "open_console",
    "printable",
    "sensitivity_view",
}


def write_manifest(folder: Path) -> Path:
    path = folder / "clips.csv"
    path.write_text("path,label,split\na.wav,x,train\n")
    (folder / "a.wav").touch()
    return path


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as error:
        call()
    return str(error.value)


def functions() -> set[str]:
    return {name for name in api.__all__ if inspect.isfunction(getattr(api, name))}


def test_every_public_function_is_called_here() -> None:
    assert functions() == CALLS.keys() | FOR_THE_COMMAND_LINE


@pytest.mark.parametrize("name", CALLS)
def test_a_public_name_stays_a_function(name: str, folder: Path) -> None:
    first = CALLS[name](folder)
    second = CALLS[name](folder)
    assert type(first) is type(second)
    assert inspect.isfunction(getattr(api, name))


# What public functions return, made quickly.
RETURNED: dict[str, Callable[[Path], object]] = {
    "Bundle": lambda folder: api.bundle("mfcc", folder / "mfcc.zip"),
    "CheckReport": lambda _: api.check_data("mini_music"),
    "Comparison": lambda _: api.compare("logmel", "mfcc", method="knn"),
    "Conformance": lambda _: api.check_encoder("mfcc"),
    "Dataset": lambda _: api.load_task("mini_music"),
    "Embeddings": lambda _: api.load_embeddings("mfcc", "mini_music"),
    "Leaderboard": lambda _: api.leaderboard(suite="mini", references=False),
    "Reproduction": lambda folder: api.reproduce(result_of(folder)),
    "Results": lambda _: api.extract(["logmel", "mfcc"], "mini_music"),
    "Verification": lambda folder: api.verify(api.bundle("mfcc", folder / "mfcc.zip").path),
}
SHOWN = {"__repr__", "__rich__", "_repr_html_"}


def members_of(thing: object) -> set[str]:
    return {name for name in dir(type(thing)) if name in SHOWN or not name.startswith("_")}


def asked(thing: object, member: str, folder: Path) -> object:
    """Return the value of a member, or what it returns if it is a method; tables as text."""
    value = getattr(thing, member)
    match member:
        case "compare":
            value = value("logmel", "mfcc")
        case "to_parquet":
            value = value(folder / "vectors.parquet")
        case "write_figures":
            value = value(folder / "figures", formats=["svg"])
        case _ if callable(value):
            value = value()
    if not hasattr(value, "renderables"):
        return value
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(value)
    return console.export_text()


@pytest.mark.parametrize("name", RETURNED)
def test_every_member_of_what_is_returned_answers_twice(name: str, folder: Path) -> None:
    thing = RETURNED[name](folder)
    assert type(thing).__name__ == name
    for member in members_of(thing):
        first, second = asked(thing, member, folder), asked(thing, member, folder)
        assert type(first) is type(second), member
        assert str(first) == str(second), member


def test_an_encoder_is_loaded_and_encodes_twice() -> None:
    encoder = uwbench.load_encoder("mfcc")
    waveforms, lengths = torch.ones(1, RATE), torch.tensor([RATE])
    frames = []
    for _ in range(2):
        encoder.load("cpu", "fp32")
        frames.extend(encoder.encode(waveforms, lengths, [0]).frames for _ in range(2))
    assert all(torch.equal(frames[0], other) for other in frames[1:])


def test_every_public_function_says_what_it_does() -> None:
    for name in functions():
        assert inspect.getdoc(getattr(api, name)), name
        assert not [
            parameter
            for parameter in inspect.signature(getattr(api, name)).parameters.values()
            if parameter.annotation is parameter.empty
        ]


def test_the_package_offers_names_of_the_api_and_never_turns_one_into_a_module() -> None:
    assert set(uwbench.__all__) <= {*api.__all__}
    for name in (*uwbench.__all__, *uwbench.__all__):
        assert getattr(uwbench, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="no attribute 'run'"):
        _ = uwbench.run
    assert {*dir(uwbench)} == {*uwbench.__all__, "__version__"}


def test_importing_the_api_loads_nothing_heavy() -> None:
    program = "import sys, uwbench.api; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "datasets", "faiss", "pandas", "sklearn", "numpy", "pydantic", "pyarrow"}
    assert not heavy & set(ended.stdout.split())


def test_the_choices_are_those_of_cards_and_results() -> None:
    assert tuple(api.Kind) == get_args(card.Kind)
    assert tuple(api.Domain) == get_args(card.Domain)
    kinds = {kind for info in api.METHODS.values() for kind in info.kinds}
    assert kinds == set(get_args(card.Kind))


def test_a_wrong_choice_is_refused_with_the_list() -> None:
    assert "not one of mlp, knn, linear" in refused(lambda: uwbench.evaluate("mfcc", "mini_music", methods=["svm"]))
    assert "names no method" in refused(lambda: uwbench.evaluate("mfcc", "mini_music", methods=[]))
    assert "not one of full, trimmed" in refused(lambda: uwbench.load_encoder("mfcc", context="half"))
    assert "not one of fp32, bf16" in refused(lambda: ExtractOptions(dtype="fp64"))
    assert "not one of local, ray" in refused(lambda: ExtractOptions(engine="slurm"))
    assert "not I/N" in refused(lambda: ExtractOptions(part=(3, 2)))
    assert "not one of single-label" in refused(lambda: TaskSpec("m.csv", kind="labels"))
    assert "not one of speech, sound, music" in refused(lambda: TaskSpec("m.csv", domain="noise"))
    assert "not one of keep, drop" in refused(lambda: uwbench.leaderboard(contaminated="hide"))
    assert "not one of shards, hub" in refused(lambda: api.fetch_data("esc50", source="web"))


def test_what_cannot_be_run_at_all_is_refused(tmp_path: Path) -> None:
    assert "no model was named" in refused(lambda: uwbench.evaluate([], "mini_music"))
    assert "is no folder" in refused(lambda: uwbench.evaluate("mfcc", "mini_music", data=tmp_path / "none"))
    assert "cannot be used" in refused(lambda: uwbench.evaluate("mfcc", "mini_music", device="cuda:99"))


def test_two_manifests_of_one_call_may_have_different_labels(manifest: Path) -> None:
    tasks = [TaskSpec(manifest, label="pitch", name="pitch"), TaskSpec(manifest, label="hand", name="hand")]
    results = uwbench.evaluate("mfcc", tasks, methods="knn")
    assert results.failures == []
    assert [result.task.name for _, result in results.results] == ["pitch", "hand"]
    assert set(uwbench.load_embeddings("mfcc", "pitch").labels) == {"low", "high"}
    assert set(uwbench.load_embeddings("mfcc", "hand").labels) == {"left", "right"}


def test_a_task_may_be_a_path_or_a_dataset(manifest: Path) -> None:
    dataset = uwbench.load_task(manifest, label="pitch", name="tones")
    clips = tuple(
        Clip(clip.id, AudioArray(api.decode(clip.audio, RATE), RATE, clip.id), clip.labels, split=clip.split)
        for clip in dataset.clips
    )
    in_memory = type(dataset)(dataset.card.model_copy(update={"name": "arrays"}), clips, "memory")
    results = uwbench.extract(["mfcc"], [dataset, in_memory])
    assert results.failures == []
    assert uwbench.load_embeddings("mfcc", "arrays").ids == tuple(clip.id for clip in dataset.clips)
    assert "opened already" in refused(lambda: uwbench.load_task(dataset, label="hand"))
    renamed = manifest.with_name("labels.csv")
    renamed.write_text(manifest.read_text().replace("pitch", "label"))
    assert {clip.labels for clip in uwbench.load_task(renamed).clips} == {"low", "high"}
    assert uwbench.load_task(TaskSpec(renamed, name="a")).card.name == "a"


def test_an_encoder_may_be_an_object(folder: Path) -> None:
    encoder = SpectrumEncoder(salt="object")
    first, results = (uwbench.evaluate(encoder, "mini_music", methods="knn") for _ in range(2))
    assert first.failures == results.failures == []
    assert [extraction.encoded for _, _, extraction in first.extractions if extraction] == [120]
    assert results.extractions == [("spectrum", "mini_music", None)], "the second finds the embeddings cached"
    assert encoder.batches == [], "a copy is loaded and run, so that the object keeps its identity"
    vectors = uwbench.load_embeddings(encoder, "mini_music").vectors
    assert vectors.shape[1:] == (1, DIM)
    again = uwbench.probe(SpectrumEncoder(salt="object"), "mini_music", methods="knn")
    assert [result.scores for _, result in again.results] == [result.scores for _, result in results.results]
    # An encoder of the same name is not taken for it.
    text = refused(lambda: uwbench.probe(SpectrumEncoder(salt="changed"), "mini_music"))
    assert "no embeddings of 'spectrum' with this identity" in text


def test_an_encoder_may_be_a_class() -> None:
    assert uwbench.extract(SpectrumEncoder, "mini_music").failures == []


def test_objects_that_are_no_encoders_or_cannot_be_sent_are_refused() -> None:
    assert "no `info: EncoderInfo`" in refused(lambda: uwbench.evaluate(cast(Any, object()), "mini_music"))
    results = uwbench.extract(SpectrumEncoder(salt="ray"), "mini_music", extract=ExtractOptions(engine="ray"))
    assert "FILE.py:Class" in results.failures[0]


def test_one_encoder_with_several_settings_must_be_named_exactly() -> None:
    encoder = SpectrumEncoder(salt="layers")
    for layers in ("last", "all"):
        uwbench.extract(encoder, "mini_music", extract=ExtractOptions(layers=layers))
    text = refused(lambda: uwbench.load_embeddings(encoder, "mini_music"))
    assert "several settings" in text
    folders = text.partition("name one of ")[2].split(", ")
    assert {uwbench.load_embeddings(name, "mini_music").vectors.shape[1] for name in folders} == {1, 2}


def test_what_the_cache_lacks_is_an_error_that_says_what_to_run(folder: Path) -> None:
    with pytest.raises(StoreError, match="uwbench extract --model mfcc --task mini_speech"):
        uwbench.load_embeddings("mfcc", "mini_speech")
    with pytest.raises(StoreError, match="--pooling"):
        uwbench.load_embeddings("mfcc", "mini_music", pooling="max")


def test_a_failure_is_in_the_results_and_the_rest_goes_on(manifest: Path) -> None:
    rows = manifest.read_text().splitlines()
    manifest.with_name("broken.csv").write_text("\n".join([*rows, "gone.wav,low,left,test"]))
    broken = TaskSpec(manifest.with_name("broken.csv"), label="pitch", name="broken")
    whole = TaskSpec(manifest, label="pitch", name="whole")
    results = uwbench.evaluate("mfcc", [broken, "esc50", whole], methods="knn")
    assert results.exit_code == 1
    assert [result.status for _, result in results.results] == ["failed", "ok"]
    assert "gone.wav" in "".join(results.failures)
    assert "esc50" in results.missing[0]
    assert "esc50" in results._repr_html_()
    assert "missing: esc50" in repr(results)
    assert "failed: mfcc, broken: " in repr(results)
    frame = results.to_frame().set_index("task")
    assert frame.loc["broken", "status"] == "failed"
    assert frame["score"].notna().tolist() == [False, True]
    allowed = uwbench.probe("mfcc", broken, methods="knn", probe=ProbeOptions(allow_missing=1))
    assert [result.status for _, result in allowed.results] == ["partial"]
    with pytest.raises(DataError):
        uwbench.load_task("esc50")


class Recorder:
    """A reporter that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def note(self, text: str) -> None:
        self.calls.append(("note",))

    def planned(self, plans: Any, missing: Any, folders: Any) -> None:
        self.calls.append(("planned", len(plans), folders.cache))

    def started(self, model: str, task: str, clips: int, input_s: float = 0.0) -> None:
        self.calls.append(("started", model, task, clips, input_s))

    def advanced(self, clips: int, audio_s: float, input_s: float = 0.0) -> None:
        self.calls.append(("advanced", clips, input_s))

    def finished(self) -> None:
        self.calls.append(("finished",))


def test_a_reporter_hears_the_plan_then_each_task(tmp_path: Path) -> None:
    reporter = Recorder()
    results = uwbench.evaluate("mfcc", "mini_music", methods="knn", cache=tmp_path / "c", progress=reporter)
    clips = results.results[0][1].counts.clips
    kinds = [call[0] for call in reporter.calls]
    assert kinds == [
        *["started", *["advanced"] * clips, "finished"],
        *["planned", "note", "started", *["advanced"] * kinds[clips + 5 :].count("advanced"), "finished"],
        *["started", "finished"],
    ]
    assert ("planned", 1, tmp_path / "c") in reporter.calls
    scan, encode, probe = (call for call in reporter.calls if call[0] == "started")
    assert scan == ("started", "scan", "mini_music", clips, 0.0)
    assert encode[:4] == ("started", "mfcc", "mini_music", clips)
    assert probe == ("started", "mfcc", "mini_music (probe)", 0, 0.0)
    encoded = [call for call in reporter.calls if call[0] == "advanced"][clips:]
    assert sum(call[1] for call in encoded) == clips
    assert sum(call[2] for call in encoded) == pytest.approx(encode[4])


def test_a_share_of_the_parts_is_extracted_and_not_scored() -> None:
    results = uwbench.evaluate("mfcc", "mini_music", methods="knn", extract=ExtractOptions(part=(1, 2)))
    assert results.results == [] == results.failures
    assert [task for _, task, _ in results.extractions] == ["mini_music"]


def test_results_are_shown_on_a_terminal_and_in_a_notebook(folder: Path) -> None:
    results = uwbench.evaluate("mfcc", "mini_music", methods="knn")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(results)
    assert "mini_music" in console.export_text()
    assert "<td>mini_music</td>" in results._repr_html_()
    assert repr(results) == repr(results.to_frame())


def test_predictions_are_a_frame(folder: Path) -> None:
    results = uwbench.evaluate(["mfcc", "logmel"], "mini_music")
    frame = results.predictions_frame()
    for model, method, score in results.to_frame()[["model", "method", "score"]].itertuples(index=False):
        rows = frame[(frame["model"] == model) & (frame["method"] == method)]
        assert (rows["truth"] == rows["prediction"]).mean() == pytest.approx(score)
    assert set(frame["truth"]) <= {"bell", "bowed", "organ", "pluck", "reed"}
    assert list(uwbench.extract("mfcc", "mini_music").predictions_frame()) == list(frame)


def test_a_model_spec_is_found_in_the_cache_by_its_name(folder: Path) -> None:
    assert uwbench.probe(ModelSpec("mfcc"), "mini_music", methods="knn").failures == []
    with pytest.raises(UwbenchError, match="no embeddings of 'nobody'"):
        uwbench.probe("nobody", "mini_music")
