"""Models without a family's file. Those that bring code, in the forms of MERT and Dasheng: refused unless trusted.

The code is written here to the conventions of theirs: two files that import each other for MERT, whose model is a
HuBERT at 24 kHz; a feature extractor of its own and an output without `last_hidden_state` for Dasheng.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from uwbench.encoders.base import ModelSpec
from uwbench.encoders.conformance import check_encoder
from uwbench.encoders.resolve import open_encoder
from uwbench.errors import EncoderError, UsageError

SPRUNG = "sprung"
MERT_CONFIGURATION = f"""
from pathlib import Path

from transformers import HubertConfig

Path({SPRUNG!r}).touch()


class MusicConfig(HubertConfig):
    model_type = "music_model"
"""
MERT_MODELING = """
from transformers import HubertModel

from .configuration_music import MusicConfig


class MusicModel(HubertModel):
    config_class = MusicConfig
"""
DASHENG_EXTRACTION = """
import torch
from transformers import BatchFeature, SequenceFeatureExtractor


class EnergyExtractor(SequenceFeatureExtractor):
    model_input_names = ["input_values"]

    def __init__(self, feature_size=8, sampling_rate=16000, padding_value=0.0, **rest):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **rest)

    def __call__(self, audio, sampling_rate=None, return_tensors="pt"):
        samples = torch.as_tensor(audio).reshape(1, -1)
        count = samples.shape[1] // 640
        frames = samples[:, : 640 * count].unflatten(1, (count, 8, 80)).square().mean(-1)
        return BatchFeature({"input_values": (frames + 1e-6).log().transpose(1, 2)})
"""
DASHENG_MODELING = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class EnergyConfig(PretrainedConfig):
    model_type = "energy"


class EnergyModel(PreTrainedModel):
    config_class = EnergyConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(8, 12)
        self.post_init()

    def forward(self, input_values):
        hidden = self.layer(input_values.transpose(1, 2))
        return SequenceClassifierOutput(logits=hidden.mean(1), hidden_states=hidden)
"""


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that is trusted is copied before it is run: not into the user's cache."""
    import transformers.dynamic_module_utils

    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    # An earlier test's folder stays on the path, and its package among the modules.
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry).name != "modules"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def mert(tmp_path: Path) -> Path:
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    folder = tmp_path / "MERT-small"
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    HubertModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=24_000, do_normalize=True).save_pretrained(folder)
    names = {"AutoConfig": "configuration_music.MusicConfig", "AutoModel": "modeling_music.MusicModel"}
    written = json.loads((folder / "config.json").read_text()) | {"model_type": "music_model", "auto_map": names}
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "configuration_music.py").write_text(MERT_CONFIGURATION)
    (folder / "modeling_music.py").write_text(MERT_MODELING)
    return folder


@pytest.fixture
def dasheng(tmp_path: Path) -> Path:
    from safetensors.torch import save_file

    folder = tmp_path / "dasheng-small"
    folder.mkdir()
    names = {"AutoConfig": "modeling_energy.EnergyConfig", "AutoModel": "modeling_energy.EnergyModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "energy", "auto_map": names}))
    extractor = {
        "feature_extractor_type": "EnergyExtractor",
        "auto_map": {"AutoFeatureExtractor": "feature_extraction_energy.EnergyExtractor"},
        "sampling_rate": 16000,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    (folder / "modeling_energy.py").write_text(DASHENG_MODELING)
    (folder / "feature_extraction_energy.py").write_text(DASHENG_EXTRACTION)
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 12)
    save_file({"layer.weight": layer.weight.data, "layer.bias": layer.bias.data}, folder / "model.safetensors")
    return folder


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("kind", ["mert", "dasheng"])
def test_code_is_not_run_unless_it_is_trusted(request: pytest.FixtureRequest, kind: str) -> None:
    folder = request.getfixturevalue(kind)
    with pytest.raises(UsageError, match=r"read the Python files .* then pass --trust-remote-code"):
        open_encoder(ModelSpec(str(folder)))
    assert not Path(SPRUNG).exists()


def test_a_model_in_the_form_of_mert_gives_every_layer_at_75_frames_a_second(mert: Path) -> None:
    from transformers import HubertModel

    encoder = open_encoder(ModelSpec(str(mert), trust_remote_code=True))
    assert Path(SPRUNG).exists()  # its code ran
    assert encoder.info.sample_rate == 24_000
    assert encoder.info.hop_s == pytest.approx(320 / 24_000)
    assert encoder.info.layers == ("0", "1", "2", "3")
    found = check_encoder(encoder, clips=[noise(24_000)])
    assert found.problems == ()
    assert found.hop_seconds == pytest.approx(320 / 24_000, rel=0.02)

    samples = noise(30_011)
    normalised = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    with torch.inference_mode():
        got = encoder.encode(torch.from_numpy(samples)[None], torch.tensor([len(samples)]), range(4)).frames
        model = HubertModel.from_pretrained(mert).eval()
        expected = model(torch.from_numpy(normalised)[None], output_hidden_states=True)
    for layer, states in enumerate(expected.hidden_states):
        assert float((got[:, layer] - states).norm() / states.norm()) < 1e-5

    before = encoder.info.identity
    (mert / "modeling_music.py").write_text(MERT_MODELING + "\n# another version\n")
    assert open_encoder(ModelSpec(str(mert), trust_remote_code=True)).info.identity != before


def test_a_model_in_the_form_of_dasheng_runs_with_its_own_feature_extractor(dasheng: Path) -> None:
    encoder = open_encoder(ModelSpec(str(dasheng), trust_remote_code=True))
    assert encoder.info.hop_s == pytest.approx(0.04)
    assert (encoder.info.layers, encoder.info.dim) == (("0",), 12)
    assert check_encoder(encoder, clips=[noise(16_000)]).problems == ()
    samples = torch.from_numpy(noise(6400))[None]
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 12)
    energies = (samples.unflatten(1, (10, 8, 80)).square().mean(-1) + 1e-6).log()
    with torch.inference_mode():
        got = encoder.encode(samples, torch.tensor([6400]), [0])
        torch.testing.assert_close(got.frames[:, 0], layer(energies))
    assert got.valid.tolist() == [10]


def test_a_model_without_frames_says_what_to_do(dasheng: Path) -> None:
    source = DASHENG_MODELING.replace(", hidden_states=hidden", "")
    (dasheng / "modeling_energy.py").write_text(source)
    with pytest.raises(
        EncoderError, match=r"returns no frames as last_hidden_state; write a wrapper: docs/adding-an-encoder\.md"
    ):
        open_encoder(ModelSpec(str(dasheng), trust_remote_code=True))


def test_an_architecture_that_a_package_registers_needs_no_file(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, UniSpeechConfig, UniSpeechModel, Wav2Vec2FeatureExtractor

    class OtherConfig(UniSpeechConfig):
        model_type = "other-speech"

    class OtherModel(UniSpeechModel):
        config_class = OtherConfig

    AutoConfig.register("other-speech", OtherConfig, exist_ok=True)
    AutoModel.register(OtherConfig, OtherModel, exist_ok=True)
    folder = tmp_path / "other-small"
    torch.manual_seed(0)
    config = OtherConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    OtherModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    encoder = open_encoder(ModelSpec(str(folder)))
    assert encoder.info.batching == "single"
    assert check_encoder(encoder, clips=[noise(16_000)]).problems == ()
    samples = torch.from_numpy(noise(20_000))[None]
    with torch.inference_mode():
        got = encoder.encode(samples, torch.tensor([20_000]), [len(encoder.info.layers) - 1]).frames
        expected = OtherModel.from_pretrained(folder).eval()(samples).last_hidden_state
    torch.testing.assert_close(got[:, 0], expected)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "self.layer(input_values",
            "self.layre(input_values",
            r"dasheng-small: a forward pass on noise fails with .*layre",
        ),
        (
            "torch.nn.Linear(8, 12)",
            "torch.nn.Linaer(8, 12)",
            r"dasheng-small: cannot be loaded \(AttributeError: .*Linaer",
        ),
        ("import torch\n", "import torch, no_such_module\n", "no_such_module"),
        ("logits=hidden.mean(1)", "logits=missing_name", r"fails with NameError: .*missing_name"),
    ],
)
def test_code_that_fails_is_one_line(old: str, new: str, message: str, dasheng: Path) -> None:
    path = dasheng / "modeling_energy.py"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(EncoderError, match=message) as refused:
        open_encoder(ModelSpec(str(dasheng), trust_remote_code=True))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
