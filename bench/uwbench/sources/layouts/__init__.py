"""Layouts: how to find and read datasets as their publishers ship them, unpacked.

A layout recognises the dataset's root folder and reads its label files. It also says what can be learned from a file's
name alone, which is all that X-ARES's shards keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from uwbench.base.registry import Registry

if TYPE_CHECKING:
    from uwbench.sources.layouts.base import Layout

LAYOUTS = Registry(
    "layout",
    {
        "asvspoof2015": "uwbench.sources.layouts.speech:ASVSPOOF2015",
        "clotho": "uwbench.sources.layouts.sound:CLOTHO",
        "cremad": "uwbench.sources.layouts.emotion:CREMAD",
        "desed": "uwbench.sources.layouts.sound:DESED",
        "esc50": "uwbench.sources.layouts.sound:ESC50",
        "fluentspeechcommands": "uwbench.sources.layouts.speech:FLUENT_SPEECH_COMMANDS",
        "fma_small": "uwbench.sources.layouts.music:FMA_SMALL",
        "fsd50k": "uwbench.sources.layouts.sound:FSD50K",
        "fsdkaggle2018": "uwbench.sources.layouts.sound:FSDKAGGLE2018",
        "gtzan": "uwbench.sources.layouts.music:GTZAN",
        "libricount": "uwbench.sources.layouts.libri:LIBRICOUNT",
        "librispeech_asr": "uwbench.sources.layouts.libri:LIBRISPEECH_ASR",
        "librispeech_mf": "uwbench.sources.layouts.libri:LIBRISPEECH_MF",
        "maestro": "uwbench.sources.layouts.music:MAESTRO",
        "nsynth": "uwbench.sources.layouts.music:NSYNTH",
        "ravdess": "uwbench.sources.layouts.emotion:RAVDESS",
        "speechcommands_v1": "uwbench.sources.layouts.speech:SPEECHCOMMANDS_V1",
        "urbansound8k": "uwbench.sources.layouts.sound:URBANSOUND8K",
        "vocalimitation": "uwbench.sources.layouts.voices:VOCALIMITATION",
        "vocalsound": "uwbench.sources.layouts.voices:VOCALSOUND",
        "voxceleb1": "uwbench.sources.layouts.voices:VOXCELEB1",
        "voxlingua33": "uwbench.sources.layouts.voices:VOXLINGUA33",
    },
)


def load_layout(name: str) -> Layout:
    """Return the layout called `name`; raise UsageError if there is none."""
    return cast("Layout", LAYOUTS.load(name))
