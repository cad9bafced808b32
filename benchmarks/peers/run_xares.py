"""X-ARES's own `python -m xares.run` with torchaudio's file reading replaced: `run_xares.py ENCODER.py TASK.py ...`.

torchaudio 2.11 reads files by torchcodec, which needs FFmpeg's libraries; here soundfile reads them.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import soundfile
import torch
import torchaudio


def load(file: object, **_: object) -> tuple[torch.Tensor, int]:
    """Return samples `(channels, samples)` and their rate, as torchaudio.load does."""
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T), rate


if __name__ == "__main__":
    torchaudio.load = load
    sys.path.insert(0, str(Path.cwd()))
    runpy.run_module("xares.run", run_name="__main__", alter_sys=True)
