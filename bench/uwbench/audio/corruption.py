"""The names of corruptions: noise, reverberation, codecs, a lost band, another level. `corrupt` applies them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from uwbench.base.hashing import digest
from uwbench.base.registry import suggestion
from uwbench.errors import UsageError

# Part of the key of every corrupted clip: raise it when a change of `corrupt` alters samples.
VERSION = 1

COLOURS = ("white", "pink", "brown")
ROOMS = ("small", "medium", "large")
CODECS = ("mp3-32k", "mp3-64k", "mp3-128k", "opus-8k", "opus-16k", "opus-32k", "vorbis-q0", "vorbis-q5")

SETS = {
    "standard": (
        *(f"noise:{level}dB" for level in (30, 20, 10, 0)),
        *("noise:pink:10dB", "noise:brown:10dB", "reverb:small", "reverb:medium", "reverb:large"),
        *("codec:mp3-32k", "codec:opus-16k", "band:4k", "gain:-20dB"),
    )
}
_FORMS = {
    "noise": f"noise:[{'|'.join(COLOURS)}:]LEVELdB",
    "reverb": f"reverb:{'|'.join(ROOMS)}",
    "codec": f"codec:{'|'.join(CODECS)}",
    "band": "band:KHZk",
    "gain": "gain:LEVELdB",
}
HELP = f"{', '.join(_FORMS.values())}; or the set {', '.join(SETS)}"
_LEVELS_DB = {"noise": (-20.0, 100.0), "gain": (-60.0, 60.0)}
_BAND_KHZ = (0.5, 24.0)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Corruption:
    """One corruption: its kind, which colour, room or codec, and how much (dB, or kHz of `band`)."""

    kind: str
    variant: str = ""
    amount: float = 0.0

    @property
    def name(self) -> str:
        """The one name it has in options, results and the cache: `noise:10dB`, `noise:pink:10dB`, `band:4k`."""
        match self.kind:
            case "noise" | "gain":
                return ":".join([self.kind, *([self.variant] if self.variant else []), f"{self.amount:g}dB"])
            case "band":
                return f"band:{self.amount:g}k"
            case _:
                return f"{self.kind}:{self.variant}"

    @property
    def file_name(self) -> str:
        """The name as part of a file's name; `corruption_of_file` reads it."""
        return self.name.replace(":", "_")

    def key(self, clip_key: bytes) -> bytes:
        """Return the 32-byte key of the corrupted clip whose clean audio has the key `clip_key`."""
        return bytes.fromhex(digest(["corrupted", clip_key.hex(), self.name, VERSION]))


def parse_corruptions(texts: Iterable[str]) -> tuple[Corruption, ...]:
    """Return the corruptions that the texts name, sets replaced by their members, each once.

    Raises UsageError for a name, a level or a form that there is not.
    """
    names = [name for text in texts for name in SETS.get(text, (text,))]
    return tuple({corruption.name: corruption for corruption in map(_parse, names)}.values())


def corruption_of_file(text: str) -> Corruption | None:
    """Return the corruption whose `file_name` is `text`; None if it is none."""
    try:
        return _parse(text.replace("_", ":"))
    except UsageError:
        return None


def _parse(text: str) -> Corruption:
    kind, mark, rest = text.partition(":")
    if kind not in _FORMS or not mark:
        remedy = f"use {_FORMS[kind]}" if kind in _FORMS else suggestion(kind, [*_FORMS, *SETS])
        raise UsageError(f"{text!r} is no corruption", where="--corrupt", remedy=f"{remedy}; known: {HELP}")
    if kind in ("reverb", "codec"):
        known = CODECS if kind == "codec" else ROOMS
        if rest not in known:
            what = f"{text!r} is no corruption"
            raise UsageError(what, where="--corrupt", remedy=f"{suggestion(rest, known)}; use {_FORMS[kind]}")
        return Corruption(kind, rest)
    colour, mark, level = rest.rpartition(":")
    if kind == "noise" and mark and colour not in COLOURS:
        remedy = f"{suggestion(colour, COLOURS)}; use {_FORMS[kind]}"
        raise UsageError(f"{text!r}: no noise is {colour!r}", where="--corrupt", remedy=remedy)
    unit, (least, most) = ("k", _BAND_KHZ) if kind == "band" else ("dB", _LEVELS_DB[kind])
    number = level.removesuffix(unit)
    if (mark and kind != "noise") or number == level or not _NUMBER.fullmatch(number):
        raise UsageError(f"{text!r} is no corruption", where="--corrupt", remedy=f"use {_FORMS[kind]}")
    if not least <= float(number) <= most:
        raise UsageError(f"{text!r} is not between {least:g} and {most:g} {unit}", where="--corrupt")
    return Corruption(kind, "" if colour == "white" else colour, float(number) + 0.0)
