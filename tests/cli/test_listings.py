"""The listings of tasks and models fit 80 columns, show more where there is room, and take what `-m` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from conftest import Command
from uwbench import api

ENCODER = f"{Path(__file__).parents[1] / 'spectrum_encoder.py'}:SpectrumEncoder"


@pytest.mark.parametrize("words", [("tasks",), ("models",)], ids=str)
def test_a_listing_has_whole_names_and_the_columns_that_fit(uwbench: Command, words: tuple[str, ...]) -> None:
    names = set(api.task_names()) if words == ("tasks",) else {entry.name for entry in api.list_models()}
    heads = []
    for columns in (80, 120):
        text = uwbench(*words, columns=columns).out
        assert max(map(len, text.splitlines())) <= columns
        assert names <= set(text.split())
        heads.append(text.splitlines()[1].split())
        assert "--verbose adds: " in text
    assert len(heads[0]) < len(heads[1])
    verbose = uwbench(*words, "--verbose", columns=80).out
    assert "--verbose" not in verbose
    assert set(heads[1]) < set(verbose.splitlines()[1].split())


def test_models_takes_what_m_takes(uwbench: Command) -> None:
    done = uwbench("models", f"{ENCODER},logmel", "openai/whisper-tiny")
    assert done.code == 0, done.err
    described = list(yaml.safe_load_all(done.out))
    assert [fields["name"] for fields in described] == ["spectrum", "logmel", "whisper-tiny"]
    assert json.loads(uwbench("models", ENCODER, "--json").out)["layers"] == 2
    wrong = uwbench("models", "whisper-tin")
    assert wrong.code == 2
    assert "did you mean whisper-tiny" in wrong.err


def test_a_wrong_choice_is_refused_without_the_words_of_a_library(uwbench: Command) -> None:
    wrong = uwbench("leaderboard", "--format", "xml")
    assert wrong.code == 2
    assert "Invalid value for '--format': 'xml' is not one of" in wrong.err
