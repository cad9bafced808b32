"""A checkpoint's feature extractor, wherever it is saved: read as AutoFeatureExtractor reads it, and identified."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from encoders.families import CASES, write_preprocessor
from uwbench.encoders.base import Encoder, EncoderInfo, ModelSpec
from uwbench.encoders.conformance import check_encoder
from uwbench.encoders.resolve import open_encoder
from uwbench.errors import EncoderError, UwbenchError
from uwbench.extraction.identity import describe_encoder

Settings = dict[str, Any]
# A setting that changes what each family is fed, and may change its rate.
CHANGES: dict[str, Settings] = {
    "wav2vec2-padded": {"do_normalize": False},
    "wavlm-equal-length": {"do_normalize": True},
    "hubert-padded": {"sampling_rate": 8_000},
    "moonshine": {"do_normalize": True},
    "wav2vec2-bert": {"sampling_rate": 24_000},
    "ast": {"mean": 0.0, "std": 1.0},
    "clap": {"frequency_max": 8_000, "sampling_rate": 32_000},
    "parakeet": {"preemphasis": 0.5},
    "encodec": {"sampling_rate": 16_000},
    "whisper": {"sampling_rate": 8_000, "hop_length": 80},
    "qwen2_audio": {"hop_length": 200, "n_fft": 512},
}


def make_whisper(folder: Path) -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

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
    )
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)


def make(name: str, folder: Path) -> None:
    if name == "whisper":
        make_whisper(folder)
        return
    next(case for case in CASES if case.name == name).make(folder)
    if name == "encodec":
        write_preprocessor(folder, feature_extractor_type="EncodecFeatureExtractor", sampling_rate=24_000)
    if name == "qwen2_audio":
        write_preprocessor(folder, feature_extractor_type="WhisperFeatureExtractor", feature_size=80)


@pytest.fixture(scope="module", params=CHANGES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("models") / request.param
    make(request.param, folder)
    return request.param, folder


def settings_of(folder: Path) -> Settings:
    return json.loads((folder / "preprocessor_config.json").read_text())


def nest(folder: Path, settings: Settings, key: str = "feature_extractor") -> None:
    (folder / "processor_config.json").write_text(json.dumps({key: settings, "processor_class": "SomeProcessor"}))


def opened(folder: Path) -> Encoder:
    return open_encoder(ModelSpec(str(folder), context="trimmed"))


def fingerprint(encoder: Encoder) -> str:
    return describe_encoder(replace(encoder.info, name="model")).fingerprint


def frames(encoder: Encoder) -> torch.Tensor:
    encoder.load("cpu", "fp32")
    samples = round(0.5 * encoder.info.sample_rate)
    waveforms = 0.01 + 0.03 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return encoder.encode(waveforms, torch.tensor([samples]), [len(encoder.info.layers) - 1]).frames


@pytest.mark.parametrize("key", ["feature_extractor", "audio_processor"])
def test_a_nested_extractor_is_the_same_encoder_as_a_plain_one(
    key: str, model: tuple[str, Path], tmp_path: Path
) -> None:
    name, folder = model
    if key == "audio_processor" and name != "wavlm-equal-length":
        pytest.skip("one family is enough")
    nested = Path(shutil.copytree(folder, tmp_path / "nested"))
    nest(nested, settings_of(nested), key)
    (nested / "preprocessor_config.json").unlink()
    assert fingerprint(opened(nested)) == fingerprint(opened(folder))
    torch.testing.assert_close(frames(opened(nested)), frames(opened(folder)), rtol=0, atol=0)


@pytest.mark.parametrize("place", ["preprocessor", "processor", "both"])
def test_changed_settings_change_the_fingerprint_and_what_the_model_is_fed(
    place: str, model: tuple[str, Path], tmp_path: Path
) -> None:
    name, folder = model
    changed = Path(shutil.copytree(folder, tmp_path / "changed"))
    settings = settings_of(changed) | CHANGES[name]
    if place == "preprocessor":
        write_preprocessor(changed, **settings)
    else:
        nest(changed, settings)
    if place == "processor":
        (changed / "preprocessor_config.json").unlink()
    first, second = opened(folder), opened(changed)
    assert fingerprint(second) != fingerprint(first)
    assert second.info.sample_rate == settings.get("sampling_rate", first.info.sample_rate)
    before, after = frames(first), frames(second)
    if name not in ("hubert-padded", "encodec"):  # they take a waveform as it is: its rate alone changes
        assert before.shape != after.shape or float((before - after).norm() / before.norm()) > 1e-4
    assert check_encoder(opened(changed)).problems == ()


@pytest.mark.parametrize("rate", [8_000, 22_050, 32_000])
def test_an_ast_is_fed_at_its_extractors_rate(rate: int, tmp_path: Path) -> None:
    from transformers import ASTFeatureExtractor

    make("ast", tmp_path / "ast")
    ASTFeatureExtractor(num_mel_bins=64, max_length=256, sampling_rate=rate).save_pretrained(tmp_path / "ast")
    encoder = opened(tmp_path / "ast")
    assert encoder.info.sample_rate == rate
    assert check_encoder(encoder).problems == ()


@pytest.mark.parametrize("name", ["wav2vec2-padded", "moonshine", "encodec", "whisper", "qwen2_audio"])
def test_without_an_extractor_the_defaults_are_said(name: str, tmp_path: Path) -> None:
    make(name, tmp_path / "bare")
    assert opened(tmp_path / "bare").info.notes == ()
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    (note,) = opened(tmp_path / "bare").info.notes
    assert note.startswith("bare has no preprocessor_config.json")
    assert "000 Hz" in note


@pytest.mark.parametrize("name", ["ast", "clap", "parakeet", "wav2vec2-bert"])
def test_spectra_without_an_extractor_are_refused(name: str, tmp_path: Path) -> None:
    make(name, tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    with pytest.raises(EncoderError, match=r"bare: has no preprocessor_config\.json"):
        opened(tmp_path / "bare")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("ast", {"max_length": 512}, "max_length is 256 in config.json and 512"),
        ("wavlm-equal-length", {"feature_extractor_type": "SpeechT5FeatureExtractor"}, "SpeechT5FeatureExtractor"),
        ("whisper", {"feature_size": 128}, "makes 128 num_mel_bins and the model takes 80"),
        ("whisper", {"chunk_length": 15}, "makes 750 max_source_positions and the model takes 1500"),
        ("whisper", {"dither": 0.1}, "adds noise"),
        ("ast", {"sampling_rate": "fast"}, "holds a value .*fast"),
        ("parakeet", {"sampling_rate": 0}, "holds a value .*zero"),
        ("whisper", {"feature_size": None}, "holds a value .*NoneType"),
    ],
)
def test_an_extractor_that_does_not_fit_its_model_is_refused(
    name: str, settings: Settings, message: str, tmp_path: Path
) -> None:
    make(name, tmp_path / "model")
    write_preprocessor(tmp_path / "model", **settings_of(tmp_path / "model") | settings)
    with pytest.raises(UwbenchError, match=message):
        opened(tmp_path / "model")


class Fed:
    """An encoder whose input features are off by a factor."""

    def __init__(self, encoder: Encoder, factor: float) -> None:
        self.info: EncoderInfo = encoder.info
        self.load, self.encode = encoder.load, encoder.encode
        measure = cast("Callable[[list[np.ndarray]], float]", vars(encoder)["input_deviation"])
        self.input_deviation = lambda clips: measure([factor * clip for clip in clips]) + abs(factor - 1.0)


def test_the_check_reports_input_that_differs_from_the_extractors(tmp_path: Path) -> None:
    make("wavlm-equal-length", tmp_path / "model")
    assert check_encoder(Fed(opened(tmp_path / "model"), 1.0)).problems == ()
    (problem,) = check_encoder(Fed(opened(tmp_path / "model"), 2.0)).problems
    assert "differs by 1 from that of the checkpoint's own feature extractor" in problem
