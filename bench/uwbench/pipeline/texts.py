"""Text towers: which models of a run have one, and the texts of a task embedded by it, for zero-shot methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from uwbench.errors import EncoderError, UsageError
from uwbench.methods import needing_texts
from uwbench.pipeline.model import Model
from uwbench.pipeline.scoring import Scoring

if TYPE_CHECKING:
    from uwbench.cache.clip_table import ClipTable
    from uwbench.cache.store import EncoderStore
    from uwbench.extraction.plan import Plan


def open_texts(models: Sequence[Model], named: Iterable[str], layers: str) -> None:
    """Give each model its text tower, or the reason why it has none; raise UsageError if none has what was asked for.

    If no method that needs one is among the `named`, as under `--method all`, models without one get a note.
    """
    from uwbench.encoders.text_towers import text_tower_of
    from uwbench.extraction.identity import layer_indices

    for model in models:
        info = model.encoder.info
        try:
            tower = text_tower_of(model.encoder)
        except EncoderError as error:
            model.no_texts = str(error)
            continue
        if info.layers.index(tower.layer) > layer_indices(info, layers)[-1]:
            what = f"its clips meet texts in the layer {tower.layer!r}, which is not among --layers {layers}"
            model.no_texts = f"{info.name}: {what}"
            continue
        model.texts = tower
    require_texts([model.no_texts for model in models if model.no_texts is not None], len(models), named)


def require_texts(reasons: Sequence[str], models: int, named: Iterable[str]) -> None:
    """Raise UsageError with the first reason if no model has a text tower and a method was named that needs one."""
    needing = needing_texts(named)
    if needing and reasons and len(reasons) == models:
        remedy = "name a model with a text tower, such as CLAP, or an encoder of yours that defines encode_text"
        raise UsageError(reasons[0], where=f"--method {needing[0]}", remedy=remedy)


def embed_task_texts(
    model: Model, plan: Plan, scoring: Scoring, methods: list[str], device: str
) -> tuple[list[str], tuple[str, ...]]:
    """Put the texts that methods need into the cache; return the methods that can run, and what failed.

    A failure costs no score but those of these methods.
    """
    asking = needing_texts(methods)
    if model.texts is None or not asking:
        return methods, ()
    from uwbench.probes.joint import embed_texts
    from uwbench.probes.methods.zero_shot import texts_of

    try:
        embed_texts(plan.store, model.texts, texts_of(plan.task.table, scoring.protocol), device)
    except EncoderError as error:
        where = f"{model.encoder.info.name}, {plan.task.card.name}, {asking[0]}"
        return [name for name in methods if name not in asking], (f"{where}: {error}",)
    return methods, ()


def why_no_texts(store: EncoderStore, table: ClipTable, scoring: Scoring) -> str | None:
    """Return why the cache cannot tell how a model embeds the texts of a task, None if it can or no method asks."""
    from uwbench.probes.run import applicable

    methods, _ = applicable(needing_texts(scoring.methods), scoring.protocol, table.card)
    if not methods:
        return None
    from uwbench.probes.joint import lacking
    from uwbench.probes.methods.zero_shot import texts_of

    return lacking(store, table.card.name, texts_of(table, scoring.protocol))
