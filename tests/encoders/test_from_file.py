"""Encoders that come from elsewhere: a file, X-ARES, HEAR, remote code; and names that stand for nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import missing
from uwbench.encoders import resolve
from uwbench.encoders.base import ModelSpec
from uwbench.encoders.conformance import check_encoder
from uwbench.encoders.mel import slaney_filters
from uwbench.encoders.resolve import open_encoder
from uwbench.errors import EncoderError, InputError, UsageError
from uwbench.extraction.forward import Forward, Settings

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "adding-an-encoder.md"

XARES = '''
import torch


class TwoStepEncoder(torch.nn.Module):
    """An audio encoder as X-ARES documents it: any batch, no lengths, frames each 40 ms."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.sampling_rate = 16000
        self.output_dim = 24
        self.hop_size_in_ms = HOP
        self.layer = torch.nn.Conv1d(1, self.output_dim, 640, stride=640)

    def forward(self, audio):
        return self.layer(audio.unsqueeze(1)).transpose(1, 2)
'''

REMOTE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class PlainConfig(PretrainedConfig):
    model_type = "plain-remote"

    def __init__(self, width=8, **rest):
        super().__init__(**rest)
        self.width = width


class PlainModel(PreTrainedModel):
    config_class = PlainConfig

    def __init__(self, config):
        super().__init__(config)
        self.first = torch.nn.Conv1d(1, config.width, 400, stride=200)
        self.second = torch.nn.Conv1d(config.width, config.width, 1)
        self.post_init()

    def forward(self, input_values, output_hidden_states=False):
        one = self.first(input_values.unsqueeze(1))
        two = self.second(one)
        states = (one.transpose(1, 2), two.transpose(1, 2))
        return BaseModelOutput(last_hidden_state=states[1], hidden_states=states if output_hidden_states else None)
"""


def clip(samples: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(samples).normal(0, 0.1, (1, samples)).astype(np.float32))


def block_of_the_guide(word: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if word in block)
    return block


def test_the_family_of_the_guide_is_one_short_file_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import SEWConfig, SEWModel, Wav2Vec2FeatureExtractor

    source = block_of_the_guide("def open_sew")
    assert len(source.splitlines()) < 80
    (tmp_path / "sew_family.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert '    "sew": "uwbench.encoders.sew:open_sew",' in GUIDE.read_text(encoding="utf-8")
    families = {**resolve.FAMILIES.builtin, "sew": "sew_family:open_sew"}
    monkeypatch.setattr(resolve, "FAMILIES", replace(resolve.FAMILIES, builtin=families))

    folder = tmp_path / "sew-small"
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    }
    SEWModel(SEWConfig(conv_dim=(16,) * 13, **sizes)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    encoder = open_encoder(ModelSpec(str(folder)))
    assert encoder.info.family == "sew"
    found = check_encoder(encoder)
    assert found.problems == ()
    assert found.hop_seconds == pytest.approx(0.02, rel=0.02)
    for length in (1, 20_011):
        samples = torch.nn.functional.pad(clip(length), (0, max(0, round(encoder.info.min_s * 16_000) - length)))
        inputs = Wav2Vec2FeatureExtractor.from_pretrained(folder)(samples[0].numpy(), sampling_rate=16_000)
        with torch.inference_mode():
            got = encoder.encode(samples, torch.tensor([length]), [0])
            values = torch.from_numpy(np.stack(inputs["input_values"]))
            expected = SEWModel.from_pretrained(folder).eval()(values).last_hidden_state
        assert got.valid.tolist() == [expected.shape[1]]
        torch.testing.assert_close(got.frames[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_the_example_of_the_guide_keeps_the_contract(tmp_path: Path) -> None:
    block = block_of_the_guide("class BandEnergies")
    (tmp_path / "my_encoder.py").write_text(block)
    encoder = open_encoder(ModelSpec(f"{tmp_path}/my_encoder.py:BandEnergies"))
    found = check_encoder(encoder)
    assert found.problems == ()
    assert found.hop_seconds == pytest.approx(0.02)
    assert found.deterministic

    (tmp_path / "my_encoder.py").write_text(block + "# another word\n")
    changed = open_encoder(ModelSpec(f"{tmp_path}/my_encoder.py:BandEnergies"))
    assert changed.info.identity != encoder.info.identity


def test_an_x_ares_file_runs_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "two_step.py"
    file.write_text(XARES.replace("HOP", "40"))
    encoder = open_encoder(ModelSpec(f"{file}:TwoStepEncoder"))
    assert check_encoder(encoder).problems == ()
    torch.manual_seed(0)
    layer = torch.nn.Conv1d(1, 24, 640, stride=640)
    samples = clip(8000)
    with torch.inference_mode():
        found = encoder.encode(samples, torch.tensor([8000]), [0])
        torch.testing.assert_close(found.frames[:, 0], layer(samples[:, None]).transpose(1, 2))


def test_an_x_ares_file_is_launched_without_reading_anything_back(tmp_path: Path) -> None:
    """On torch's meta device nothing can be read back."""
    file = tmp_path / "two_step.py"
    file.write_text(XARES.replace("HOP", "40"))
    encoder = open_encoder(ModelSpec(f"{file}:TwoStepEncoder"))
    encoder.load("meta", "fp32")
    forward = Forward(encoder, [0], ("mean",), Settings("meta", 60.0, 1), needs_frames=False)
    forward.start([np.zeros(count, np.float32) for count in (8000, 9000)], ["a", "b"])


def test_the_check_finds_a_hop_declared_wrong(tmp_path: Path) -> None:
    file = tmp_path / "two_step.py"
    file.write_text(XARES.replace("HOP", "10"))
    found = check_encoder(open_encoder(ModelSpec(f"{file}:TwoStepEncoder")))
    assert found.hop_seconds == pytest.approx(0.04, rel=0.03)
    assert len(found.problems) == 1
    assert "declares one frame per 10 ms" in found.problems[0]


def test_the_check_finds_a_group_norm_that_is_padded(tmp_path: Path) -> None:
    file = tmp_path / "normed.py"
    file.write_text(
        "import torch\nfrom uwbench.api import Encoded, EncoderInfo\n\n\nclass Normed:\n"
        "    info = EncoderInfo('normed', 'test', 16000, 1, ('a',), 0.01, None)\n\n"
        "    def load(self, device, dtype):\n        pass\n\n"
        "    def encode(self, waveforms, lengths, layers):\n"
        "        count = -(-waveforms.shape[1] // 160)\n"
        "        padded = torch.nn.functional.pad(waveforms, (0, 160 * count - waveforms.shape[1]))\n"
        "        energy = padded.unflatten(1, (count, 160)).square().mean(2)\n"
        "        scaled = energy / energy.mean(1, keepdim=True)\n"
        "        return Encoded(scaled[:, None, :, None], -(-lengths // 160))\n"
    )
    found = check_encoder(open_encoder(ModelSpec(f"{file}:Normed")))
    assert found.batch_deviation > 0.1
    assert any("batch mates" in problem for problem in found.problems)
    assert json.loads(json.dumps(found.to_json()))["deterministic"] is True


@pytest.fixture
def hear_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HEAR's own baseline from PyPI, without the packages of 2021 that it pins.

    Of librosa, `naive` uses one function, that lost its positional rate in 2023; ours computes the same filters.
    """
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    done = subprocess.run([*command, "hearbaseline==2021.1.1"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing(f"hearbaseline, which pip cannot install ({done.stderr.strip().splitlines()[-1:]}),")
    librosa = types.ModuleType("librosa")
    filters = types.SimpleNamespace(mel=lambda rate, n_fft, n_mels: slaney_filters(n_fft, n_mels, rate))
    monkeypatch.setattr(librosa, "filters", filters, raising=False)
    monkeypatch.setitem(sys.modules, "librosa", librosa)
    monkeypatch.syspath_prepend(str(target))


@pytest.mark.usefixtures("hear_baseline")
def test_a_hear_module_runs_unchanged() -> None:
    import importlib

    encoder = open_encoder(ModelSpec("hear:hearbaseline.naive"))
    assert encoder.info.sample_rate == 44_100
    assert encoder.info.layers == ("scene", "timestamp")
    found = check_encoder(encoder)
    assert found.problems == ()
    assert found.hop_seconds == pytest.approx(0.05)
    module = importlib.import_module("hearbaseline.naive")
    samples = clip(44_100)
    with torch.inference_mode():
        got = encoder.encode(samples, torch.tensor([44_100]), [0, 1])
        model = module.load_model()
        frames, _ = module.get_timestamp_embeddings(samples, model)
        torch.testing.assert_close(got.frames[:, 1], frames)
        torch.testing.assert_close(got.frames[:, 0].mean(1), module.get_scene_embeddings(samples, model))


def test_remote_code_runs_only_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.dynamic_module_utils
    from safetensors.torch import save_file

    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "remote"
    folder.mkdir()
    config = {
        "model_type": "plain-remote",
        "architectures": ["PlainModel"],
        "auto_map": {"AutoConfig": "plain.PlainConfig", "AutoModel": "plain.PlainModel"},
        "width": 8,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "plain.py").write_text(REMOTE)
    torch.manual_seed(0)
    first, second = torch.nn.Conv1d(1, 8, 400, stride=200), torch.nn.Conv1d(8, 8, 1)
    weights = {
        f"{name}.{key}": value
        for name, layer in (("first", first), ("second", second))
        for key, value in layer.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UsageError, match="--trust-remote-code"):
        open_encoder(ModelSpec(str(folder)))
    encoder = open_encoder(ModelSpec(str(folder), trust_remote_code=True))
    assert encoder.info.hop_s == pytest.approx(0.0125)
    assert check_encoder(encoder).problems == ()
    samples = clip(5000)
    with torch.inference_mode():
        found = encoder.encode(samples, torch.tensor([5000]), [0, 1])
        expected = first(samples[:, None])
        torch.testing.assert_close(found.frames[:, 0], expected.transpose(1, 2))
        torch.testing.assert_close(found.frames[:, 1], second(expected).transpose(1, 2))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("whisper-tny", "did you mean whisper-tiny"),
        ("./nowhere", "no such folder"),
        ("nowhere.py:Class", "no such file"),
        ("hear:no_such_module", "cannot be imported"),
        ("hear:json", "lacks load_model"),
    ],
)
def test_a_name_that_stands_for_nothing_says_so(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_encoder(ModelSpec(name))


def test_folders_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        open_encoder(ModelSpec(str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "whisper", "max_source_positions": 1500}')
    with pytest.raises(InputError, match="lacks 'd_model'"):
        open_encoder(ModelSpec(str(tmp_path)))
    config = {"model_type": "whisper", "max_source_positions": 1500, "d_model": 8, "encoder_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="holds no weights"):
        open_encoder(ModelSpec(str(tmp_path), weights=str(tmp_path)))


def test_a_hub_id_without_a_network_says_what_to_do() -> None:
    program = (
        "from uwbench.encoders.base import ModelSpec\nfrom uwbench.encoders.resolve import open_encoder\n"
        "from uwbench.errors import EncoderError\n"
        "try:\n    open_encoder(ModelSpec('some-owner/some-model'))\nexcept EncoderError as error:\n    print(error)\n"
    )
    bench = Path(__file__).resolve().parents[2] / "bench"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(bench), "HF_HOME": str(Path.cwd())},
    )
    assert "hf download some-owner/some-model" in done.stdout


def test_opening_a_folder_loads_no_torch(whisper_tiny: Path) -> None:
    program = (
        "import sys\nfrom uwbench.encoders.base import ModelSpec\nfrom uwbench.encoders.resolve import open_encoder\n"
        f"open_encoder(ModelSpec({str(whisper_tiny)!r}))\nopen_encoder(ModelSpec('logmel'))\n"
        "print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))\n"
    )
    bench = Path(__file__).resolve().parents[2] / "bench"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(bench)}
    )
    assert done.stdout.strip() == "set()"
