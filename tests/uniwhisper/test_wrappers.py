"""Exports in other benchmarks: each wrapper is one file that gives uwbench's frames, and the peers load it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from uniwhisper.cli.main import main
from uniwhisper.export import WRAPPERS, Peer
from uwbench.api import ModelSpec
from uwbench.encoders.resolve import open_encoder

PROBE = """
import sys
from pathlib import Path
import torch

sys.path.insert(0, str(Path.cwd()))
audio = torch.load("audio.pt")
{use}
assert not any(name.split(".")[0] in ("uniwhisper", "uwbench") for name in sys.modules)
torch.save(frames, "frames.pt")
"""
# How a peer uses the file of its wrapper; the three that need nothing of the peer.
USES = {
    Peer.xares: """
from xares_encoder import UniWhisperEncoder
assert [name for name in dir(sys.modules["xares_encoder"]) if name.endswith("Encoder")] == ["UniWhisperEncoder"]
encoder = UniWhisperEncoder()
frames = encoder(audio)
assert encoder.sampling_rate == 16_000 and encoder.hop_size_in_ms == 20 and encoder.output_dim == frames.shape[2]
""",
    Peer.xares_llm: """
from xares_llm_encoder import UniWhisperEncoder
mask = torch.ones(audio.shape, dtype=torch.long)
mask[1, 8_000:] = 0
frames, valid = UniWhisperEncoder()(audio, mask)
assert valid.sum(dim=1).tolist() == [frames.shape[1], 25]
""",
    Peer.hear: """
import uniwhisper_hear
model = uniwhisper_hear.load_model()
frames, times = uniwhisper_hear.get_timestamp_embeddings(audio, model)
assert times.shape == frames.shape[:2] and times[0, :2].tolist() == [10, 30]
assert torch.equal(uniwhisper_hear.get_scene_embeddings(audio, model), frames.mean(dim=1))
assert model.sample_rate == 16_000 and model.scene_embedding_size == frames.shape[2]
""",
}
XARES = """
import os
from xares.audio_encoder_checker import check_audio_encoder
from xares.utils import attr_from_py_path
encoder = attr_from_py_path("xares_encoder.py", endswith="Encoder")()
assert check_audio_encoder(encoder)
frames = encoder(audio)
"""
MTEB = """
from datasets import Dataset
from torch.utils.data import DataLoader
from mteb.models.models_protocols import EncoderProtocol
from mteb_encoder import UniWhisper
model = UniWhisper()
assert isinstance(model, EncoderProtocol)
rows = [{"audio": {"array": clip.numpy(), "sampling_rate": 16_000}} for clip in audio]
vectors = model.encode(DataLoader(rows, batch_size=2), task_metadata=None, hf_split="test", hf_subset="default")
frames = torch.from_numpy(vectors)
"""
# What the peers import beside what is here; without their dependencies, which would replace torch.
PEERS = ["xares==0.1.3", "mteb==2.26.24", "loguru", "pytrec-eval-terrier", "polars", "polars-runtime-32", "torchaudio"]


@pytest.fixture(scope="module")
def audio() -> torch.Tensor:
    """Two clips of 1.01 s, whose last frame is not whole."""
    return 0.1 * torch.randn(2, 16_160, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def exported(small_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with every wrapper, as the command writes it."""
    folder = tmp_path_factory.mktemp("export") / "encoder"
    words = [word for peer in Peer for word in ("--for", peer.value)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["uniwhisper", "export", str(small_whisper), "--output", str(folder), *words])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    assert {path.name for path in folder.glob("*.py")} == set(WRAPPERS.values())
    return folder


@pytest.fixture(scope="module")
def expected(exported: Path, audio: torch.Tensor) -> torch.Tensor:
    """The frames of the last layer as uwbench extracts them."""
    encoder = open_encoder(ModelSpec("uniwhisper", weights=str(exported)))
    encoder.load("cpu", "fp32")
    with torch.inference_mode():
        encoded = encoder.encode(audio, torch.tensor([16_160, 16_160]), [len(encoder.info.layers) - 1])
    return encoded.frames[:, 0, : int(encoded.valid[0])].clone()


def use(folder: Path, audio: torch.Tensor, text: str, path: str = "") -> torch.Tensor:
    """Run `text` in a process that knows only the folder and `path`, and return its `frames`."""
    torch.save(audio, folder / "audio.pt")
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    program = PROBE.format(use=text)
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return torch.load(folder / "frames.pt")


def test_a_wrapper_gives_the_frames_of_the_benchmark(
    exported: Path, audio: torch.Tensor, expected: torch.Tensor
) -> None:
    every = "\n".join(f"{text}\n{peer.name} = frames" for peer, text in USES.items())
    frames = use(exported, audio, f"{every}\nframes = torch.stack([{', '.join(peer.name for peer in USES)}])")
    assert expected.shape[1] == 51
    for peer, values in zip(USES, frames, strict=True):
        torch.testing.assert_close(values, expected, msg=peer.value)


def test_a_long_clip_is_cut_into_windows(exported: Path, expected: torch.Tensor, audio: torch.Tensor) -> None:
    from uniwhisper.wrappers.frames import WINDOW, WhisperFrames

    long = torch.cat([torch.zeros(1, WINDOW), audio[:1]], dim=1)
    frames = WhisperFrames(exported).frames(long[0])
    assert frames.shape[1] == 1500 + 51
    torch.testing.assert_close(frames[:, 1500:], expected[:1])


@pytest.mark.slow
def test_the_peers_themselves_load_the_export(
    exported: Path, audio: torch.Tensor, expected: torch.Tensor, tmp_path: Path
) -> None:
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path), *PEERS]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for library in (tmp_path / "torchaudio").rglob("*.so"):
        library.unlink()  # it does not load beside torch's CPU build, and nothing here needs it
    torch.testing.assert_close(use(exported, audio, XARES, str(tmp_path)), expected)
    torch.testing.assert_close(use(exported, audio, MTEB, str(tmp_path)), expected.mean(dim=1))
