"""Models that take or make audio without an encoder to measure, and why: opening one says so."""

from __future__ import annotations

from uwbench.encoders.base import Encoder, ModelFolder, ModelSpec
from uwbench.errors import EncoderError

_SPEAKS = "makes speech from text"
_VOCODER = "makes waveforms from spectrograms"
_DAC = "measure the codec whose codes it takes, a model of its own (DAC)"
_POCKET = "measure the codec whose latents it takes, a model of its own (pocket_tts_audio_tokenizer)"
# By model type: what the model does, and what to measure in its place.
_REASONS: dict[str, tuple[str, str | None]] = {
    "bark": (_SPEAKS, "measure the codec whose codes it makes, a model of its own (EnCodec)"),
    "clvp": ("compares text with the codes of a speech model", None),
    "dia": (_SPEAKS, _DAC),
    "fastspeech2_conformer": (_SPEAKS, None),
    "fastspeech2_conformer_hifigan": (_VOCODER, None),
    "fastspeech2_conformer_with_hifigan": (_SPEAKS, None),
    "gemma4_unified": ("feeds its language model groups of 640 samples", None),
    "gemma4_unified_audio": ("feeds its language model groups of 640 samples", None),
    "gradium_phonon_tts": (_SPEAKS, _POCKET),
    "higgs_audio_v2": (
        _SPEAKS,
        "measure the codec whose codes it takes, a model of its own (higgs_audio_v2_tokenizer)",
    ),
    "inkling_audio": ("feeds its language model quantised mel bands", None),
    "inkling_mm_model": ("feeds its language model quantised mel bands", None),
    "pocket_tts": (_SPEAKS, _POCKET),
    "pop2piano": ("feeds a text-to-text model the spectrogram of each beat", None),
    "speech-encoder-decoder": (
        "joins an encoder of any family to a decoder",
        "save the encoder alone: model.encoder.save_pretrained(FOLDER), with its feature extractor",
    ),
    "speecht5_hifigan": (_VOCODER, None),
    "univnet": (_VOCODER, None),
    "vits": (_SPEAKS, None),
}


def refuse(folder: ModelFolder, _spec: ModelSpec) -> Encoder:
    """Raise EncoderError with the reason why there is nothing to measure."""
    model_type = str(folder.config["model_type"])
    what, remedy = _REASONS[model_type]
    raise EncoderError(
        f"is a {model_type} model, which has no audio encoder: it {what}", where=folder.path, remedy=remedy
    )
