"""Checkpoints in every form they come in: whole, sharded, pickled, downloaded; and what must not be read."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from uwbench.encoders.base import ModelSpec
from uwbench.encoders.catalogue import CATALOGUE
from uwbench.encoders.resolve import FAMILIES, open_encoder
from uwbench.errors import EncoderError, InputError


def frames(folder: Path) -> torch.Tensor:
    encoder = open_encoder(ModelSpec(str(folder), context="trimmed"))
    encoder.load("cpu", "fp32")
    waveforms = 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return encoder.encode(waveforms, torch.tensor([4000]), [len(encoder.info.layers) - 1]).frames


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=60,
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        begin_suppress_tokens=None,
    )
    folder = tmp_path_factory.mktemp("models") / "small"
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_sharded_and_pickled_weights_give_the_same_frames(small: Path, tmp_path: Path) -> None:
    from transformers import WhisperForConditionalGeneration

    expected = frames(small)
    model = WhisperForConditionalGeneration.from_pretrained(small)
    sharded, pickled = tmp_path / "sharded", tmp_path / "pickled"
    model.save_pretrained(sharded, max_shard_size="40KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    torch.testing.assert_close(frames(sharded), expected)

    pickled.mkdir()
    shutil.copy(small / "config.json", pickled)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    torch.testing.assert_close(frames(pickled), expected)

    next(iter(sharded.glob("model-*.safetensors"))).unlink()
    with pytest.raises(EncoderError, match="lacks the weights file"):
        open_encoder(ModelSpec(str(sharded)))


class Trap:
    """Runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("sprung",)


def test_a_pickle_that_would_run_code_is_refused(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trap"
    folder.mkdir()
    shutil.copy(small / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"model.encoder.conv1.weight": Trap()}))
    with pytest.raises(EncoderError, match="holds more than tensors"):
        open_encoder(ModelSpec(str(folder)))
    assert not Path("sprung").exists()


def test_weights_that_do_not_fit_are_refused(small: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small, tmp_path / "wide"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"d_model": 32}))
    encoder = open_encoder(ModelSpec(str(folder)))
    with pytest.raises(EncoderError, match="do not fit"):
        encoder.load("cpu", "fp32")
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        open_encoder(ModelSpec(str(folder)))


def test_what_saved_the_configuration_is_no_part_of_the_identity(small: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"_name_or_path": "/somewhere/else", "transformers_version": "4.0.0"}
    (folder / "config.json").write_text(json.dumps(config))
    first, second = open_encoder(ModelSpec(str(small))), open_encoder(ModelSpec(str(folder)))
    assert first.info.identity == second.info.identity
    (folder / "config.json").write_text(json.dumps(config | {"activation_function": "relu"}))
    assert open_encoder(ModelSpec(str(folder))).info.identity != first.info.identity


def test_a_model_of_the_hub_opens_from_its_cache_without_a_network(small: Path, tmp_path: Path) -> None:
    commit = "0123456789" * 4
    repository = tmp_path / "hub" / "models--owner--small"
    shutil.copytree(small, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    program = (
        "from uwbench.encoders.base import ModelSpec\nfrom uwbench.encoders.resolve import open_encoder\n"
        "info = open_encoder(ModelSpec('owner/small')).info\nprint(info.name, info.revision)\n"
    )
    bench = Path(__file__).resolve().parents[2] / "bench"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(bench)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == ["owner/small", commit], done.stderr


def test_the_catalogue_is_consistent(whisper_tiny: Path) -> None:
    names = [entry.name for entry in CATALOGUE]
    assert len(set(names)) == len(names)
    families = {*FAMILIES.entries(), "logmel", "mfcc", "uniwhisper", "remote code"}
    # "parakeet" stands for parakeet_ctc and parakeet_encoder.
    named = {entry.family for entry in CATALOGUE if not (entry.wrapper or entry.needs)}
    assert not [name for name in named if not any(other == name or other.startswith(f"{name}_") for other in families)]
    info = open_encoder(ModelSpec(str(whisper_tiny))).info
    entry = next(entry for entry in CATALOGUE if entry.name == info.name)
    assert entry.parameters == info.parameters
    assert (entry.sample_rate, entry.context_s, entry.hop_s) == (info.sample_rate, info.context_s, info.hop_s)
    assert entry.layers == len(info.layers)


def test_every_family_names_something_that_exists() -> None:
    for name in FAMILIES.entries():
        assert callable(FAMILIES.load(name))
