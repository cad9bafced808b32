"""Resolve a model name to an encoder whose weights are not loaded yet.

A name is looked up in this order: a model card, models of packages, ready vectors, plug-ins and built-in encoders,
`hear:MODULE`, `FILE.py:Class`, a folder, the catalogue, a hub id. `model_type` in config.json decides the family of a
checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from uwbench.base.registry import Registry, close_names
from uwbench.encoders.base import Encoder, ModelFolder, ModelSpec
from uwbench.encoders.checkpoint import download, one_line, open_folder
from uwbench.encoders.model_card import SUFFIXES as CARD_SUFFIXES
from uwbench.encoders.model_card import read_card, spec_of, with_facts
from uwbench.encoders.packages import open_packaged, packaged
from uwbench.encoders.vector_files import is_vector_file
from uwbench.errors import InputError, UsageError

# Each target takes a ModelSpec and returns an Encoder; so does a plug-in's class.
ENCODERS = Registry(
    "encoder",
    {
        "logmel": "uwbench.encoders.stats:open_logmel",
        "mfcc": "uwbench.encoders.stats:open_mfcc",
        "uniwhisper": "uwbench.encoders.whisper:open_uniwhisper",
    },
    entry_point_group="uwbench.encoders",
)

# model_type -> a function of the ModelFolder and the ModelSpec that returns an Encoder.
FAMILIES = Registry(
    "model family",
    {
        "apertus1p5": "uwbench.encoders.codecs:open_codec",
        "audio-spectrogram-transformer": "uwbench.encoders.spectrogram:open_ast",
        "audioflamingo3": "uwbench.encoders.whisper_tower:open_tower",
        "audioflamingo3_encoder": "uwbench.encoders.whisper_tower:open_tower",
        "bark": "uwbench.encoders.without_encoder:refuse",
        "canary": "uwbench.encoders.spectrogram:open_parakeet",
        "clap": "uwbench.encoders.spectrogram:open_clap",
        "clap_audio_model": "uwbench.encoders.spectrogram:open_clap",
        "clvp": "uwbench.encoders.without_encoder:refuse",
        "cohere_asr": "uwbench.encoders.spectrogram:open_parakeet",
        "csm": "uwbench.encoders.codecs:open_codec",
        "dac": "uwbench.encoders.codecs:open_codec",
        "data2vec-audio": "uwbench.encoders.waveform:open_waveform",
        "dia": "uwbench.encoders.without_encoder:refuse",
        "dots3_note": "uwbench.encoders.mel_towers:open_mel_tower",
        "dots3_note_audio_encoder": "uwbench.encoders.mel_towers:open_mel_tower",
        "embedding_gemma2": "uwbench.encoders.mel_towers:open_mel_tower",
        "encodec": "uwbench.encoders.codecs:open_codec",
        "fastspeech2_conformer": "uwbench.encoders.without_encoder:refuse",
        "fastspeech2_conformer_hifigan": "uwbench.encoders.without_encoder:refuse",
        "fastspeech2_conformer_with_hifigan": "uwbench.encoders.without_encoder:refuse",
        "fun_asr_nano": "uwbench.encoders.mel_towers:open_mel_tower",
        "fun_asr_nano_encoder": "uwbench.encoders.mel_towers:open_mel_tower",
        "gemma3n": "uwbench.encoders.mel_towers:open_mel_tower",
        "gemma3n_audio": "uwbench.encoders.mel_towers:open_mel_tower",
        "gemma4": "uwbench.encoders.mel_towers:open_mel_tower",
        "gemma4_audio": "uwbench.encoders.mel_towers:open_mel_tower",
        "gemma4_unified": "uwbench.encoders.without_encoder:refuse",
        "gemma4_unified_audio": "uwbench.encoders.without_encoder:refuse",
        "glmasr": "uwbench.encoders.mel_towers:open_glm_asr",
        "glmasr_encoder": "uwbench.encoders.mel_towers:open_glm_asr",
        "gradium_phonon_tts": "uwbench.encoders.without_encoder:refuse",
        "granite_speech": "uwbench.encoders.mel_towers:open_mel_tower",
        "granite_speech5_ctc": "uwbench.encoders.mel_towers:open_mel_tower",
        "granite_speech5_encoder": "uwbench.encoders.mel_towers:open_mel_tower",
        "granite_speech_encoder": "uwbench.encoders.mel_towers:open_mel_tower",
        "granite_speech_plus": "uwbench.encoders.mel_towers:open_mel_tower",
        "granite_speech_plus_encoder": "uwbench.encoders.mel_towers:open_mel_tower",
        "higgs_audio_v2": "uwbench.encoders.without_encoder:refuse",
        "higgs_audio_v2_tokenizer": "uwbench.encoders.codecs:open_codec",
        "hubert": "uwbench.encoders.waveform:open_waveform",
        "inkling_audio": "uwbench.encoders.without_encoder:refuse",
        "inkling_mm_model": "uwbench.encoders.without_encoder:refuse",
        "kyutai_speech_to_text": "uwbench.encoders.codecs:open_codec",
        "lasr_ctc": "uwbench.encoders.mel_towers:open_mel_tower",
        "lasr_encoder": "uwbench.encoders.mel_towers:open_mel_tower",
        "mimi": "uwbench.encoders.codecs:open_codec",
        "moonshine": "uwbench.encoders.waveform:open_waveform",
        "moonshine_streaming": "uwbench.encoders.wave_towers:open_wave_tower",
        "moshi": "uwbench.encoders.codecs:open_codec",
        "moss_transcribe_diarize": "uwbench.encoders.whisper_tower:open_voxtral",
        "moss_transcribe_diarize_audio": "uwbench.encoders.whisper_tower:open_voxtral",
        "muse_spark": "uwbench.encoders.wave_towers:open_wave_tower",
        "muse_spark_audio": "uwbench.encoders.wave_towers:open_wave_tower",
        "musicflamingo": "uwbench.encoders.whisper_tower:open_tower",
        "musicgen": "uwbench.encoders.codecs:open_codec",
        "musicgen_melody": "uwbench.encoders.codecs:open_codec",
        "nemo_speechlm": "uwbench.encoders.nemotron_towers:open_nemotron",
        "nemotron3_5_asr": "uwbench.encoders.nemotron_towers:open_nemotron",
        "nemotron3_5_transcribe_asr_audio": "uwbench.encoders.nemotron_towers:open_nemotron",
        "nemotron3_5_transcribe_audio": "uwbench.encoders.nemotron_towers:open_nemotron",
        "nemotron3_diarization": "uwbench.encoders.nemotron_towers:open_nemotron",
        "nemotron3_diarization_audio": "uwbench.encoders.nemotron_towers:open_nemotron",
        "nemotron_asr_streaming": "uwbench.encoders.nemotron_towers:open_nemotron",
        "nemotron_asr_streaming_encoder": "uwbench.encoders.nemotron_towers:open_nemotron",
        "nemotron_h_omni": "uwbench.encoders.nemotron_towers:open_nemotron",
        "neucodec": "uwbench.encoders.codecs:open_codec",
        "omniasr": "uwbench.encoders.wave_towers:open_wave_tower",
        "omniasr_audio": "uwbench.encoders.wave_towers:open_wave_tower",
        "omniasr_ctc": "uwbench.encoders.wave_towers:open_wave_tower",
        "parakeet_ctc": "uwbench.encoders.spectrogram:open_parakeet",
        "parakeet_encoder": "uwbench.encoders.spectrogram:open_parakeet",
        "parakeet_rnnt": "uwbench.encoders.spectrogram:open_parakeet",
        "parakeet_tdt": "uwbench.encoders.spectrogram:open_parakeet",
        "pe_audio": "uwbench.encoders.wave_towers:open_pe_audio",
        "pe_audio_encoder": "uwbench.encoders.wave_towers:open_wave_tower",
        "pe_audio_video": "uwbench.encoders.wave_towers:open_wave_tower",
        "pe_audio_video_encoder": "uwbench.encoders.wave_towers:open_wave_tower",
        "phi4_multimodal": "uwbench.encoders.mel_towers:open_mel_tower",
        "phi4_multimodal_audio": "uwbench.encoders.mel_towers:open_mel_tower",
        "pocket_tts": "uwbench.encoders.without_encoder:refuse",
        "pocket_tts_audio_tokenizer": "uwbench.encoders.codecs:open_codec",
        "pop2piano": "uwbench.encoders.without_encoder:refuse",
        "qwen2_5_omni": "uwbench.encoders.packed_towers:open_packed",
        "qwen2_5_omni_audio_encoder": "uwbench.encoders.packed_towers:open_packed",
        "qwen2_5_omni_thinker": "uwbench.encoders.packed_towers:open_packed",
        "qwen2_audio": "uwbench.encoders.whisper_tower:open_tower",
        "qwen2_audio_encoder": "uwbench.encoders.whisper_tower:open_tower",
        "qwen3_asr": "uwbench.encoders.packed_towers:open_packed",
        "qwen3_asr_encoder": "uwbench.encoders.packed_towers:open_packed",
        "qwen3_omni_moe": "uwbench.encoders.packed_towers:open_packed",
        "qwen3_omni_moe_audio_encoder": "uwbench.encoders.packed_towers:open_packed",
        "qwen3_omni_moe_thinker": "uwbench.encoders.packed_towers:open_packed",
        "seamless_m4t": "uwbench.encoders.mel_towers:open_mel_tower",
        "seamless_m4t_v2": "uwbench.encoders.mel_towers:open_mel_tower",
        "sew": "uwbench.encoders.wave_towers:open_wave_tower",
        "sew-d": "uwbench.encoders.wave_towers:open_wave_tower",
        "speech-encoder-decoder": "uwbench.encoders.without_encoder:refuse",
        "speech_to_text": "uwbench.encoders.mel_towers:open_mel_tower",
        "speecht5": "uwbench.encoders.wave_towers:open_wave_tower",
        "speecht5_hifigan": "uwbench.encoders.without_encoder:refuse",
        "unispeech": "uwbench.encoders.waveform:open_waveform",
        "unispeech-sat": "uwbench.encoders.waveform:open_waveform",
        "univnet": "uwbench.encoders.without_encoder:refuse",
        "vibevoice": "uwbench.encoders.vibevoice:open_vibevoice",
        "vibevoice_acoustic_tokenizer": "uwbench.encoders.vibevoice:open_vibevoice",
        "vibevoice_acoustic_tokenizer_encoder": "uwbench.encoders.vibevoice:open_vibevoice",
        "vibevoice_asr": "uwbench.encoders.vibevoice:open_vibevoice",
        "vits": "uwbench.encoders.without_encoder:refuse",
        "voxtral": "uwbench.encoders.whisper_tower:open_voxtral",
        "voxtral_encoder": "uwbench.encoders.whisper_tower:open_voxtral",
        "voxtral_realtime": "uwbench.encoders.mel_towers:open_mel_tower",
        "voxtral_realtime_encoder": "uwbench.encoders.mel_towers:open_mel_tower",
        "wav2vec2": "uwbench.encoders.waveform:open_waveform",
        "wav2vec2-bert": "uwbench.encoders.spectrogram:open_wav2vec2_bert",
        "wav2vec2-conformer": "uwbench.encoders.waveform:open_waveform",
        "wavlm": "uwbench.encoders.waveform:open_waveform",
        "wavtokenizer": "uwbench.encoders.codecs:open_codec",
        "whisper": "uwbench.encoders.whisper:open_whisper",
        "xcodec": "uwbench.encoders.codecs:open_codec",
        "xcodec2": "uwbench.encoders.codecs:open_codec",
    },
    entry_point_group="uwbench.encoder_families",
)
_MOST_NEAR = 4  # names that an error offers in place of an unknown one


def open_encoder(spec: ModelSpec) -> Encoder:
    """Return the encoder that `spec` names, its weights hashed but not loaded.

    Raises UsageError for an unknown name, InputError for a folder that is no checkpoint, EncoderError if weights are
    missing or cannot be downloaded.
    """
    described = _described(spec)
    if described is not None:
        return described
    if spec.name in ENCODERS.entries():
        return cast("Callable[[ModelSpec], Encoder]", ENCODERS.load(spec.name))(spec)
    if spec.name.startswith("hear:"):
        from uwbench.encoders.hear import open_hear

        return open_hear(spec)
    if ".py:" in spec.name:
        from uwbench.encoders.from_file import open_file

        return open_file(spec)
    folder = find_checkpoint(spec.weights or spec.name, spec, name=spec.name if spec.weights else None)
    model_type = str(folder.config.get("model_type"))
    if model_type in FAMILIES.entries():
        family = cast("Callable[[ModelFolder, ModelSpec], Encoder]", FAMILIES.load(model_type))
        try:
            encoder = family(folder, spec)
            if encoder.info.sample_rate <= 0 or encoder.info.hop_s <= 0:
                raise ValueError(f"{encoder.info.sample_rate} Hz, one frame per {encoder.info.hop_s} s")
            return encoder
        except KeyError as error:
            where = folder.path / "config.json"
            raise InputError(f"lacks {error.args[0]!r}, which a {model_type} model needs", where=where) from error
        except (TypeError, ValueError, ArithmeticError) as error:
            what = f"holds a value in its JSON files that a {model_type} model cannot have ({one_line(error)})"
            raise InputError(what, where=folder.path) from error
    from uwbench.encoders.automodel import open_automodel

    return open_automodel(folder, spec)


def _described(spec: ModelSpec) -> Encoder | None:
    """Return the encoder of a model card, a package, another interpreter or ready vectors; None if it is none."""
    path = Path(spec.name).expanduser()
    if spec.name.endswith(CARD_SUFFIXES):
        card = read_card(path)
        encoder = open_encoder(spec_of(card, path, spec))
        cast("Any", encoder).info = with_facts(encoder.info, card, path)
        return encoder
    entry = packaged(spec.name)
    if entry is not None:
        return open_packaged(entry, spec)
    if spec.python is not None:
        from uwbench.encoders.isolated import open_isolated

        return open_isolated(spec)
    if is_vector_file(path):
        from uwbench.encoders.vectors import open_vectors

        return open_vectors(spec)
    return None


def find_checkpoint(place: str, spec: ModelSpec, *, name: str | None = None) -> ModelFolder:
    """Return the checkpoint at `place`: a folder, a name of the catalogue, or a hub id.

    `name` is its name in results; by default the folder's name or `place`.
    """
    from uwbench.encoders.catalogue import CATALOGUE, related_names

    path = Path(place).expanduser()
    if path.is_dir():
        return open_folder(path, name=name or path.resolve().name)
    if place.startswith((".", "~", os.sep)):
        raise UsageError("there is no such folder", where=f"-m {place}")
    hub_ids = {entry.name: entry.hub_id for entry in CATALOGUE if entry.hub_id is not None}
    if place in hub_ids:
        return download(hub_ids[place], spec.revision, code=spec.trust_remote_code, name=name or place)
    if place.count("/") != 1:
        known = [*ENCODERS.entries(), *(entry.name for entry in CATALOGUE)]
        near = list(dict.fromkeys([*related_names(place), *close_names(place, known)]))[:_MOST_NEAR]
        listed = f"did you mean {' or '.join(near)}? " if near else ""
        other = "a folder, a hub id (owner/name), hear:MODULE or FILE.py:Class"
        remedy = f"{listed}uwbench models lists all; or pass {other}"
        raise UsageError("is no known model", where=f"-m {place}", remedy=remedy)
    return download(place, spec.revision, code=spec.trust_remote_code, name=name)
