"""The catalogue of models known by name, which `uwbench models` lists.

`parameters` counts the encoder alone, in transformers' model of the published configuration. Facts come from model
cards and papers; what these do not state is "unknown". `tasks/lineage/models.yaml` lists training data by dataset.

`verified` says what the tests run: the published model itself ("weights"), a small model of its class with random
weights against a direct call of transformers ("random"), or nothing ("not run"). Models that packages run
(`catalogue_packages.py`) are run by `benchmarks/packages.py` instead, against a direct call of the package.
"""

from __future__ import annotations

import re

from uwbench.encoders.base import CatalogueEntry, Verified
from uwbench.encoders.catalogue_packages import PACKAGED

_UNKNOWN = "unknown"
_LIBRISPEECH = "LibriSpeech 960 h"
_LIBRI_LIGHT = "Libri-Light 60k h"
_XLSR_53 = "56k h of speech in 53 languages"
_XLS_R = "436k h of speech in 128 languages"
_MMS = "491k h of speech in 1,406 languages, in part not public"
_WAVLM = "Libri-Light 60k h, GigaSpeech 10k h, VoxPopuli 24k h"
_UNISPEECH = "of microsoft/UniSpeech"
# Whisper's model card: 680,000 h; large-v3: 1M h weakly labelled and 4M h pseudo-labelled.
_WEB = "680k h of labelled web audio (not public)"
_WEB_ENGLISH = "the English part of 680k h of labelled web audio (not public)"
_WEB_V3 = "1M h weakly and 4M h pseudo-labelled web audio (not public)"
_MOONSHINE = "about 200k h of speech, in part not public"
_WIDTHS = {4: 384, 6: 512, 12: 768, 24: 1024, 32: 1280}  # encoder layers -> width


def _whisper_parameters(layers: int, mels: int) -> int:
    """Return the parameter count of Whisper's encoder: convolutions, positions, blocks, final norm."""
    width = _WIDTHS[layers]
    convolutions = (3 * mels * width + width) + (3 * width * width + width)
    return convolutions + 1500 * width + layers * (12 * width * width + 12 * width) + 2 * width


def _whisper(
    size: str,
    layers: int,
    *,
    mels: int = 80,
    licence: str = "Apache-2.0",
    data: str = _WEB,
    verified: Verified = "random",
) -> CatalogueEntry:
    name = f"whisper-{size}"
    count = _whisper_parameters(layers, mels)
    return CatalogueEntry(
        name, "whisper", f"openai/{name}", count, 16_000, 30.0, 0.02, layers + 1, licence, data, verified
    )


def _distil(size: str, layers: int, mels: int, data: str) -> CatalogueEntry:
    name, count = f"distil-{size}", _whisper_parameters(layers, mels)
    text = f"encoder of Whisper, frozen: {data}"
    return CatalogueEntry(name, "whisper", f"distil-whisper/{name}", count, 16_000, 30.0, 0.02, layers + 1, "MIT", text)


def _waveform(
    name: str, family: str, owner: str, layers: int, licence: str, data: str, size: int, *, hop_s: float = 0.02
) -> CatalogueEntry:
    return CatalogueEntry(name, family, f"{owner}/{name}", size, 16_000, None, hop_s, layers + 1, licence, data)


def _known(
    name: str,
    family: str,
    hub_id: str,
    size: int | None,
    hop_s: float,
    layers: int,
    licence: str = _UNKNOWN,
    data: str = _UNKNOWN,
    *,
    context_s: float | None = None,
    rate: int = 16_000,
    verified: Verified = "random",
    texts: bool = False,
) -> CatalogueEntry:
    """Return a model of a family whose sizes are the defaults of its class; `layers` counts every one it returns."""
    return CatalogueEntry(
        name, family, hub_id, size, rate, context_s, hop_s, layers, licence, data, verified, texts=texts
    )


CATALOGUE: tuple[CatalogueEntry, ...] = (
    CatalogueEntry("logmel", "logmel", None, 0, 16_000, None, 0.01, 1, "Apache-2.0", "none", "weights"),
    CatalogueEntry("mfcc", "mfcc", None, 0, 16_000, None, 0.01, 1, "Apache-2.0", "none", "weights"),
    CatalogueEntry("uniwhisper", "uniwhisper", None, None, 16_000, 30.0, 0.02, 0, _UNKNOWN, "as its export says"),
    _whisper("tiny", 4),
    _whisper("tiny.en", 4, data=_WEB_ENGLISH, verified="weights"),
    _whisper("base", 6),
    _whisper("base.en", 6, data=_WEB_ENGLISH),
    _whisper("small", 12),
    _whisper("small.en", 12, data=_WEB_ENGLISH),
    _whisper("medium", 24),
    _whisper("medium.en", 24, data=_WEB_ENGLISH),
    _whisper("large", 32),
    _whisper("large-v2", 32),
    _whisper("large-v3", 32, mels=128, data=_WEB_V3),
    _whisper("large-v3-turbo", 32, mels=128, licence="MIT", data=_WEB_V3),
    _distil("small.en", 12, 80, _WEB_ENGLISH),
    _distil("medium.en", 24, 80, _WEB_ENGLISH),
    _distil("large-v2", 32, 80, _WEB),
    _distil("large-v3", 32, 128, _WEB_V3),
    _waveform("wav2vec2-base", "wav2vec2", "facebook", 12, "Apache-2.0", _LIBRISPEECH, 94_370_944),
    _waveform("wav2vec2-large-lv60", "wav2vec2", "facebook", 24, "Apache-2.0", _LIBRI_LIGHT, 315_437_696),
    _waveform("wav2vec2-large-xlsr-53", "wav2vec2", "facebook", 24, "Apache-2.0", _XLSR_53, 315_437_696),
    _waveform("wav2vec2-xls-r-300m", "wav2vec2", "facebook", 24, "Apache-2.0", _XLS_R, 315_437_696),
    _waveform("wav2vec2-xls-r-1b", "wav2vec2", "facebook", 48, "Apache-2.0", _XLS_R, 962_496_128),
    _waveform("wav2vec2-xls-r-2b", "wav2vec2", "facebook", 48, "Apache-2.0", _XLS_R, 2_159_257_728),
    _waveform("mms-300m", "wav2vec2", "facebook", 24, "CC BY-NC 4.0", _MMS, 315_437_696),
    _waveform("mms-1b", "wav2vec2", "facebook", 48, "CC BY-NC 4.0", _MMS, 962_496_128),
    _waveform("hubert-base-ls960", "hubert", "facebook", 12, "Apache-2.0", _LIBRISPEECH, 94_370_944),
    _waveform("hubert-large-ll60k", "hubert", "facebook", 24, "Apache-2.0", _LIBRI_LIGHT, 315_437_696),
    _waveform("hubert-xlarge-ll60k", "hubert", "facebook", 48, "Apache-2.0", _LIBRI_LIGHT, 962_496_128),
    _waveform("wavlm-base", "wavlm", "microsoft", 12, _UNISPEECH, _LIBRISPEECH, 94_381_168),
    _waveform("wavlm-base-plus", "wavlm", "microsoft", 12, _UNISPEECH, _WAVLM, 94_381_168),
    _waveform("wavlm-large", "wavlm", "microsoft", 24, _UNISPEECH, _WAVLM, 315_452_096),
    _waveform("data2vec-audio-base", "data2vec-audio", "facebook", 12, "Apache-2.0", _LIBRISPEECH, 93_163_520),
    _waveform("unispeech-sat-base", "unispeech-sat", "microsoft", 12, _UNISPEECH, _LIBRISPEECH, 94_370_944),
    _waveform(
        "wav2vec2-conformer-rel-pos-large",
        "wav2vec2-conformer",
        "facebook",
        24,
        "Apache-2.0",
        _LIBRISPEECH,
        618_558_080,
    ),
    _waveform(
        "w2v-bert-2.0", "wav2vec2-bert", "facebook", 24, "MIT", "4.5M h of unlabelled speech (not public)", 580_492_096
    ),
    _waveform("moonshine-tiny", "moonshine", "UsefulSensors", 6, "MIT", _MOONSHINE, 7_681_248, hop_s=0.024),
    _waveform("moonshine-base", "moonshine", "UsefulSensors", 8, "MIT", _MOONSHINE, 20_153_120, hop_s=0.024),
    _waveform(
        "parakeet-ctc-1.1b", "parakeet", "nvidia", 42, "CC BY 4.0", "64k h of English speech", 1_061_489_664, hop_s=0.08
    ),
    CatalogueEntry(
        "ast-audioset",
        "audio-spectrogram-transformer",
        "MIT/ast-finetuned-audioset-10-10-0.4593",
        86_187_264,
        16_000,
        10.24,
        0.1,
        13,
        "BSD-3-Clause",
        "AudioSet, from ImageNet weights",
    ),
    CatalogueEntry(
        "clap-htsat-unfused",
        "clap",
        "laion/clap-htsat-unfused",
        27_534_488,
        48_000,
        10.0,
        0.3125,
        1,
        "Apache-2.0",
        "LAION-Audio-630K with captions",
        texts=True,
    ),
    CatalogueEntry(
        "qwen2-audio",
        "qwen2_audio",
        "Qwen/Qwen2-Audio-7B",
        _whisper_parameters(32, 128),
        16_000,
        30.0,
        0.04,
        33,
        "Apache-2.0",
        "Whisper large-v3's, and undisclosed audio",
    ),
    CatalogueEntry(
        "audio-flamingo-3",
        "audioflamingo3",
        "nvidia/audio-flamingo-3-hf",
        _whisper_parameters(32, 128),
        16_000,
        30.0,
        0.04,
        33,
        "NVIDIA, non-commercial",
        "Whisper large-v3's, AudioSkills-XL, LongAudio-XL, AF-Chat",
    ),
    CatalogueEntry(
        "music-flamingo",
        "musicflamingo",
        "nvidia/music-flamingo-2601-hf",
        _whisper_parameters(32, 128),
        16_000,
        30.0,
        0.04,
        33,
        _UNKNOWN,
        "Audio Flamingo 3's, and undisclosed music",
    ),
    CatalogueEntry(
        "voxtral-mini-3b",
        "voxtral",
        "mistralai/Voxtral-Mini-3B-2507",
        _whisper_parameters(32, 128),
        16_000,
        30.0,
        0.02,
        33,
        "Apache-2.0",
        "Whisper large-v3's, and undisclosed audio",
    ),
    CatalogueEntry(
        "encodec-24khz",
        "encodec",
        "facebook/encodec_24khz",
        7_425_792,
        24_000,
        None,
        320 / 24_000,
        1,
        _UNKNOWN,
        "DNS challenge, Common Voice, AudioSet, FSD50K, Jamendo, and music that is not public",
    ),
    _known(
        "mhubert-147",
        "hubert",
        "utter-project/mHuBERT-147",
        94_370_944,
        0.02,
        13,
        "CC BY-NC-SA 4.0",
        "90k h of speech in 147 languages",
    ),
    _known(
        "clap-htsat-fused",
        "clap",
        "laion/clap-htsat-fused",
        27_549_128,
        0.3125,
        1,
        "Apache-2.0",
        "LAION-Audio-630K with captions",
        context_s=10.0,
        rate=48_000,
        texts=True,
    ),
    *(
        _known(name, "clap", f"laion/{hub}", None, 0.3125, 1, data=data, context_s=10.0, rate=48_000, texts=True)
        for name, hub, data in (
            ("larger-clap-general", "larger_clap_general", "general audio, music and speech with captions"),
            ("larger-clap-music", "larger_clap_music", "music with captions"),
            ("larger-clap-music-and-speech", "larger_clap_music_and_speech", "music and speech with captions"),
        )
    ),
    *(
        _known(f"qwen2.5-omni-{size}", "qwen2_5_omni", f"Qwen/Qwen2.5-Omni-{size.upper()}", 639_647_232, 0.04, 33)
        for size in ("3b", "7b")
    ),
    *(
        _known(f"qwen3-omni{end}", "qwen3_omni_moe", f"Qwen/Qwen3-Omni-30B-A3B-{hub}", 649_894_784, 1 / 13, 33)
        for end, hub in (("", "Instruct"), ("-captioner", "Captioner"))
    ),
    _known("qwen3-asr-1.7b", "qwen3_asr", "Qwen/Qwen3-ASR-1.7B-hf", 314_328_704, 1 / 13, 25),
    _known("glm-asr-nano", "glmasr", "zai-org/GLM-ASR-Nano-2512", 635_048_960, 0.02, 33, context_s=30.0),
    _known("gemma-3n-e4b", "gemma3n", "google/gemma-3n-E4B", 681_348_640, 0.16, 13, context_s=30.0),
    _known("gemma-4-e2b", "gemma4", "google/gemma-4-e2b-it", 304_824_608, 0.04, 13, context_s=30.0),
    _known(
        "voxtral-mini-4b-realtime",
        "voxtral_realtime",
        "mistralai/Voxtral-Mini-4B-Realtime-2602",
        970_395_392,
        0.02,
        33,
        "Apache-2.0",
    ),
    _known(
        "nemotron-streaming-0.6b",
        "nemotron_asr_streaming",
        "nvidia/nemotron-speech-streaming-en-0.6b",
        608_011_264,
        0.08,
        25,
    ),
    _known("canary-1b-v2", "canary", "nvidia/canary-1b-v2", 810_984_448, 0.08, 33, "CC BY 4.0"),
    _known(
        "cohere-transcribe",
        "cohere_asr",
        "CohereLabs/cohere-transcribe-03-2026",
        1_895_339_264,
        0.08,
        49,
        context_s=30.0,
    ),
    _known("medasr", "lasr", "google/medasr", 105_002_752, 0.04, 18),
    _known(
        "seamless-m4t-v2-large",
        "seamless_m4t_v2",
        "facebook/seamless-m4t-v2-large",
        635_046_720,
        0.02,
        25,
        "CC BY-NC 4.0",
        "w2v-BERT 2.0's, and translated speech",
    ),
    *(
        _known(
            f"omniasr-{kind}-300m",
            "omniasr",
            f"hf-audio/omniasr-{kind}-300m-v2",
            315_437_568,
            0.02,
            25,
            data="speech in 1,600 languages",
        )
        for kind in ("ctc", "llm")
    ),
    _known(
        "moonshine-streaming-tiny",
        "moonshine_streaming",
        "UsefulSensors/moonshine-streaming-tiny",
        9_461_121,
        0.02,
        7,
        "MIT",
    ),
    _known("pe-a-frame-large", "pe_audio", "facebook/pe-a-frame-large", 282_057_664, 0.04, 7, rate=48_000, texts=True),
    _known("sew-tiny-100k", "sew", "asapp/sew-tiny-100k", None, 0.02, 13, "Apache-2.0", _LIBRISPEECH),
    _known("sew-d-tiny-100k", "sew-d", "asapp/sew-d-tiny-100k", None, 0.02, 13, "Apache-2.0", _LIBRISPEECH),
    _known("speecht5-asr", "speecht5", "microsoft/speecht5_asr", 94_391_424, 0.02, 13, "MIT", _LIBRISPEECH),
    _known("mimi", "mimi", "kyutai/mimi", 79_308_609, 0.08, 10, "CC BY 4.0", rate=24_000),
    _known(
        "dac-16khz",
        "dac",
        "descript/dac_16khz",
        None,
        0.02,
        1,
        "MIT",
        "DAPS, DNS challenge, Common Voice, VCTK, MUSDB, Jamendo, AudioSet",
    ),
    _known(
        "wavtokenizer-large",
        "wavtokenizer",
        "swiss-ai/wavtokenizer-large-unify-40token",
        72_111_714,
        0.025,
        1,
        rate=24_000,
    ),
    _known(
        "xcodec-hubert-librispeech",
        "xcodec",
        "hf-audio/xcodec-hubert-librispeech",
        160_697_857,
        0.02,
        1,
        data="HuBERT's, and LibriSpeech",
    ),
    _known(
        "moss-transcribe-diarize",
        "moss_transcribe_diarize",
        "hf-audio/MOSS-Transcribe-Diarize-HF",
        307_216_384,
        0.02,
        25,
        context_s=30.0,
    ),
    _known(
        "nemotron-3-diarization",
        "nemotron3_diarization",
        "nvidia/Nemotron-3-Diarization",
        98_202_624,
        0.08,
        32,
        context_s=27.2,
    ),
    _known(
        "nemotron-3.5-asr-streaming-0.6b",
        "nemotron_asr_streaming",
        "nvidia/nemotron-3.5-asr-streaming-0.6b",
        608_011_264,
        0.08,
        25,
    ),
    _known(
        "nemotron-3-nano-omni",
        "nemotron_h_omni",
        "nvidia/Nemotron-3-Nano-Omni-30B-A3B-Reasoning-BF16",
        None,
        0.08,
        25,
    ),
    _known("dots3-note", "dots3_note", "dots-studio/dots3-note-prev", 886_199_680, 0.08, 33, context_s=60.0),
    _known("muse-spark", "muse_spark", "meta-models/Muse-Spark-Open-816B-A42B", 117_840_384, 0.08, 1, rate=24_000),
    _known("embedding-gemma-2", "gemma4", "google/embeddinggemma-2", 304_824_608, 0.04, 13, context_s=30.0),
    _known("pe-av-large", "pe_audio", "facebook/pe-av-large", 282_057_664, 0.04, 7, rate=48_000),
    _known(
        "s2t-small-librispeech",
        "speech_to_text",
        "facebook/s2t-small-librispeech-asr",
        17_503_232,
        0.04,
        13,
        "MIT",
        _LIBRISPEECH,
        context_s=60.0,
    ),
    _known(
        "nemotron-3.5-transcribe",
        "nemotron3_5_transcribe",
        "nvidia/NVIDIA-Nemotron-3.5-Transcribe-30B-A4B",
        630_887_424,
        0.08,
        33,
        context_s=40.0,
    ),
    _known("kyutai-stt-2.6b-en", "mimi", "kyutai/stt-2.6b-en-trfs", 79_308_609, 0.08, 10, rate=24_000),
    _known("csm-1b", "mimi", "sesame/csm-1b", 79_308_609, 0.08, 10, rate=24_000),
    _known("musicgen-small", "encodec", "facebook/musicgen-small", None, 0.02, 1, rate=32_000),
    _known("apertus-1.5-8b", "wavtokenizer", "swiss-ai/Apertus-v1.5-8B", 12_501_505, 0.025, 1, rate=24_000),
    _known(
        "pocket-tts-tokenizer",
        "pocket_tts_audio_tokenizer",
        "eustlb/pocket-tts-audio-tokenizer",
        20_054_337,
        0.08,
        3,
        rate=24_000,
    ),
    *(
        _known(name, "vibevoice", hub_id, 688_309_632, 3_200 / 24_000, 1, rate=24_000)
        for name, hub_id in (
            ("vibevoice-1.5b", "vibevoice/VibeVoice-1.5B-hf"),
            ("vibevoice-asr", "microsoft/VibeVoice-ASR-HF"),
        )
    ),
    # The next seven or their extractors need torchaudio, which the tests do without.
    *(
        _known(name, family, hub_id, size, hop_s, layers, licence, verified="not run")
        for name, family, hub_id, size, hop_s, layers, licence in (
            (
                "granite-speech-3.3-2b",
                "granite_speech",
                "ibm-granite/granite-speech-3.3-2b",
                None,
                0.02,
                11,
                "Apache-2.0",
            ),
            (
                "granite-speech-4.1-2b-plus",
                "granite_speech_plus",
                "ibm-granite/granite-speech-4.1-2b-plus",
                None,
                0.02,
                11,
                _UNKNOWN,
            ),
            (
                "granite-speech-5.0-470m",
                "granite_speech5",
                "ibm-granite/granite-speech-5.0-470m-turboctc",
                472_928_256,
                0.08,
                17,
                _UNKNOWN,
            ),
            ("fun-asr-nano", "fun_asr_nano", "FunAudioLLM/Fun-ASR-Nano-2512-hf", 221_136_992, 0.06, 70, _UNKNOWN),
            ("xcodec2", "xcodec2", "HKUSTAudio/xcodec2-hf", 629_280_682, 0.02, 1, _UNKNOWN),
            ("neucodec", "neucodec", "neuphonic/neucodec", 629_936_682, 0.02, 1, _UNKNOWN),
        )
    ),
    _known(
        "higgs-audio-v2-tokenizer",
        "higgs_audio_v2_tokenizer",
        "bosonai/higgs-audio-v2-tokenizer",
        None,
        0.04,
        1,
        rate=24_000,
        verified="not run",
    ),
    # These need --trust-remote-code. Their sizes are those stated in their papers.
    CatalogueEntry(
        "mert-95m",
        "remote code",
        "m-a-p/MERT-v1-95M",
        95_000_000,
        24_000,
        None,
        320 / 24_000,
        13,
        "CC BY-NC 4.0",
        "20k h of music (not public)",
        "not run",
    ),
    CatalogueEntry(
        "mert-330m",
        "remote code",
        "m-a-p/MERT-v1-330M",
        330_000_000,
        24_000,
        None,
        320 / 24_000,
        25,
        "CC BY-NC 4.0",
        "160k h of music (not public)",
        "not run",
    ),
    *PACKAGED,
)


def hub_page(hub_id: str) -> str:
    """Return the address of a model's page on the Hugging Face hub."""
    return f"https://huggingface.co/{hub_id}"


def related_names(name: str) -> list[str]:
    """Return the models whose package, family or repository on the hub is called `name`, or whose name begins so."""
    wanted = _folded(name)
    by_word = [entry.name for entry in CATALOGUE if wanted in map(_folded, _other_names(entry))]
    return [*by_word, *(entry.name for entry in CATALOGUE if _folded(entry.name).startswith(wanted))] if wanted else []


def _other_names(entry: CatalogueEntry) -> list[str]:
    packages = [re.split(r"[^\w.-]", word)[0] for word in (entry.package or "").split()[:1]]
    return [entry.family, *packages, *([entry.hub_id.partition("/")[2]] if entry.hub_id else [])]


def _folded(name: str) -> str:
    return re.sub(r"[-_.]", "", name.casefold())
