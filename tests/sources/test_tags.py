"""Multi-label columns: the separator is found or asked for, and a clip without a label is a negative."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uwbench.errors import InputError
from uwbench.options import TaskSpec
from uwbench.sources.dataset import Dataset
from uwbench.sources.resolve import open_task

TAGS = [["dog"], ["cat"], ["dog", "cat"], [], ["bird", "dog"], ["bird"], ["cat", "bird", "dog"], []]
FORMS = {
    "semicolon": ";".join,
    "comma": ",".join,
    "comma and space": ", ".join,
    "bar": "|".join,
    "space": " ".join,
    "JSON": json.dumps,
    "Python": str,
}


def read(folder: Path, cells: list[object], suffix: str = ".jsonl") -> Dataset:
    path = folder / f"m{suffix}"
    rows = [{"path": f"{i}.wav", "label": cell, "split": ("train", "test")[i % 2]} for i, cell in enumerate(cells)]
    if suffix == ".tsv":
        path.write_text("path\tlabel\tsplit\n" + "".join("\t".join(map(str, row.values())) + "\n" for row in rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_task(TaskSpec(path, kind="multi-label"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".jsonl", ".tsv"])
def test_every_form_gives_the_same_labels(form: str, suffix: str, tmp_path: Path) -> None:
    dataset = read(tmp_path, [FORMS[form](tags) for tags in TAGS], suffix)
    assert [clip.labels for clip in dataset.clips] == [tuple(tags) for tags in TAGS]
    assert bool(dataset.problems) == (form not in ("semicolon", "JSON", "Python"))  # it is said, if it was found
    assert dataset.card.chance == pytest.approx(2 / (2 * 4))


@pytest.mark.parametrize("empty", ["", " ", "[]", None, []])
def test_a_clip_without_a_label_is_a_negative(empty: object, tmp_path: Path) -> None:
    dataset = read(tmp_path, ["a", "b", "a;b", empty])
    assert [clip.labels for clip in dataset.clips] == [("a",), ("b",), ("a", "b"), ()]


ASKED = [
    ["a;b", "a,c", "b", "c"],
    ["Speech;Male speech, man speaking", "Speech", "x", "y"],
    ["Male speech, man speaking", "Child speech, kid speaking", "Music", "Music"],
    ["acoustic guitar", "electric guitar", "bass", "drums"],
    ["rock pop", "jazz blues", "folk", "soul"],
    ["a|b", "b,c", "a", "c"],
]


@pytest.mark.parametrize("cells", ASKED)
def test_what_is_not_clear_is_asked_for(cells: list[object], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"column 'label': .*for example") as error:
        read(tmp_path, cells)
    assert "JSON lists" in str(error.value.remedy)
    assert read(tmp_path, [[cell] for cell in cells]).clips[0].labels == (cells[0],)


@pytest.mark.parametrize("cell", ["['a' 'b']", "[a, b]", "['a', 'b'", "['a', ['b']]", "a;;b"])
def test_what_is_no_list_of_labels_is_refused(cell: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1, column 'label'"):
        read(tmp_path, [cell, "a", "b", "a;b"])


def test_labels_that_differ_in_spelling_alone_are_said(tmp_path: Path) -> None:
    dataset = read(tmp_path, [["Dog"], ["dog"], ["hot  dog"], ["hot dog"], ["cat"], ["ca\u0301t"], ["c\u00e1t"]])
    assert len(dataset.problems) == 3
    assert "the labels 'Dog', 'dog' differ in case" in dataset.problems[0]


names = st.text("abc", min_size=1, max_size=3)


@given(
    st.lists(st.lists(names, max_size=3, unique=True), min_size=2, max_size=8), st.sampled_from([";", "|", ",", " "])
)
def test_labels_are_as_written_or_asked_for(
    tmp_path_factory: pytest.TempPathFactory, tags: list[list[str]], mark: str
) -> None:
    try:
        dataset = read(tmp_path_factory.mktemp("m"), [mark.join(clip) for clip in tags])
    except InputError:
        return
    assert [clip.labels for clip in dataset.clips] == [tuple(clip) for clip in tags]
