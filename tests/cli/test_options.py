"""Names of tasks and models on the command line: commas, globs, and options in brackets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Command
from uwbench import options
from uwbench.api import Domain, Kind, TaskSpec, UsageError
from uwbench.cli.options import OwnData, model_names, split_commas, split_task_options, task_specs
from uwbench.methods import BUILTIN_METHODS

KEYS = ("label", "group", "name", "kind", "domain", "source")
# Characters that mean something to the parser, and some that do not.
TEXT = st.text(st.sampled_from("abz09=[],*?/. -_é"), min_size=1, max_size=12)
# Values end at a comma or bracket; a name with one of these needs --label and so on.
VALUE = st.text(st.sampled_from("abz09=*?/. -_é"), min_size=1, max_size=8)
OPTIONS = st.dictionaries(st.sampled_from(KEYS), VALUE, min_size=1)


def bracketed(options: dict[str, str]) -> str:
    return "[" + ",".join(f"{key}={value}" for key, value in options.items()) + "]"


@given(TEXT, OPTIONS)
def test_options_in_brackets_at_the_end_are_read_whatever_the_source(source: str, options: dict[str, str]) -> None:
    assert split_task_options(source + bracketed(options)) == (source, options)


@given(TEXT)
def test_a_source_without_known_options_stays_as_it_is(source: str) -> None:
    assert split_task_options(source) == (source, {})


@given(OPTIONS, TEXT)
def test_brackets_before_the_end_belong_to_the_source(options: dict[str, str], rest: str) -> None:
    source = f"x{bracketed(options)}{rest}"
    if not source.endswith("]"):
        assert split_task_options(source) == (source, {})


@given(st.lists(st.tuples(st.text(st.sampled_from("abz09=*?/. -_é"), min_size=1), OPTIONS), min_size=1, max_size=4))
def test_commas_inside_brackets_do_not_split(items: list[tuple[str, dict[str, str]]]) -> None:
    parts = [source + bracketed(options) for source, options in items]
    assert split_commas(",".join(parts)) == parts


@given(TEXT)
def test_splitting_loses_nothing_but_commas(text: str) -> None:
    parts = split_commas(text)
    assert "".join(parts).replace(",", "") == text.replace(",", "")
    if "[" not in text:
        assert parts == [part for part in text.split(",") if part]


@pytest.mark.parametrize("text", ["a.csv[label=x,label=y]", "a.csv[label=]", "a.csv[label=x,group=]"])
def test_an_option_given_twice_or_empty_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--task a\.csv.*twice or without a value"):
        split_task_options(text)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with manifests, some with odd names."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("a1.csv", "b1.csv", "c1.csv", "x,y.csv", "odd[label=z].csv", "odd.csv[label=z]", "[ab]=1.csv"):
        (folder / name).write_text("path,label,split\n")
    monkeypatch.chdir(folder)
    return folder


def sources(*values: str) -> list[str]:
    return [str(spec.source) for spec in task_specs(values)]


def test_globs_commas_and_names_that_exist(files: Path) -> None:
    assert sources("[ab]*.csv") == ["a1.csv", "b1.csv"]
    assert sources(f"{files}/[ab]1.csv") == [f"{files}/a1.csv", f"{files}/b1.csv"]
    assert sources("[a,c]1.csv,b1.csv") == ["a1.csv", "c1.csv", "b1.csv"]
    assert sources("x,y.csv") == ["x,y.csv"]
    assert sources("odd[label=z].csv", "[ab]=1.csv") == ["odd[label=z].csv", "[ab]=1.csv"]
    assert task_specs(["odd.csv[label=z]"]) == [TaskSpec("odd.csv[label=z]")], "the file of that name exists"
    assert sources("mini_*") == ["mini_music", "mini_sound", "mini_speech"]
    assert model_names(["logmel,mfcc", "[ab]1.csv"]) == ["logmel", "mfcc", "a1.csv", "b1.csv"]
    with pytest.raises(UsageError, match=r"matches no card and no file.*label, group"):
        sources("a1.csv[lable=x]")


def test_each_task_may_have_its_own_options(files: Path) -> None:
    specs = task_specs(
        [
            "a1.csv[label=speaker,kind=multi-label],b1.csv",
            "x,y.csv[name=xy,domain=music]",
            "[ab]1.csv[group=who]",
            "esc50",
        ],
        OwnData(label="emotion", group="session"),
    )
    assert specs == [
        TaskSpec("a1.csv", label="speaker", group="session", kind=Kind.MULTI_LABEL),
        TaskSpec("b1.csv", label="emotion", group="session"),
        TaskSpec("x,y.csv", label="emotion", group="session", name="xy", domain=Domain.MUSIC),
        TaskSpec("a1.csv", label="emotion", group="who"),
        TaskSpec("b1.csv", label="emotion", group="who"),
        TaskSpec("esc50"),  # a card has its labels already
    ]


def test_a_list_of_tasks_longer_than_a_file_name_is_a_list() -> None:
    assert len(sources(",".join(["esc50"] * 100 + ["fsd50k"]))) == 2


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (["run", "--dtype", "fp16"], "'fp32', 'bf16'"),
        (["run", "--engine", "slurm"], "'local', 'ray'"),
        (["run", "--context", "short"], "'full', 'trimmed'"),
        (["extract", "--domain", "noise"], "'speech', 'sound', 'music'"),
        (["probe", "--kind", "x"], "'single-label', 'multi-label', 'frame-multi-label', 'retrieval', 'transcription'"),
        (["compare", "a", "b", "--method", "svm"], "mlp, knn, linear"),
        (["leaderboard", "--format", "pdf"], "'csv', 'md', 'html', 'json'"),
        (["leaderboard", "--contaminated", "hide"], "'keep', 'drop'"),
        (["card", "logmel", "--format", "yaml"], "'hf', 'eval', 'mteb'"),
        (["data", "fetch", "esc50", "--source", "web"], "'shards', 'hub'"),
        (["run", "-m", "logmel", "-s", "mini", "--method", "svm"], "mlp, knn"),
        (["run", "-m", "logmel", "-t", "x.csv[kind=labels]"], "single-label, multi-label, frame-multi-label"),
        (["leaderboard", "--output", "board.pdf"], ".csv, .md, .html, .json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_choice_is_refused_with_the_list(uwbench: Command, words: list[str], choices: str) -> None:
    done = uwbench(*words)
    assert done.code == 2
    assert choices in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (
            ["run"],
            [
                "|".join([*BUILTIN_METHODS, "default|all>"]),
                "full|trimmed",
                "fp32|bf16",
                "local|ray",
                "speech|sound|music",
                "retrieval|transcription",
            ],
        ),
        (["leaderboard"], ["csv|md|html|json", "keep|drop"]),
        (["card"], ["hf|eval|mteb"]),
        (["data", "fetch"], ["shards|hub"]),
    ],
    ids=str,
)
def test_help_lists_the_choices(uwbench: Command, words: list[str], choices: list[str]) -> None:
    text = uwbench(*words, "--help").out
    for choice in choices:
        assert choice in text


def test_a_mistyped_choice_is_told_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"'spech' is not one of speech, .*; did you mean speech"):
        options.choice(Domain, "spech", "--domain")
    with pytest.raises(UsageError) as error:
        options.choice(Domain, "xyzzy", "--domain")
    assert error.value.remedy is None


def test_open_shows_the_page_in_the_browser(uwbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, opened = tmp_path / "board.html", tmp_path / "opened"
    (tmp_path / "none").mkdir()
    monkeypatch.setattr("webbrowser.open", opened.write_text)
    done = uwbench("leaderboard", "--results", tmp_path / "none", "--output", page, "--open")
    assert done.code == 0, done.err
    assert opened.read_text() == page.as_uri()
    assert uwbench("leaderboard", "--results", tmp_path / "none", "--open").code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "--protocol", "maeb-2", "--method", "knn"],
            "--method knn: the protocol maeb-2 does not run it; add --protocol",
        ),
        (
            ["run", "--method", "mteb-pairs"],
            "--method mteb-pairs: the protocol uwbench-1 does not run it; add --protocol maeb-2",
        ),
        (["probe", "--method", "mteb-pairs"], "does not run it; add --protocol maeb-2"),
        (
            ["run", "--method", "verification", "--corrupt", "noise:10dB"],
            "--corrupt: no method asked for is tested on corrupted clips; add --method mlp,knn",
        ),
    ],
    ids=str,
)
def test_what_no_method_can_do_is_refused_before_anything_is_encoded(
    uwbench: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    done = uwbench(words[0], "-m", "mfcc", "-t", "mini_sound", *words[1:])
    assert done.code == 2
    assert message in done.err
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_a_board_of_what_is_nowhere_says_so(uwbench: Command) -> None:
    done = uwbench("leaderboard", "--protocol", "maeb")
    assert done.code == 2
    assert "unknown protocol 'maeb'; did you mean maeb-2?" in done.err
    assert uwbench("run", "-m", "mfcc", "-t", "mini_sound", "--method", "knn").code == 0
    done = uwbench("leaderboard", "--method", "zero-shot")
    assert done.code == 2
    assert "no result has a score by a method asked for; uwbench run" in done.err
    assert uwbench("leaderboard", "--method", "knn,zero-shot").code == 0
