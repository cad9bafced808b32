"""The models known by name: what `uwbench models` lists."""

from __future__ import annotations

from uwbench.encoders.base import CatalogueEntry

_UNKNOWN = "unknown"
# OpenAI's model card: 680,000 h of labelled audio from the web; large-v3 saw 1M h weakly and 4M h pseudo-labelled.
_WEB = "680k h of labelled web audio (OpenAI; not public)"
_WEB_ENGLISH = "the English part of 680k h of labelled web audio (OpenAI; not public)"
_WEB_V3 = "1M h weakly labelled and 4M h pseudo-labelled web audio (OpenAI; not public)"


def _whisper(size: str, layers: int, licence: str = "Apache-2.0", data: str = _WEB) -> CatalogueEntry:
    name = f"whisper-{size}"
    return CatalogueEntry(name, "whisper", f"openai/{name}", None, 16_000, 30.0, 0.02, layers + 1, licence, data)


CATALOGUE: tuple[CatalogueEntry, ...] = (
    CatalogueEntry("logmel", "logmel", None, 0, 16_000, None, 0.01, 1, "Apache-2.0", "none"),
    CatalogueEntry("mfcc", "mfcc", None, 0, 16_000, None, 0.01, 1, "Apache-2.0", "none"),
    CatalogueEntry("uniwhisper", "uniwhisper", None, None, 16_000, 30.0, 0.02, 33, _UNKNOWN, "as its export says"),
    _whisper("tiny", 4),
    _whisper("tiny.en", 4, data=_WEB_ENGLISH),
    _whisper("base", 6),
    _whisper("base.en", 6, data=_WEB_ENGLISH),
    _whisper("small", 12),
    _whisper("small.en", 12, data=_WEB_ENGLISH),
    _whisper("medium", 24),
    _whisper("medium.en", 24, data=_WEB_ENGLISH),
    _whisper("large", 32),
    _whisper("large-v2", 32),
    _whisper("large-v3", 32, data=_WEB_V3),
    _whisper("large-v3-turbo", 32, licence="MIT", data=_WEB_V3),
)
