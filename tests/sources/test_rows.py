"""Tables as people have them: each form gives the same clips, or is refused or noted with the line."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from uwbench.errors import InputError
from uwbench.options import TaskSpec
from uwbench.sources.check import check_dataset
from uwbench.sources.dataset import Dataset
from uwbench.sources.resolve import is_own_data, open_task

HEADER = ["path", "label", "split"]
ROWS = [["a.wav", "cat", "train"], ["b.wav", "dög", "train"], ["c.wav", "cat", "test"], ["d.wav", "dög", "test"]]
OBJECTS = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
TEXT = "".join(f"{','.join(row)}\n" for row in [HEADER, *ROWS])
LINES = "".join(json.dumps(row) + "\n" for row in OBJECTS)
# Name and content of files that all hold the rows above.
FORMS: dict[str, bytes] = {
    "m.csv": TEXT.encode(),
    "semicolons.csv": TEXT.replace(",", ";").encode(),
    "bars.csv": TEXT.replace(",", "|").encode(),
    "tabs.csv": TEXT.replace(",", "\t").encode(),
    "m.tsv": TEXT.replace(",", "\t").encode(),
    "commas.tsv": TEXT.encode(),
    "utf16.csv": TEXT.encode("utf-16"),
    "big.csv": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "bare.csv": TEXT.encode("utf-16-le"),
    "utf16.tsv": TEXT.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "mac.csv": TEXT.replace("\n", "\r").encode(),
    "excel.csv": ("\ufeff" + TEXT.replace(",", ";").replace("\n", ";;\r\n") + ";;;;\r\n" * 3).encode(),
    "m.csv.gz": gzip.compress(TEXT.encode()),
    "m.TSV.GZ": gzip.compress(TEXT.replace(",", "\t").encode()),
    "m.jsonl.gz": gzip.compress(LINES.encode()),
    "list.json": json.dumps(OBJECTS, indent=2).encode(),
    "lines.json": LINES.encode(),
    "utf16.json": json.dumps(OBJECTS).encode("utf-16"),
    "capitals.csv": TEXT.replace("path,label,split", "Path,Label,Split").encode(),
    "common.csv": TEXT.replace("path", "file_name").encode(),
    "hf.jsonl": LINES.replace('"path"', '"audio_filepath"').encode(),
}


@pytest.mark.parametrize("name", ["line.csv.gz", "space.jsonl.gz", "space.json.gz"])
def test_a_compressed_table_cannot_fill_the_memory(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"[" + b" " * 40_000_000, compresslevel=6))
    with pytest.raises(InputError, match="decompresses to more than 100 times its size"):
        open_task(str(tmp_path / name))


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"path,label,split\n" + b"a" * 70_000_000)
    with pytest.raises(InputError, match="line 2: is longer than"):
        open_task(str(tmp_path / "m.csv"))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_clips(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORMS[name])
    assert is_own_data(name)
    dataset = open_task(str(tmp_path / name))
    assert [[clip.id, clip.labels, clip.split] for clip in dataset.clips] == ROWS
    assert bool(dataset.problems) == (name in ("capitals.csv", "common.csv", "hf.jsonl"))


REFUSED: dict[str, tuple[bytes, str]] = {
    "swallowed.csv": (b'path,label,split\na,"x,train\nb,y,train\nc,z",test\n', "line 2: a quote opens .* next 2 lines"),
    "two.csv": (b'path,label,split\na,"x,train\nb,y",train\n', "line 2: a quote opens"),
    "open.csv": (b'path,label,split\na,b,train\nc,"x,train\nb,y,train\n', "line 3: is not valid CSV"),
    "quote.csv": (b'path,label,split\na,"x" he said,train\n', "line 2: is not valid CSV"),
    "latin.csv": ("path,label,split\na,ü,train\n".encode("latin-1"), "is not UTF-8 text"),
    "odd.csv": ("path,label,split\n".encode("utf-16") + b"\0", "is not UTF-16 text"),
    "cut.csv.gz": (gzip.compress(TEXT.encode())[:-9], "cannot be read"),
    "plain.csv.gz": (TEXT.encode(), "cannot be read"),
    "columns.json": (json.dumps({"path": {"0": "a"}, "label": {"0": "b"}}, indent=1).encode(), "not a list of rows"),
    "m.xlsx": (b"PK\3\4", "must end in one of .csv"),
    "short.csv": (b"path,label,split\na,b\n", "line 2: 2 values"),
    "long.csv": (b"path,label,split\na,b,train,more\n", "line 2: 4 values"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, message = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        open_task(name)


def test_a_cell_that_spans_lines_is_said(tmp_path: Path) -> None:
    text = (
        TEXT.replace("split", "split,text", 1).replace("train\n", 'train,"two\nlines"\n').replace("test\n", "test,x\n")
    )
    (tmp_path / "m.csv").write_text(text)
    dataset = open_task(str(tmp_path / "m.csv"))
    assert len(dataset.clips) == 4
    assert dataset.problems == ("m.csv: 2 rows have a cell that spans lines, the first at line 2",)
    (tmp_path / "m.csv").write_text(text.replace("d.wav,dög,test", "d.wav,,test"))
    with pytest.raises(InputError, match="line 7, column 'label': is empty"):
        open_task(str(tmp_path / "m.csv"))


cells = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n", exclude_categories=("C",)), max_size=9).map(
    str.strip
)


@given(st.lists(st.tuples(cells, cells.filter(bool)), min_size=2, max_size=6, unique_by=lambda pair: pair[1]))
def test_a_tsv_is_literal_and_a_csv_follows_its_rules(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("m")
    rows = [(f"{i}.wav", sentence, label, str(i)) for i, (sentence, label) in enumerate(table)]
    header = ("path", "sentence", "label", "fold")
    sink = io.StringIO()
    csv.writer(sink).writerows([header, *rows])
    (folder / "m.csv").write_bytes(sink.getvalue().encode())
    (folder / "m.tsv").write_bytes("".join("\t".join(row) + "\n" for row in [header, *rows]).encode())
    for name in ("m.csv", "m.tsv"):
        assert [clip.labels for clip in open_task(str(folder / name)).clips] == [label for _, label in table]


def stretches(folder: Path, text: str) -> Dataset:
    (folder / "m.csv").write_text(text)
    return open_task(str(folder / "m.csv"))


STRETCHES = {
    "path,start,end,label,split": [("1", "2.5", (1, 2.5)), ("", "2.5", (None, 2.5)), ("1", "", (1, None))],
    "path,start,duration,label,split": [("1", "1.5", (1, 2.5)), ("0.1", "0.2", (0.1, 0.3)), ("", "2", (None, 2))],
    "path,offset,duration,label,split": [("1", "1.5", (1, 2.5)), ("36000.25", "1", (36000.25, 36001.25))],
    "path,onset,offset,label,split": [("1", "1.5", (1, 1.5))],
    "path,other,duration,label,split": [("1", "1.5", (None, None))],
}


@pytest.mark.parametrize("header", STRETCHES)
def test_a_stretch_has_an_end_or_a_duration(header: str, tmp_path: Path) -> None:
    for first, second, expected in STRETCHES[header]:
        text = f"{header}\n" + "".join(
            f"{i}.wav,{first},{second},{i % 2},{['train', 'test'][i // 2]}\n" for i in range(4)
        )
        dataset = stretches(tmp_path, text)
        assert {(clip.start_s, clip.end_s) for clip in dataset.clips} == {expected}
        assert bool(dataset.problems) == ("o" in header.split(",")[1] or None in expected)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("2,1,", "column 'end': '1' is not after the start"),
        ("1,3,1", "column 'duration': start and duration end at 2 s, but the end is 3 s"),
        ("1,,0", "column 'duration': is 0"),
        ("1,,-1", "column 'duration': '-1' is not a number of seconds"),
    ],
)
def test_a_stretch_that_cannot_be_is_refused(cells: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        stretches(tmp_path, f"path,start,end,duration,label,split\na.wav,{cells},x,train\n")


@pytest.mark.parametrize("decode", [True, False])
def test_ends_and_starts_past_the_end_are_said(decode: bool, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for name in "abcd":
        soundfile.write(tmp_path / f"{name}.wav", noise.uniform(-0.5, 0.5, 16_000), 8000)
    rows = "a.wav,0,2.01,x,train\nb.wav,1,2.5,y,train\nc.wav,0,2,x,test\nd.wav,3,4,y,test\n"
    report = check_dataset(stretches(tmp_path, f"path,start,end,label,split\n{rows}"), decode=decode)
    findings = {finding.code: finding for finding in report.findings}
    assert findings["end-outside"].clips == ("b.wav#1-2.5",)
    assert findings["unreadable"].clips == ("d.wav#3-4",)
    assert "short" not in findings


def test_a_sentence_column_is_a_transcription(tmp_path: Path) -> None:
    text = 'path\tsentence\tsplit\na.mp3\t"Yes," he said.\ttrain\nb.mp3\tno\ttest\n'
    (tmp_path / "m.tsv").write_text(text)
    dataset = open_task(TaskSpec(tmp_path / "m.tsv", kind="transcription"))
    assert [clip.labels for clip in dataset.clips] == ['"Yes," he said.', "no"]
    assert "the column 'sentence' is taken as 'label'" in dataset.problems[0]
