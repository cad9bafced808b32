"""Towers inside language models: what is read and hashed of them, and the contexts that they offer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from encoders.families import write_preprocessor
from encoders.parity import CASES, loaded, noise
from uwbench.encoders.base import ModelSpec
from uwbench.encoders.conformance import check_encoder
from uwbench.encoders.resolve import FAMILIES, open_encoder
from uwbench.encoders.tower import at_rate
from uwbench.errors import EncoderError
from uwbench.extraction.identity import describe_encoder

WEIGHTS = "model.safetensors"


def case(name: str):
    return next(case for case in CASES if case.name == name)


@pytest.fixture(scope="module")
def qwen3_asr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "qwen3_asr"
    case("qwen3_asr").make(folder)
    return folder


@pytest.fixture(scope="module", params=["qwen3_asr", "qwen2_5_omni-whole", "kyutai_speech_to_text"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a complete model with a tower or a codec inside."""
    folder = tmp_path_factory.mktemp("whole") / request.param
    case(request.param).make(folder)
    return folder


def fingerprint(folder: Path) -> str:
    return describe_encoder(replace(open_encoder(ModelSpec(str(folder))).info, name="model")).fingerprint


def frames(folder: Path) -> torch.Tensor:
    samples = torch.from_numpy(noise(case("qwen3_asr"), 0.7))[None]
    with torch.inference_mode():
        return loaded(folder).encode(samples, torch.tensor([samples.shape[1]]), range(4)).frames


def test_the_language_model_is_neither_hashed_nor_read(whole: Path, tmp_path: Path) -> None:
    expected, first = frames(whole), fingerprint(whole)
    other = Path(shutil.copytree(whole, tmp_path / "other"))
    tensors = load_file(other / WEIGHTS)
    language = [name for name in tensors if "audio_tower" not in name and "codec_model" not in name]
    tower = {name: value for name, value in tensors.items() if name not in language}
    save_file(tower | {name: tensors[name] + 1 for name in language}, other / WEIGHTS)
    assert fingerprint(other) == first
    save_file(tower | dict.fromkeys(language[:1], torch.zeros(1)), other / WEIGHTS)  # the rest is not there at all
    torch.testing.assert_close(frames(other), expected, rtol=0, atol=0)
    assert open_encoder(ModelSpec(str(other))).info.parameters == sum(value.numel() for value in tower.values())

    changed = next(iter(tower))
    save_file(tower | {changed: tower[changed] + 1}, other / WEIGHTS)
    assert fingerprint(other) != first
    del tower[changed]
    save_file(tower, other / WEIGHTS)
    with pytest.raises(EncoderError, match="the weights lack"):
        loaded(other)


def test_shards_without_the_tower_need_not_be_there(whole: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(whole, tmp_path / "other"))
    tensors = load_file(other / WEIGHTS)
    (other / WEIGHTS).unlink()
    tower = {name: value for name, value in tensors.items() if "audio_tower" in name or "codec_model" in name}
    save_file(tower, other / "model-00001-of-00002.safetensors")
    places = {name: f"model-0000{1 if name in tower else 2}-of-00002.safetensors" for name in tensors}
    (other / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))
    assert fingerprint(other) == fingerprint(whole)
    torch.testing.assert_close(frames(other), frames(whole), rtol=0, atol=0)
    (other / "model-00001-of-00002.safetensors").rename(other / "model-00002-of-00002.safetensors")
    with pytest.raises(EncoderError, match="lacks the weights file model-00001"):
        open_encoder(ModelSpec(str(other)))


def test_shards_and_a_tower_that_was_saved_alone_are_the_same(qwen3_asr: Path, tmp_path: Path) -> None:
    tensors = load_file(qwen3_asr / WEIGHTS)
    shards = Path(shutil.copytree(qwen3_asr, tmp_path / "shards"))
    (shards / WEIGHTS).unlink()
    names = sorted(tensors)
    files = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, shards / file)
    places = {name: file for file, part in files.items() for name in part}
    (shards / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))
    assert fingerprint(shards) == fingerprint(qwen3_asr)

    alone = Path(shutil.copytree(qwen3_asr, tmp_path / "alone"))
    config = json.loads((alone / "config.json").read_text())["audio_config"]
    (alone / "config.json").write_text(json.dumps(config))
    lead = "model.audio_tower."
    save_file(
        {name.removeprefix(lead): value for name, value in tensors.items() if name.startswith(lead)}, alone / WEIGHTS
    )
    assert fingerprint(alone) == fingerprint(qwen3_asr)
    torch.testing.assert_close(frames(alone), frames(qwen3_asr), rtol=0, atol=0)


@pytest.mark.skipif(find_spec("torchaudio") is not None, reason="torchaudio is installed")
def test_an_extractor_that_needs_torchaudio_says_so(qwen3_asr: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(qwen3_asr, tmp_path / "other"))
    write_preprocessor(other, feature_extractor_type="FunAsrNanoFeatureExtractor")
    with pytest.raises(EncoderError, match="pip install torchaudio"):
        frames(other)


def test_an_extractor_that_adds_noise_is_refused(qwen3_asr: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(qwen3_asr, tmp_path / "other"))
    settings = json.loads((other / "preprocessor_config.json").read_text())
    write_preprocessor(other, **settings | {"dither": 1e-4})
    with pytest.raises(EncoderError, match=r"adds noise \(dither\).*set dither to 0"):
        frames(other)


def test_the_check_leaves_out_the_silence_before_a_sound(tmp_path: Path) -> None:
    """Cohere ASR normalises each mel band over the clip: of silence alone that leaves rounding errors."""
    cohere = case("cohere-asr")
    cohere.make(tmp_path / "model")
    encoder = loaded(tmp_path / "model")
    silence = np.zeros(2 * cohere.rate, np.float32)
    clips = [np.concatenate([silence, noise(cohere, seconds)]) for seconds in (1.0, 2.0)]
    assert check_encoder(encoder, clips=clips).problems == ()
    with pytest.raises(EncoderError, match="every clip is digital silence"):
        check_encoder(encoder, clips=[silence])


@torch.inference_mode()
def test_glm_asr_trimmed_sees_the_clip_alone(tmp_path: Path) -> None:
    from transformers import GlmAsrForConditionalGeneration, WhisperFeatureExtractor

    case("glmasr").make(tmp_path / "model")
    samples = noise(case("glmasr"), 1.03)
    encoder = open_encoder(ModelSpec(str(tmp_path / "model"), context="trimmed"))
    encoder.load("cpu", "fp32")
    found = encoder.encode(torch.from_numpy(samples)[None], torch.tensor([len(samples)]), [3])
    extract = WhisperFeatureExtractor.from_pretrained(tmp_path / "model")
    mels = extract(samples, sampling_rate=16_000, return_tensors="pt").input_features[..., :104]
    model = GlmAsrForConditionalGeneration.from_pretrained(tmp_path / "model").eval().model
    expected = model.audio_tower(mels).last_hidden_state
    torch.testing.assert_close(found.frames[:, 0], expected)
    assert found.valid.tolist() == [52]
    full = open_encoder(ModelSpec(str(tmp_path / "model")))
    assert describe_encoder(full.info).fingerprint != describe_encoder(encoder.info).fingerprint


def test_a_model_without_an_audio_encoder_says_what_to_measure_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "dia"}')
    with pytest.raises(EncoderError, match="has no audio encoder: it makes speech from text; measure the codec"):
        open_encoder(ModelSpec(str(tmp_path)))


def test_every_audio_model_of_transformers_is_known() -> None:
    """A new release of transformers brings new models: each gets a family, or the reason why there is none."""
    from transformers.models.auto import feature_extraction_auto, modeling_auto

    kinds = ("AUDIO", "SPEECH", "CTC", "RNNT", "TDT", "WAVEFORM", "SPECTROGRAM")
    tables = [name for name in vars(modeling_auto) if name.endswith("_MAPPING_NAMES") and any(k in name for k in kinds)]
    audio = {kind for table in tables for kind in getattr(modeling_auto, table)}
    audio |= set(vars(feature_extraction_auto)["FEATURE_EXTRACTOR_MAPPING_NAMES"])
    assert len(audio) > 60
    assert sorted(audio - set(FAMILIES.entries())) == []


def test_layers_of_other_rates_are_averaged_over_a_clips_own_frames_or_repeated() -> None:
    state = torch.arange(7.0)[None, :, None]
    assert at_rate(state, 7) is state
    assert at_rate(state, 4).flatten().tolist() == [0.5, 2.5, 4.5, 6.0]
    inside = torch.arange(7)[None] < 3
    assert at_rate(state, 4, inside).flatten().tolist() == [0.5, 2.0, 0.0, 0.0]
    assert at_rate(state[:, :3], 5).flatten().tolist() == [0.0, 0.0, 1.0, 1.0, 2.0]
