"""A model of a run: an encoder that is loaded when it is needed, and its text tower."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uwbench.encoders.base import Encoder, ModelSpec, TextTower
from uwbench.options import ExtractOptions
from uwbench.progress import Reporter

if TYPE_CHECKING:
    from uwbench.extraction.plan import Plan


@dataclass(slots=True)
class Model:
    """An encoder of a run, whose weights are loaded when its first clip is encoded."""

    encoder: Encoder
    spec: ModelSpec | None  # None: the caller made the encoder
    load_s: float | None = None  # None: not loaded
    texts: TextTower | None = None  # opened if a method needs it
    no_texts: str | None = None  # why, if it has none

    def load(self, plan: Plan, options: ExtractOptions, device: str, reporter: Reporter) -> None:
        """Load the weights unless they are; below fp32, measure and report how far from fp32 the encoder is."""
        if self.load_s is not None:
            return
        started = time.perf_counter()
        reporter.note(f"loading {self.encoder.info.name} on {device} in {options.dtype}")
        if options.dtype == "fp32":
            self.encoder.load(device, options.dtype)
        else:
            from uwbench.extraction.extract import settings_for
            from uwbench.extraction.precision import measure_parity

            settings = settings_for(device, options.batch_seconds, options.workers)
            reporter.note(f"{options.dtype} {measure_parity(self.encoder, plan, settings, options.dtype)}")
        self.load_s = time.perf_counter() - started
