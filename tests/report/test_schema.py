"""results/README.md documents every field of a result, and files of every schema stay readable."""

from __future__ import annotations

import json
import re
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from report.made_results import TASKS, make_result
from uwbench.errors import InputError
from uwbench.results.record import SCHEMA, Result, read_result, result_path, write_result

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "tests" / "golden").glob("*/*.json"))


def fields_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    paths: set[str] = set()
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = record_in(field.annotation)
        if inner is None or path == "scores":
            paths.add(path)
        if inner is not None:
            paths |= fields_of(inner, f"{path}.*." if get_origin(field.annotation) is dict else f"{path}.")
    return paths


def record_in(kind: Any) -> type[BaseModel] | None:
    """Return the record class in a type: the type itself, a member of its union, or the values of its mapping."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    if get_origin(kind) in (dict, Union, types.UnionType):
        return next((inner for part in get_args(kind) if (inner := record_in(part))), None)
    return None


def test_the_readme_lists_exactly_the_fields() -> None:
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    section = text.split(f"## Schema {SCHEMA}")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `([^`]+)`", section, flags=re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == fields_of(Result)


def test_the_readme_lists_every_column_of_the_predictions(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    make_result(tmp_path, "m", TASKS[0], 0.7)
    columns = pq.read_schema(next(tmp_path.rglob("*.parquet"))).names
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8").split("## Predictions")[1]
    assert re.findall(r"^\| `([^`]+)`", text, flags=re.MULTILINE) == columns


def test_golden_files_of_every_schema_are_readable() -> None:
    assert {path.parent.name for path in GOLDEN} == {str(version) for version in range(1, SCHEMA + 1)}
    for path in GOLDEN:
        result = read_result(path)
        assert result.status == "ok"
        assert result.scores


def test_results_of_schema_1_have_no_notes() -> None:
    older, newer = (read_result(GOLDEN[0].parents[1] / version / "mini_sound.json") for version in ("1", "2"))
    assert (older.schema_, older.leaked, older.notes, newer.schema_) == (1, 0, (), 2)


def test_results_of_schema_2_have_no_corruptions() -> None:
    older, newer = (read_result(GOLDEN[0].parents[1] / version / "mini_sound.json") for version in ("2", "3"))
    assert older.robustness is None
    assert newer.robustness is not None
    assert set(newer.robustness.corruptions) == {"noise:10dB", "noise:0dB", "gain:-20dB"}
    assert older.scores == newer.scores


def test_results_of_schema_3_have_no_settings_of_methods() -> None:
    older, newer = (read_result(GOLDEN[0].parents[1] / version / "mini_sound.json") for version in ("3", "4"))
    assert all(score.settings is None for score in older.scores.values())
    assert newer.scores["linear"].settings is not None
    assert {name: newer.scores[name] for name in older.scores} == older.scores
    assert newer.protocol == older.protocol
    assert [point.shots for point in newer.scores["few-shot"].curve or ()][:2] == [1, 2]


def test_a_written_result_reads_back_the_same_and_is_strict(tmp_path: Path) -> None:
    path = make_result(tmp_path, "m", TASKS[2], 0.7)
    result = read_result(path)
    assert result_path(tmp_path, result) == path
    assert read_result(write_result(tmp_path / "again", result)) == result
    data = json.loads(path.read_text())
    assert list(data) == sorted(data)
    data["surprise"] = 1
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="surprise"):
        read_result(path)
    del data["surprise"], data["counts"]["clips"]
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"counts\.clips"):
        read_result(path)
    path.write_text(json.dumps({**data, "schema": 99}))
    with pytest.raises(InputError, match="schema 1 to 4"):
        read_result(path)
