"""Small randomly initialised models of the real classes, saved as their authors save them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_CONVOLUTIONS = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16, 16, 16, 16, 16, 16, 16),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 12,
}
_PRE_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
_TOWER = {
    "num_mel_bins": 80,
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "max_source_positions": 1500,
}


# Calls transformers itself: (folder, samples) -> states, output.
Direct = Callable[[Path, Any], tuple[list[torch.Tensor], torch.Tensor]]


@dataclass(frozen=True)
class Case:
    """A family: how to make a folder of it, what it must declare, and how transformers itself is called."""

    name: str
    make: Callable[[Path], None]
    direct: Direct
    hop_s: float
    batching: str = "padded"
    rate: int = 16_000
    family: str = ""  # as `uwbench models` names it; by default the case's name
    reads_back: bool = False  # the class itself copies numbers from the device
    needs: str | None = None  # a package that its extractor needs


def write_preprocessor(folder: Path, **content: Any) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


def _waveform_case(kind: str, prefix: str, *, batching: str, normalise: bool, name: str = "", **settings: Any) -> Case:
    def make(folder: Path) -> None:
        import transformers

        torch.manual_seed(0)
        config = getattr(transformers, f"{prefix}Config")(**(_CONVOLUTIONS | settings))
        head = getattr(transformers, f"{prefix}ForCTC")(config)
        head.save_pretrained(folder)
        write_preprocessor(
            folder,
            feature_extractor_type="Wav2Vec2FeatureExtractor",
            do_normalize=normalise,
            sampling_rate=16_000,
            feature_size=1,
            padding_value=0.0,
        )

    def direct(folder: Path, samples: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
        from transformers import AutoFeatureExtractor, AutoModel

        inputs = AutoFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=16_000, return_tensors="pt")
        model = AutoModel.from_pretrained(folder).eval()
        output = model(inputs.input_values, output_hidden_states=True)
        return list(output.hidden_states), output.last_hidden_state

    return Case(name or f"{kind}-{batching}", make, direct, 0.02, batching, family=kind)


def _make_moonshine(folder: Path) -> None:
    from transformers import MoonshineConfig, MoonshineForConditionalGeneration

    torch.manual_seed(0)
    config = MoonshineConfig(
        vocab_size=20,
        hidden_size=32,
        intermediate_size=48,
        encoder_num_hidden_layers=3,
        decoder_num_hidden_layers=1,
        encoder_num_attention_heads=4,
        decoder_num_attention_heads=4,
    )
    MoonshineForConditionalGeneration(config).save_pretrained(folder)
    write_preprocessor(
        folder, feature_extractor_type="Wav2Vec2FeatureExtractor", do_normalize=False, sampling_rate=16_000
    )


def _direct_moonshine(folder: Path, samples: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    from transformers import MoonshineModel

    model = MoonshineModel.from_pretrained(folder).eval().encoder
    output = model(torch.from_numpy(samples)[None], output_hidden_states=True)
    return list(output.hidden_states), output.last_hidden_state


def _make_w2v_bert(folder: Path) -> None:
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertForCTC

    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        vocab_size=12, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48
    )
    Wav2Vec2BertForCTC(config).save_pretrained(folder)
    SeamlessM4TFeatureExtractor(feature_size=80, num_mel_bins=80, stride=2).save_pretrained(folder)


def _direct_w2v_bert(folder: Path, samples: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertModel

    extractor = SeamlessM4TFeatureExtractor.from_pretrained(folder)
    inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt")
    output = Wav2Vec2BertModel.from_pretrained(folder).eval()(**inputs, output_hidden_states=True)
    count = int(inputs.attention_mask.sum())
    return [state[:, :count] for state in output.hidden_states], output.last_hidden_state[:, :count]


def _make_ast(folder: Path) -> None:
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_length=256,
        num_mel_bins=64,
    )
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=64, max_length=256).save_pretrained(folder)


def _direct_ast(folder: Path, samples: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    from transformers import ASTFeatureExtractor, ASTModel

    inputs = ASTFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=16_000, return_tensors="pt")
    output = ASTModel.from_pretrained(folder).eval()(**inputs, output_hidden_states=True)

    def over_time(states: torch.Tensor) -> torch.Tensor:
        # Tokens run along time within a row of patches; 64 bands give 5 rows, 256 frames 25 columns.
        return torch.stack([states[:, 2 + column :: 25][:, :5].mean(1) for column in range(25)], dim=1)

    return [over_time(state) for state in output.hidden_states], over_time(output.last_hidden_state)


def _clap_case(name: str, truncation: str, **audio: Any) -> Case:
    def make(folder: Path) -> None:
        from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

        torch.manual_seed(0)
        tower = {
            "patch_embeds_hidden_size": 8,
            "depths": [1, 1, 2, 1],
            "num_attention_heads": [2, 2, 4, 4],
            "hidden_size": 64,
        }
        text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = ClapConfig(audio_config=tower | audio, text_config=text | {"vocab_size": 20})
        ClapModel(config).save_pretrained(folder)
        ClapFeatureExtractor(truncation=truncation).save_pretrained(folder)

    # Fused, the class looks for the clips that are longer by `nonzero`, which waits for the device.
    fused = bool(audio.get("enable_fusion"))
    return Case(name, make, _direct_clap, 0.3125, rate=48_000, family="clap", reads_back=fused)


def _direct_clap(folder: Path, samples: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    from transformers import ClapFeatureExtractor, ClapModel

    inputs = ClapFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=48_000, return_tensors="pt")
    # The extractor says of a random clip that it is longer than 10 s, if none is.
    longer = torch.zeros(1, 1, dtype=torch.bool)
    output = ClapModel.from_pretrained(folder).eval().audio_model(inputs.input_features, is_longer=longer)
    frames = output.last_hidden_state.mean(2).transpose(1, 2)
    torch.testing.assert_close(frames.mean(1), output.pooler_output)
    return [frames], frames


_FAST_CONFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "subsampling_conv_channels": 16,
    "num_mel_bins": 80,
}


def _make_parakeet(folder: Path) -> None:
    from transformers import ParakeetCTCConfig, ParakeetFeatureExtractor, ParakeetForCTC

    torch.manual_seed(0)
    ParakeetForCTC(ParakeetCTCConfig(vocab_size=20, encoder_config=_FAST_CONFORMER)).save_pretrained(folder)
    ParakeetFeatureExtractor().save_pretrained(folder)


def _direct_conformer(model: str, extractor: str = "ParakeetFeatureExtractor") -> Direct:
    """Return the direct call of the FastConformer in a class of transformers."""

    def direct(folder: Path, samples: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
        import transformers

        extract = getattr(transformers, extractor).from_pretrained(folder)
        inputs = extract(samples, sampling_rate=16_000, return_tensors="pt")
        whole = getattr(transformers, model).from_pretrained(folder).eval()
        encoder = getattr(whole, "encoder", None) or whole.model.encoder
        output = encoder(**inputs, output_hidden_states=True)
        count = int(output.attention_mask.sum())
        return [state[:, :count] for state in output.hidden_states], output.last_hidden_state[:, :count]

    return direct


def _make_encodec(folder: Path) -> None:
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    EncodecModel(EncodecConfig(num_filters=4, hidden_size=16, codebook_size=8, codebook_dim=16)).save_pretrained(folder)


def _direct_encodec(folder: Path, samples: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    from transformers import EncodecModel

    model = EncodecModel.from_pretrained(folder).eval()
    frames = model.encoder(torch.from_numpy(samples)[None, None]).transpose(1, 2)
    return [frames], frames


def _make_canary(folder: Path) -> None:
    from transformers import CanaryConfig, CanaryForConditionalGeneration, ParakeetFeatureExtractor

    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder = sizes | {"intermediate_size": 32}
    encoder = _FAST_CONFORMER | {"scale_input": False}
    config = CanaryConfig(vocab_size=20, encoder_config=encoder, decoder_config=decoder)
    CanaryForConditionalGeneration(config).save_pretrained(folder)
    ParakeetFeatureExtractor().save_pretrained(folder)


def _make_cohere(folder: Path) -> None:
    from transformers import CohereAsrConfig, CohereAsrFeatureExtractor, CohereAsrForConditionalGeneration

    torch.manual_seed(0)
    config = CohereAsrConfig(
        encoder_config=_FAST_CONFORMER,
        intermediate_size=32,
        vocab_size=20,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    CohereAsrForConditionalGeneration(config).save_pretrained(folder)
    CohereAsrFeatureExtractor(feature_size=80).save_pretrained(folder)


def _make_whisper(folder: Path) -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    torch.manual_seed(0)
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "vocab_size": 60}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig.from_dict(_TOWER | decoder | tokens)
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)


def _direct_whisper(folder: Path, samples: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    from transformers import WhisperFeatureExtractor, WhisperModel

    inputs = WhisperFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=16_000, return_tensors="pt")
    encoder = WhisperModel.from_pretrained(folder).eval().encoder
    output = encoder(inputs.input_features, output_hidden_states=True)
    return list(output.hidden_states), output.last_hidden_state


def _make_voxtral(folder: Path) -> None:
    from transformers import VoxtralConfig, VoxtralForConditionalGeneration, WhisperFeatureExtractor

    torch.manual_seed(0)
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower = {"num_mel_bins": 80, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = VoxtralConfig(
        audio_config=tower | {"intermediate_size": 128, "max_source_positions": 1500},
        text_config=text | {"vocab_size": 40, "num_key_value_heads": 2, "head_dim": 16},
    )
    VoxtralForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)


def _direct_voxtral(folder: Path, samples: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    from transformers import VoxtralForConditionalGeneration, WhisperFeatureExtractor

    model = VoxtralForConditionalGeneration.from_pretrained(folder).eval()
    inputs = WhisperFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=16_000, return_tensors="pt")
    output = model.model.audio_tower(inputs.input_features, output_hidden_states=True)
    return list(output.hidden_states), output.last_hidden_state


def _tower_case(kind: str, prefix: str) -> Case:
    def make(folder: Path) -> None:
        import transformers

        torch.manual_seed(0)
        text = {
            "model_type": "qwen2",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": 40,
        }
        tower = _TOWER | {"model_type": f"{kind}_encoder"}
        if kind in ("audioflamingo3", "musicflamingo"):
            tower = {
                "model_type": "audioflamingo3_encoder",
                "num_mel_bins": 80,
                "hidden_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "intermediate_size": 48,
                "max_source_positions": 1500,
            }
        config = getattr(transformers, f"{prefix}Config")(audio_config=tower, text_config=text)
        getattr(transformers, f"{prefix}ForConditionalGeneration")(config).save_pretrained(folder)

    def direct(folder: Path, samples: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
        import transformers

        model = getattr(transformers, f"{prefix}ForConditionalGeneration").from_pretrained(folder).eval()
        tower = getattr(model, "audio_tower", None) or model.model.audio_tower
        extractor = transformers.WhisperFeatureExtractor(feature_size=80)
        inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
        positions = -(-len(samples) // 320)
        if kind == "qwen2_audio":
            # As its model's own forward masks: keys beyond the clip are hidden.
            mask = torch.zeros(1, 1, 1500, 1500).masked_fill(torch.arange(1500) >= positions, -torch.inf)
            output = tower(inputs.input_features, attention_mask=mask, output_hidden_states=True)
        else:
            output = tower(inputs.input_features, input_features_mask=inputs.attention_mask, output_hidden_states=True)
        pairs = positions // 2
        states = [
            state.unflatten(1, (750, 2)).mean(2)[:, :pairs] if state.shape[1] == 1500 else state[:, :pairs]
            for state in output.hidden_states
        ]
        return states, output.last_hidden_state[:, :pairs]

    return Case(kind, make, direct, 0.04)


CASES = (
    _waveform_case("wav2vec2", "Wav2Vec2", batching="equal-length", normalise=True),
    _waveform_case("wav2vec2", "Wav2Vec2", batching="padded", normalise=True, **_PRE_NORM),
    _waveform_case("hubert", "Hubert", batching="equal-length", normalise=True),
    _waveform_case("hubert", "Hubert", batching="padded", normalise=True, **_PRE_NORM),
    # XLS-R 1B and MMS 1B, HuBERT xlarge: 48 layers, pre-norm, biased convolutions; mHuBERT-147: post-norm.
    _waveform_case(
        "wav2vec2",
        "Wav2Vec2",
        batching="padded",
        normalise=True,
        name="wav2vec2-48-layers",
        num_hidden_layers=48,
        conv_bias=True,
        **_PRE_NORM,
    ),
    _waveform_case(
        "hubert",
        "Hubert",
        batching="padded",
        normalise=True,
        name="hubert-xlarge",
        num_hidden_layers=48,
        conv_bias=True,
        **_PRE_NORM,
    ),
    _waveform_case(
        "hubert",
        "Hubert",
        batching="equal-length",
        normalise=True,
        name="mhubert-147",
        feat_proj_layer_norm=True,
        feat_extract_norm="group",
        do_stable_layer_norm=False,
    ),
    _waveform_case("wavlm", "WavLM", batching="equal-length", normalise=False),
    _waveform_case("wavlm", "WavLM", batching="padded", normalise=True, **_PRE_NORM),
    _waveform_case("unispeech-sat", "UniSpeechSat", batching="equal-length", normalise=True),
    _waveform_case("unispeech-sat", "UniSpeechSat", batching="padded", normalise=True, **_PRE_NORM),
    _waveform_case("unispeech", "UniSpeech", batching="equal-length", normalise=True),
    _waveform_case("unispeech", "UniSpeech", batching="padded", normalise=True, **_PRE_NORM),
    _waveform_case("data2vec-audio", "Data2VecAudio", batching="equal-length", normalise=True, conv_pos_kernel_size=5),
    _waveform_case("wav2vec2-conformer", "Wav2Vec2Conformer", batching="equal-length", normalise=True),
    Case("moonshine", _make_moonshine, _direct_moonshine, 384 / 16_000, "equal-length"),
    # Their mel is computed on the CPU; EnCodec's own code reads how much it pads.
    Case("wav2vec2-bert", _make_w2v_bert, _direct_w2v_bert, 0.02),
    Case("ast", _make_ast, _direct_ast, 0.1, family="audio-spectrogram-transformer"),
    _clap_case("clap", "rand_trunc"),
    # clap-htsat-fused, and the shape of larger_clap_*: twice the width, three times the depth in the third stage.
    _clap_case("clap-fused", "fusion", enable_fusion=True),
    _clap_case("clap-larger", "rand_trunc", patch_embeds_hidden_size=16, depths=[1, 1, 6, 1], hidden_size=128),
    Case("parakeet", _make_parakeet, _direct_conformer("ParakeetForCTC"), 0.08),
    Case("encodec", _make_encodec, _direct_encodec, 320 / 24_000, "equal-length", 24_000),
    Case("whisper", _make_whisper, _direct_whisper, 0.02),
    _tower_case("qwen2_audio", "Qwen2Audio"),
    _tower_case("audioflamingo3", "AudioFlamingo3"),
    _tower_case("musicflamingo", "MusicFlamingo"),
    Case("voxtral", _make_voxtral, _direct_voxtral, 0.02),
    Case("canary", _make_canary, _direct_conformer("CanaryForConditionalGeneration"), 0.08),
    Case(
        "cohere-asr",
        _make_cohere,
        _direct_conformer("CohereAsrForConditionalGeneration", "CohereAsrFeatureExtractor"),
        0.08,
        family="cohere_asr",
    ),
)
