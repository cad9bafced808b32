"""Encoders in another interpreter: the same bytes as here, no uwbench there, and no failure that stops a run."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import uwbench
from conftest import ROOT, Command
from tones import CARD, tones
from uwbench.api import EncoderError, ModelSpec, UsageError
from uwbench.encoders import base, worker, worker_process
from uwbench.encoders.model_card import read_card
from uwbench.encoders.resolve import open_encoder
from uwbench.encoders.worker_process import WorkerProcess
from uwbench.sources.dataset import Dataset

BANDS = '''
import ctypes, os, socket, sys, time
import numpy as np
from uwbench.api import Encoded, EncoderInfo
import helper

RATE, HOP = 16_000, 320


class Bands:
    training_data = ["fsd50k"]

    def __init__(self):
        self.info = EncoderInfo(
            name="bands", family="example", sample_rate=RATE, dim=40, layers=("bands", "mixed"), hop_s=HOP / RATE,
            context_s=None, identity={"version": 1},
        )

    def load(self, device, dtype):
        self.mix = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32) / helper.SCALE

    def encode(self, waveforms, lengths, layers):
        print("a line that is no reply")
        samples, lengths = np.asarray(waveforms), np.asarray(lengths)
        count = -(-samples.shape[1] // HOP)
        padded = np.pad(samples, ((0, 0), (0, count * HOP - samples.shape[1])))
        power = np.abs(np.fft.rfft(padded.reshape(len(samples), count, HOP))) ** 2
        bands = np.log(power[..., 1:].reshape(len(samples), count, 40, 4).mean(-1) + 1e-6).astype(np.float32)
        frames = np.stack([(bands, np.tanh(bands @ self.mix))[layer] for layer in layers], 1)
        return self.encoded(frames, np.maximum(-(-lengths // HOP), 1))

    def encoded(self, frames, valid):
        try:
            import torch
        except ImportError:
            return Encoded(frames, valid)
        return Encoded(torch.from_numpy(frames), torch.from_numpy(valid))


class Dies(Bands):
    def encode(self, *_):
        print("the last words", file=sys.stderr, flush=True)
        os._exit(3)


class Crashes(Bands):
    def encode(self, *_):
        os.kill(os.getpid(), 11)


class Hangs(Bands):
    def encode(self, *_):
        print("now it sleeps", flush=True)
        time.sleep(60)


class Raises(Bands):
    def encode(self, *_):
        for stream in (sys.stdout, sys.stderr):
            stream.write("flood " * 1_000_000)
        raise ValueError("no such thing")


class Lies(Bands):
    def encoded(self, frames, valid):
        return super().encoded(frames[..., :39], valid)


class Miscounts(Bands):
    def encoded(self, frames, valid):
        return super().encoded(frames, valid + 10_000)


class Floats(Bands):
    def encoded(self, frames, valid):
        return super().encoded(frames, valid.astype(float))


class Wanders(Bands):
    """Tells in its frames what it may do: reach the network, write to its weights, write elsewhere."""

    def __init__(self, spec):
        super().__init__()
        self.weights = spec.weights

    def encode(self, waveforms, lengths, layers):
        with socket.socket() as server:
            try:
                server.bind(("127.0.0.1", 0))
                server.listen()
                socket.create_connection(server.getsockname(), timeout=1)
                network = 1.0
            except OSError:
                network = 0.0
        writes = 0.0
        for path in (self.weights, sys.prefix + "/pyvenv.cfg", __file__):
            ctypes.CDLL(None).umount2(path.encode(), 2)
            try:
                open(path, "a").close()
                writes = 1.0
            except OSError:
                pass
        return self.encoded(np.full((len(waveforms), 1, 1, 40), 2 * network + writes, np.float32), np.ones(1, int))


class Tone:
    """In X-ARES's form."""

    sampling_rate, output_dim, hop_size_in_ms = 16_000, 4, 20
    training_data = ({"dataset": "fsd50k", "split": "train"},)

    def __call__(self, samples):
        samples = np.asarray(samples)
        return samples[:, : samples.shape[1] // 320 * 320].reshape(len(samples), -1, 320)[..., :4].copy()
'''

HEAR = """
import numpy as np

class Model:
    sample_rate, timestamp_embedding_size, scene_embedding_size = 16_000, 4, 4

def load_model(path=None):
    return Model()

def get_timestamp_embeddings(audio, model):
    frames = np.asarray(audio)[:, : audio.shape[1] // 800 * 800].reshape(len(audio), -1, 800)[..., :4]
    times = (np.arange(frames.shape[1]) + 0.5) * 50.0
    return frames, np.tile(times, (len(audio), 1))

def get_scene_embeddings(audio, model):
    return get_timestamp_embeddings(audio, model)[0].mean(1)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with numpy and a HEAR module, and neither torch nor uwbench."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "env", symlinks=True)
    packages = folder / "packages"
    packages.mkdir()
    (packages / "small_hear.py").write_text(HEAR)
    installed = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs", f"numpy-{np.__version__}.dist-info"):
        if (installed / name).exists():
            (packages / name).symlink_to(installed / name)
    (site,) = (folder / "env").glob("lib/*/site-packages")
    (site / "numpy.pth").write_text(str(packages))
    return str(folder / "env" / "bin" / "python")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bands.py"
    path.write_text(BANDS)
    path.with_name("helper.py").write_text("SCALE = 40**0.5\n")
    return path


def test_the_vectors_are_those_of_this_process(uwbench: Command, python: str, file: Path) -> None:
    import uwbench as public

    words = ("extract", "-m", f"{file}:Bands", "-t", "mini_music", "--layers", "all")
    there = uwbench(*words, "--python", python, "--cache", "there")
    here = uwbench(*words, "--cache", "here")
    assert (there.code, here.code) == (0, 0), there.err + here.err
    assert "no reply" not in there.out + there.err
    ours, theirs = (public.load_embeddings("bands", "mini_music", cache=cache).vectors for cache in ("here", "there"))
    assert np.array_equal(ours, theirs)
    again = uwbench(*words, "--python", python, "--cache", "there")
    assert "everything was cached" in again.out

    info = open_encoder(ModelSpec(f"{file}:Bands", python=python)).info
    assert info.identity["packages"] == {"numpy": np.__version__}
    assert set(info.identity["sources"]) == {"bands", "helper"}
    file.with_name("helper.py").write_text("SCALE = 1\n")
    changed = open_encoder(ModelSpec(f"{file}:Bands", python=python)).info
    assert changed.identity != info.identity


FAULTS = {
    "Dies": "ended with exit code 3 during encode; its last lines: the last words",
    "Crashes": "was ended by SIGSEGV during encode",
    "Hangs": "did not answer within 2 s during encode; its last lines: now it sleeps",
    "Raises": "encode fails with ValueError: no such thing (bands.py:",
    "Lies": "says that its frames have the shape",
    "Miscounts": "frames are valid",
    "Floats": "valid of type float64",
    "Gone": "defines no class 'Gone'",
}


def test_a_worker_that_fails_is_an_error_and_the_run_goes_on(python: str, file: Path) -> None:
    specs = [ModelSpec(f"{file}:{name}", python=python, timeout_s=2) for name in FAULTS]
    # Classes of one file have one name unless they give another.
    file.write_text(file.read_text().replace('name="bands"', "name=type(self).__name__.lower()"))
    task = Dataset(CARD, tuple(tones(12)), "made")
    results = uwbench.evaluate([*specs, "mfcc"], task, methods="knn")
    statuses = {result.model.name: result.status for _, result in results.results}
    assert statuses == {name.lower(): "failed" for name in FAULTS if name != "Gone"} | {"mfcc": "ok"}
    for name, message in FAULTS.items():
        (failure,) = [line for line in results.failures if message in line]
        assert len(failure) < 1200, name


def test_a_worker_that_died_is_started_again_and_one_that_hung_is_not(python: str, file: Path) -> None:
    import torch

    silence = torch.zeros(1, 1600), torch.tensor([1600]), [0]
    dies = open_encoder(ModelSpec(f"{file}:Dies", python=python))
    dies.load("cpu", "fp32")
    for _ in range(2):
        with pytest.raises(EncoderError, match="exit code 3"):
            dies.encode(*silence)
    hangs = open_encoder(ModelSpec(f"{file}:Hangs", python=python, timeout_s=2))
    hangs.load("cpu", "fp32")
    with pytest.raises(EncoderError, match="within 2 s"):
        hangs.encode(*silence)
    with pytest.raises(EncoderError, match="not started again"):
        hangs.encode(*silence)


def test_a_worker_has_no_network_and_cannot_write_to_its_weights(python: str, file: Path, tmp_path: Path) -> None:
    import torch

    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"weights")
    encoder = open_encoder(ModelSpec(f"{file}:Wanders", weights=str(weights), python=python))
    encoder.load("cpu", "fp32")
    allowed = int(encoder.encode(torch.zeros(1, 1600), torch.tensor([1600]), [0]).frames.max())
    notes = " ".join(encoder.info.notes)
    assert (allowed & 2 != 0) == ("has network access" in notes)
    assert (allowed & 1 != 0) == ("may write to its weights" in notes)


def test_other_forms_of_encoders_run(python: str, file: Path) -> None:
    import torch

    samples = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    for name, hop, layers in (("hear:small_hear", 800, 2), (f"{file}:Tone", 320, 1)):
        encoder = open_encoder(ModelSpec(name, python=python))
        encoder.load("cpu", "fp32")
        assert len(encoder.info.layers) == layers
        assert encoder.info.hop_s == pytest.approx(hop / 16_000)
        encoded = encoder.encode(samples, torch.tensor([16_000]), [layers - 1])
        assert torch.equal(encoded.frames[0, 0], samples.reshape(-1, hop)[:, :4])
        with pytest.raises(EncoderError, match="fp32 only"):
            encoder.load("cpu", "bf16")
    assert encoder.info.training_data == ({"dataset": "fsd50k", "split": "train"},)


def test_what_does_not_run_there_is_refused(python: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="drop --python"):
        open_encoder(ModelSpec("logmel", python=python))
    with pytest.raises(UsageError, match="no program"):
        open_encoder(ModelSpec(f"{file}:Bands", python=str(tmp_path)))
    file.with_name("helper.py").unlink()
    with pytest.raises(EncoderError, match=r"open fails with ModuleNotFoundError.*helper"):
        open_encoder(ModelSpec(f"{file}:Bands", python=python))
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho it starts >&2\nexit 1\n")
    bare.chmod(0o755)
    with pytest.raises(EncoderError, match="exit code 1 during start; its last lines: it starts"):
        open_encoder(ModelSpec(f"{file}:Bands", python=str(bare)))


@pytest.mark.parametrize(
    "reply",
    ["b'\\x80\\x04\\x95\\x00'", "b'\\xff\\xff\\xff\\xff'", "b'\\x00\\x00\\x00\\x02[]'", "b'\\x00\\x00\\x00\\x03NaN'"],
)
def test_what_is_no_reply_is_never_used(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    script = tmp_path / "hostile.py"
    script.write_text(f"import sys, time\nsys.stdout.buffer.write({reply})\nsys.stdout.flush()\ntime.sleep(60)\n")
    monkeypatch.setattr(worker_process, "SCRIPT", script)
    with pytest.raises(EncoderError, match="no reply during start"):
        WorkerProcess("hostile", python, (), timeout_s=5)


def test_the_worker_is_written_for_python_3_8_and_needs_numpy_alone() -> None:
    tree = ast.parse(worker_process.SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 8))
    at_its_level = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or node.names[0].name for node in at_its_level}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_the_stand_in_has_the_fields_of_the_contract() -> None:
    for name in ("ModelSpec", "EncoderInfo", "Encoded"):
        theirs, ours = (dataclasses.fields(getattr(module, name)) for module in (worker, base))
        assert [field.name for field in theirs] == [field.name for field in ours]
        if name != "EncoderInfo":
            assert [field.default for field in theirs] == [field.default for field in ours]


def test_a_card_names_a_model_its_environment_and_its_training_data(
    uwbench: Command, python: str, file: Path, tmp_path: Path
) -> None:
    card = tmp_path / "mine.yaml"
    card.write_text(f"model: bands.py:Bands\npython: {python}\ntraining_data: [{{dataset: nsynth, split: train}}]\n")
    info = open_encoder(ModelSpec(str(card))).info
    assert (info.name, info.training_data) == ("mine", ({"dataset": "nsynth", "split": "train"},))
    assert info.identity["packages"]
    shown = json.loads(uwbench("models", card, "--json").out)
    assert "nsynth" in shown["contamination"]["trained on train"]
    for text, message in (
        ("model: bands.py:Bands\npyhton: x", "pyhton"),
        ("python: x", "model"),
        ("model: bands.py:Bands\ntraining_data: [{set: x}]", "training_data holds"),
        ("model: other.yaml", "another model card"),
    ):
        card.write_text(text)
        done = uwbench("models", "check", card)
        assert done.code != 0
        assert message in done.err


@pytest.mark.slow
def test_a_checkpoint_runs_as_it_does_here(tmp_path: Path) -> None:
    import torch
    from transformers import UniSpeechConfig, UniSpeechModel, Wav2Vec2FeatureExtractor

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    folder = tmp_path / "unispeech"
    UniSpeechModel(UniSpeechConfig(**sizes, conv_dim=(16,) * 7)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    frames = []
    for python in (None, sys.executable):
        encoder = open_encoder(ModelSpec(str(folder), python=python))
        encoder.load("cpu", "fp32")
        samples = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            encoded = encoder.encode(samples, torch.tensor([16_000]), [len(encoder.info.layers) - 1])
        frames.append(encoded.frames)
        assert (encoder.info.family, encoder.info.hop_s, encoded.valid.tolist()) == ("unispeech", 0.02, [49])
    assert torch.equal(*frames)


def test_the_documented_card_and_wrapper_are_valid(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "adding-an-encoder.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "mine.yaml").write_text(block)
    assert read_card(tmp_path / "mine.yaml").training_data == ({"dataset": "fsd50k", "split": "train"},)
    # Its package is not installed here: only the facts of the wrapper are read.
    encoder = open_encoder(ModelSpec(f"{ROOT / 'examples' / 'own_environment.py'}:Resemblyzer"))
    assert (encoder.info.dim, encoder.info.hop_s, encoder.info.batching) == (256, 0.25, "single")


def test_no_file_is_left_whichever_process_ends_first(python: str) -> None:
    program = (
        "import os, signal; from uwbench.encoders.worker_process import WorkerProcess\n"
        f"print(WorkerProcess('own', {python!r}, (), 5).folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "bench")}
    killed = subprocess.run(
        [sys.executable, "-c", program], check=False, env=environment, capture_output=True, text=True
    )
    worker = WorkerProcess("own", python, (), timeout_s=5)
    folder = worker.folder
    assert folder.is_dir()
    del worker
    assert not folder.exists()
    for _ in range(100):  # the worker of the killed program ends by itself
        if not Path(killed.stdout.strip()).exists():
            break
        time.sleep(0.05)
    assert killed.stdout
    assert not Path(killed.stdout.strip()).exists()
