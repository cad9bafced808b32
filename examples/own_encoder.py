"""Your own encoder: a class of ten lines, checked, scored on the calls of `own_data.py`, and compared with log-mel.

python examples/own_encoder.py [FOLDER]
uwbench run -m examples/own_encoder.py:Motion -s mini
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

import uwbench
from own_data import make_calls


class Motion:
    """Log energy of 40 bands every 20 ms, and how energy moves up or down between neighbouring bands."""

    info = uwbench.EncoderInfo(
        name="motion",
        family="example",
        sample_rate=16_000,
        dim=79,
        layers=("motion",),
        hop_s=0.02,
        context_s=None,  # takes clips of any length
        training_data=(),  # was trained on nothing
        identity={"version": 1},  # source and state are added to it
    )

    def load(self, device: str, dtype: str) -> None:
        """Nothing to load; a model would read its weights here."""

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> uwbench.Encoded:
        padded = torch.nn.functional.pad(waveforms, (0, -waveforms.shape[1] % 320))
        power = torch.fft.rfft(padded.unflatten(1, (-1, 320))).abs()[..., 1:].unflatten(-1, (40, 4)).mean(-1)
        bands = (power + 0.1).log()
        before = torch.nn.functional.pad(bands, (0, 0, 1, 0))[:, :-1]
        motion = before[..., :-1] * bands[..., 1:] - before[..., 1:] * bands[..., :-1]
        frames = torch.cat([bands, motion], dim=-1)
        return uwbench.Encoded(frames.unsqueeze(1), valid=(-(-lengths // 320)).clamp(min=1))


def main() -> None:
    calls = make_calls(Path(sys.argv[1] if len(sys.argv) > 1 else "calls"))
    task = uwbench.load_task(calls, name="calls")

    check = uwbench.check_encoder(Motion())
    print(f"hop {1000 * check.hop_seconds:.0f} ms, problems: {', '.join(check.problems) or 'none'}\n")

    results = uwbench.evaluate(["logmel", Motion()], task)
    print(results.to_frame()[["model", "method", "score", "low", "high", "n"]].round(2), "\n")

    predictions = results.predictions_frame().query("method == 'knn'")
    for model, rows in predictions.groupby("model"):
        print(f"{model}\n{pd.crosstab(rows['truth'], rows['prediction'])}\n")

    for method in ("mlp", "knn"):
        row = uwbench.compare("motion", "logmel", method=method).to_frame().iloc[0]
        print(f"{method}: motion - logmel = {row['difference']:.2f} ({row['low']:.2f} to {row['high']:.2f})")


if __name__ == "__main__":
    main()
