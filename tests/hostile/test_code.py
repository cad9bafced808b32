"""No file in a dataset's or a model's folder runs as code, unless `--trust-remote-code` allows it.

A model's folder opens no connection either, even if no setting turns the hub off.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from encoders.families import CASES
from encoders.test_remote_code import DASHENG_EXTRACTION, DASHENG_MODELING
from uniwhisper.export import export_encoder
from uwbench.encoders.base import ModelSpec
from uwbench.encoders.resolve import open_encoder
from uwbench.errors import EncoderError, InputError, UwbenchError
from uwbench.probes.sentences import find_text_encoder

# Runs commands in one process and lists every file in the test's folder that is run as code or loaded as a library,
# whatever its name and whoever runs it. A connection or a host lookup ends the process.
WATCH = """
import json, os, sys

root, found, codes = sys.argv[1], [], []

def watch(event, arguments):
    if event == "exec" and hasattr(arguments[0], "co_filename"):
        found.append(arguments[0].co_filename)
    elif event == "import" and arguments[1]:
        found.append(arguments[1])
    elif event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print("TRIED", event, arguments, file=sys.stderr, flush=True)
        os._exit(70)

sys.addaudithook(watch)
from uwbench.cli.main import main

for words in json.loads(sys.argv[2]):
    sys.argv = ["uwbench", *words]
    try:
        main()
    except SystemExit as end:
        codes.append(end.code or 0)
ours = sorted({path for path in map(str, found) if path.startswith(root)})
print("CODES", json.dumps(codes))
print("RUN", json.dumps(ours))
"""
# Names under which Python, its tools and transformers look for code.
PLANTED = (
    *("__init__", "__main__", "conftest", "sitecustomize", "usercustomize", "setup", "typer", "numpy", "torch", "yaml"),
    *("soundfile", "pathlib", "random", "set", "dataset", "tokenizer", "configuration_set", "modeling_set", "handler"),
)


def plant(folder: Path) -> None:
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'sprung')!r}, 'w').close()\n")
    (folder / "set.pth").write_text(f"import os; open({str(folder / 'sprung')!r}, 'w').close()\n")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A manifest of twelve tones in a folder full of Python files."""
    folder = tmp_path / "set"
    folder.mkdir()
    lines = ["path,label,split"]
    for place in range(12):
        tone = 0.3 * np.sin(np.arange(8000) * (0.1 if place % 2 else 0.5) + place)
        soundfile.write(folder / f"{place}.wav", tone, 16_000)
        lines.append(f"{place}.wav,{'ab'[place % 2]},{'train' if place < 8 else 'test'}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    plant(folder)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A wav2vec2 of a known family whose configuration and folder also offer code."""
    folder = tmp_path / "model"
    next(case for case in CASES if case.name == "wav2vec2-padded").make(folder)
    offer(folder / "config.json", AutoConfig="modeling_set.Evil", AutoModel="modeling_set.Evil")
    offer(folder / "preprocessor_config.json", AutoFeatureExtractor="modeling_set.Evil")
    plant(folder)
    return folder


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A model that needs its own code, laid out as Dasheng is."""
    from safetensors.torch import save_file

    folder = tmp_path / "remote"
    folder.mkdir()
    names = {"AutoConfig": "modeling_energy.EnergyConfig", "AutoModel": "modeling_energy.EnergyModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "energy", "auto_map": names}))
    extractor: dict[str, Any] = {"feature_extractor_type": "EnergyExtractor", "sampling_rate": 16_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    offer(folder / "preprocessor_config.json", AutoFeatureExtractor="feature_extraction_energy.EnergyExtractor")
    (folder / "modeling_energy.py").write_text(DASHENG_MODELING)
    (folder / "feature_extraction_energy.py").write_text(DASHENG_EXTRACTION)
    layer = torch.nn.Linear(8, 12)
    save_file({"layer.weight": layer.weight.data, "layer.bias": layer.bias.data}, folder / "model.safetensors")
    return folder


def offer(path: Path, **classes: object) -> None:
    """Add remote code classes to a checkpoint's JSON."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": classes}))


def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    return {
        **kept,
        "HF_HOME": str(tmp_path / "hub"),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "OMP_NUM_THREADS": "1",
    }


def watched(tmp_path: Path, *commands: tuple[object, ...]) -> tuple[list[int], list[str], str]:
    """Return the exit codes, the files below `tmp_path` that were run, and stderr."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    program = (sys.executable, "-c", WATCH, str(tmp_path), words)
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment(tmp_path))
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("CODES ", "RUN ")))
    assert set(lines) == {"CODES", "RUN"}, done.stderr
    return json.loads(lines["CODES"]), json.loads(lines["RUN"]), done.stderr


def test_the_watch_ends_at_a_connection(tmp_path: Path) -> None:
    program = WATCH.replace(
        "from uwbench.cli.main import main", "import socket; socket.create_connection(('127.0.0.1', 9))"
    )
    done = subprocess.run((sys.executable, "-c", program, str(tmp_path), "[]"), capture_output=True, check=False)
    assert done.returncode == 70


@pytest.mark.slow
def test_no_file_of_a_dataset_or_a_model_is_run_unless_it_is_trusted(
    data: Path, model: Path, remote: Path, tmp_path: Path
) -> None:
    manifest = data / "manifest.csv"
    codes, run, said = watched(
        tmp_path,
        ("run", "-m", model, "-m", "logmel", "-t", manifest, "--method", "knn"),
        ("probe", "-t", "set", "--method", "knn"),
        ("leaderboard",),
        ("data", "check", manifest),
        ("models", "check", model, "-t", manifest),
        ("cache", "verify"),
        ("extract", "-m", remote, "-t", manifest),
    )
    assert codes[:-1] == [0] * 6, said
    assert codes[-1] == 2
    assert run == []
    assert not list(tmp_path.rglob("sprung"))
    assert "runs code from its own repository" in said
    assert "pass --trust-remote-code" in said
    # The watch does see code: with the option the same command runs it.
    codes, run, said = watched(tmp_path, ("extract", "-m", remote, "-t", manifest, "--trust-remote-code"))
    assert codes == [0], said
    assert {Path(path).name for path in run} >= {"modeling_energy.py", "feature_extraction_energy.py"}


@pytest.mark.parametrize("package", ["uwbench", "uniwhisper"])
def test_a_command_that_is_started_among_the_data_takes_no_module_from_there(package: str, data: Path) -> None:
    """`python -m` looks for modules in the current folder first, which holds a `typer.py`."""
    program = (sys.executable, "-m", package, "--help")
    done = subprocess.run(program, cwd=data, capture_output=True, text=True, check=False, env=environment(data.parent))
    assert done.returncode == 0, done.stderr
    assert not (data / "sprung").exists()
    trap = (sys.executable, "-c", "import typer")  # it does import the planted file, so the trap works
    subprocess.run(trap, cwd=data, capture_output=True, check=False)
    assert (data / "sprung").exists()


@pytest.fixture
def says_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal at which somebody answers yes to every question of transformers."""
    import transformers.dynamic_module_utils

    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")


def springs(kind: Any, folder: Path) -> bool:
    """Tell whether the trap works: without an option, transformers asks and then runs the planted code."""
    with suppress(Exception):
        kind.from_pretrained(folder)
    return (folder / "sprung").exists()


@pytest.mark.usefixtures("says_yes")
def test_nobody_is_asked_at_the_terminal_whether_to_run_a_feature_extractor(tmp_path: Path) -> None:
    from transformers import AutoFeatureExtractor

    folder = tmp_path / "clap"
    next(case for case in CASES if case.name == "clap").make(folder)
    plant(folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"feature_extractor_type": "Evil"}))
    offer(path, AutoFeatureExtractor="modeling_set.Evil")
    encoder = open_encoder(ModelSpec(str(folder)))
    encoder.load("cpu", "fp32")
    with pytest.raises(EncoderError, match=r"preprocessor_config\.json: names remote code, which is not run"):
        encoder.encode(torch.zeros(1, 48_000), torch.tensor([48_000]), [0])
    assert not (folder / "sprung").exists()
    assert springs(AutoFeatureExtractor, folder)


@pytest.mark.usefixtures("says_yes")
def test_nobody_is_asked_at_the_terminal_whether_to_run_a_tokenizer(minilm: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(find_text_encoder(minilm).folder, tmp_path / "sentences"))
    plant(folder)
    for name, key in (("config.json", "model_type"), ("tokenizer_config.json", "tokenizer_class")):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: "Evil"}))
        offer(path, AutoConfig="modeling_set.Evil", AutoTokenizer=["modeling_set.Evil", None])
    with pytest.raises(InputError, match="sentences: cannot be loaded without code of its own"):
        find_text_encoder(str(folder)).embed(["a dog barks"])
    assert not (folder / "sprung").exists()
    assert springs(AutoTokenizer, folder)


@pytest.mark.usefixtures("says_yes")
def test_nobody_is_asked_at_the_terminal_whether_to_export_what_brings_code(remote: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    plant(remote)
    offer(remote / "config.json", AutoConfig="modeling_set.Evil")
    with pytest.raises(EncoderError, match="remote: is not of Whisper's shape"):
        export_encoder(remote, tmp_path / "exported")
    assert not (remote / "sprung").exists()
    assert springs(AutoConfig, remote)


DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_json_of_great_depth_in_a_model_is_an_error_of_its_file(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    next(case for case in CASES if case.name == "wav2vec2-padded").make(folder)
    data = DEEP.encode()
    (folder / name).write_bytes(len(data).to_bytes(8, "little") + data if name.endswith("tensors") else data)
    with pytest.raises(UwbenchError, match=name):
        open_encoder(ModelSpec(str(folder)))
