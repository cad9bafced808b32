"""What the parts of `gpu.py` share: their arguments, their records, the device's clock and peak."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """A part's device, whether its shapes are tiny, its record of JSON lines and its scratch folder."""

    device: str
    tiny: bool
    path: Path
    scratch: Path

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    def record(self, what: str, **values: Any) -> None:
        """Add a measurement to the record at once, so that it is kept if the clock ends the part."""
        line = json.dumps({"what": what, **values})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def wait(self) -> None:
        """Wait until the device has finished."""
        if self.cuda:
            import torch

            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """Return how long `work` takes until the device has finished it."""
        self.wait()
        started = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - started

    def rate(self, work: Callable[[], object], at_least_s: float) -> float:
        """Return how often `work` runs a second, after one run that does not count."""
        once = self.seconds(work)
        once = min(once, self.seconds(work))
        rounds = max(1, round(at_least_s / max(once, 1e-6)))
        return rounds / self.seconds(lambda: [work() for _ in range(rounds)])

    def peak_flops(self, dtype: str) -> float:
        """Return the FLOP/s of a large matrix product: what the device reaches, not what its data sheet says."""
        import torch

        n = 512 if self.tiny else 8192
        kind = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
        a, b = (torch.randn(n, n, device=self.device, dtype=kind) for _ in range(2))
        return 2 * n**3 * self.rate(lambda: a @ b, 0.05 if self.tiny else 0.5)


def part(description: str | None, **choices: list[str]) -> tuple[Part, argparse.Namespace]:
    """Parse the arguments of a part; `choices` are positional arguments of its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, values in choices.items():
        parser.add_argument(name, choices=values)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="a folder with esc10/ or fsdd/ and their manifest.csv")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    return Part(options.device, options.tiny, options.record, options.scratch), options
