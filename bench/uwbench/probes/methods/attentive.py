"""The attentive probe: gated attention over the segments of each clip, then the MLP probe's head.

Gated attention is from Ilse, Tomczak and Welling (2018), "Attention-based deep multiple instance learning",
https://arxiv.org/abs/1802.04712, equation 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from uwbench.cache.segments import SEGMENTS
from uwbench.encoders.base import JOINT
from uwbench.errors import ProbeError
from uwbench.probes.data import Inputs
from uwbench.probes.methods.base import Outcomes, ProbeRun, Scored, Settings, main_metric, score_of, scored, settings_of
from uwbench.probes.methods.mlp import choose_and_train

_IN_MEMORY = 1 << 30  # bytes of segments that are read at once; more are read batch by batch


class AttentiveSettings(Settings):
    """Settings of the attentive probe; what they do not name is as for the MLP probe."""

    units: int = Field(gt=0)  # hidden units of the attention
    widths: tuple[int, ...]  # of the head; 0 is a linear one
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    batch: int = Field(gt=0)  # clips per training step; an epoch has no more steps than for the MLP probe
    train_clips: int = Field(gt=0)  # the most that the final seeds train on


def score(task: ProbeRun) -> Scored:
    """Return the score of attention over the last layer's segments, and its predictions.

    With several layers, `all layers` has that of attention over the segments of all of them.
    """
    settings = settings_of(task.protocol, "attentive", AttentiveSettings)
    if task.data.segments is None:
        remedy = "extract the task with --segments"
        raise ProbeError("the clips have no segments to attend over", where=task.data.card.name, remedy=remedy)
    *before, last = task.data.segment_layers
    layers = [*(name for name in before if name != JOINT), last]
    outcomes, chosen = _attend(task, settings, [last])
    if task.data.text is not None:
        chosen["text_encoder"] = task.data.text.encoder
    result = score_of(task, outcomes, task.protocol.metric_of_folds("attentive"), {"layer": last, **chosen})
    if len(layers) > 1:
        of_all, chosen_of_all = _attend(task, settings, layers)
        raw = {"all layers": main_metric(task, of_all, task.protocol.metric_of_folds("attentive"))}
        also = {"all_layers": {"layers": list(layers), **chosen_of_all}}
        result = result.model_copy(update={"raw": result.raw | raw, "chosen": result.chosen | also})
    return scored(task, "attentive", result, outcomes, {})


def _attend(task: ProbeRun, settings: AttentiveSettings, layers: Sequence[str]) -> tuple[Outcomes, dict[str, Any]]:
    """Return test predictions of attention over some layers, and what was chosen."""
    from uwbench.probes.search import Attention, Search

    grid = settings.model_dump(include={"widths", "learning_rates", "weight_decays", "batch"})
    search = Search(
        task.kind,
        task.protocol.mlp.model_copy(update=grid),
        task.data.card.xares,
        _inputs(task, layers),
        seed=task.seed,
        device=task.device,
        attention=Attention(settings.units, SEGMENTS, settings.train_clips),
    )
    outcomes, chosen, _ = choose_and_train(task, search, task.protocol.mlp.seeds)
    return outcomes, chosen


def _inputs(task: ProbeRun, layers: Sequence[str]) -> Inputs:
    """Return the function from clips to their vectors, float32 `(clips, layers * SEGMENTS, dim)`."""
    segments = task.data.segments
    assert segments is not None
    wanted = [task.data.segment_layers.index(layer) for layer in layers]
    n, stored, _, dim = segments.shape
    if 4 * n * stored * SEGMENTS * dim <= _IN_MEMORY:
        segments = segments[np.arange(n)]
    return lambda rows: segments[rows][:, wanted].reshape(len(rows), -1, dim)
