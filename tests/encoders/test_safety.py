"""What must not be run or trusted: pickles, folders that came half, code of strangers, files of users that stop."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.families import CASES
from uwbench.api import decode
from uwbench.audio.clip import AudioFile
from uwbench.encoders.base import ModelSpec
from uwbench.encoders.resolve import open_encoder
from uwbench.errors import AudioError, EncoderError, InputError, UsageError

SPRUNG = "sprung"


class Trap:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (SPRUNG,)


def case(name: str, folder: Path) -> Path:
    next(case for case in CASES if case.name == name).make(folder)
    return folder


def load(folder: Path) -> None:
    open_encoder(ModelSpec(str(folder))).load("cpu", "fp32")


@pytest.fixture(scope="module")
def wave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case("wav2vec2-padded", tmp_path_factory.mktemp("models") / "wave")


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case("qwen2_audio", tmp_path_factory.mktemp("models") / "tower")


@pytest.fixture(params=["wave", "tower"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a model that transformers loads, and of one that is read tensor by tensor."""
    return Path(shutil.copytree(request.getfixturevalue(request.param), tmp_path / "model"))


def states(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("protocol", ["zip", "legacy", "plain"])
def test_a_pickle_with_a_program_in_it_is_refused_and_not_run(model: Path, protocol: str) -> None:
    weights = {**states(model), "trap": Trap()}
    (model / "model.safetensors").unlink()
    path = model / "pytorch_model.bin"
    if protocol == "plain":
        path.write_bytes(pickle.dumps(weights))
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.raises(EncoderError) as refused:
        load(model)
    assert str(model) in str(refused.value)
    assert not Path(SPRUNG).exists()
    # The trap does work: where pickles are trusted the program runs.
    if protocol != "plain":
        torch.load(path, weights_only=False)
        assert Path(SPRUNG).exists()


def test_a_pickle_of_tensors_alone_is_read(model: Path) -> None:
    torch.save(states(model), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    load(model)


def test_an_array_of_objects_is_no_audio_and_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "clip.npy"
    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(AudioError, match=r"clip\.npy"):
        decode(AudioFile(path), 16_000)
    assert not Path(SPRUNG).exists()


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_weights_that_came_half_name_the_file_and_what_to_do(model: Path, kept: float) -> None:
    path = model / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(EncoderError, match=r"model\.safetensors: .*fetch the folder again"):
        open_encoder(ModelSpec(str(model)))


def test_a_pickle_that_came_half_names_the_file(model: Path) -> None:
    path = model / "pytorch_model.bin"
    torch.save(states(model), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (model / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="model"):
        load(model)


def test_a_shard_that_is_missing_is_named(model: Path) -> None:
    from safetensors.torch import save_file

    tensors = states(model)
    names = sorted(tensors)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    split = {files[0]: names[::2], files[1]: names[1::2]}
    for file, own in split.items():
        save_file({name: tensors[name] for name in own}, model / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, own in split.items() for name in own}}
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    load(model)
    (model / files[1]).unlink()
    with pytest.raises(EncoderError, match=f"lacks the weights file {files[1]}; fetch the folder again"):
        load(model)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../b.safetensors"}}', "{"])
def test_an_index_that_lists_no_files_of_its_folder_is_refused(model: Path, index: str) -> None:
    (model / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError, match=r"model\.safetensors\.index\.json"):
        open_encoder(ModelSpec(str(model)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nimport no_such_module\n", r"own\.py:2: fails with ModuleNotFoundError: .*no_such_module"),
        ("x = 1\ndef :\n", r"own\.py:2: cannot be imported"),
        ("class Own:\n    def __init__(self):\n        self.x = 1 / 0\n", r"own\.py:3: fails with ZeroDivisionError"),
        ("class Own:\n    pass\n", "neither `info: EncoderInfo`"),
        ("x = 1\n", "defines no class 'Own'"),
    ],
)
def test_a_file_of_the_users_that_stops_names_the_line(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(source)
    with pytest.raises((UsageError, EncoderError), match=message):
        open_encoder(ModelSpec(f"{path}:Own"))


def test_a_hear_module_that_stops_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = "get_timestamp_embeddings = get_scene_embeddings = None\n"
    (tmp_path / "stopping_module.py").write_text(f"{names}def load_model():\n    return {{}}['weights']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=r"stopping_module\.py:3: fails with KeyError: 'weights'"):
        open_encoder(ModelSpec("hear:stopping_module"))
