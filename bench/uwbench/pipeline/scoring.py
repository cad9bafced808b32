"""How the tasks of a run are scored: the protocol, the methods asked for, and whether the two go together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from uwbench.cards.protocol import Protocol
from uwbench.errors import UsageError
from uwbench.methods import METHODS
from uwbench.options import ExtractOptions, ProbeOptions


@dataclass(frozen=True, slots=True)
class Scoring:
    """How tasks are scored, and the folder that results go to."""

    protocol: Protocol
    methods: tuple[str, ...]
    options: ProbeOptions
    results: Path
    named: frozenset[str] = frozenset()  # the methods that were asked for by their own names: it fails without one


def load_rules(protocol: str) -> Protocol:
    """Return a protocol by name or file; raise UsageError if embeddings are not resampled as it asks."""
    from uwbench.cards.find import find_protocol
    from uwbench.extraction.identity import RESAMPLER

    card = find_protocol(protocol)
    if card.resampler != RESAMPLER:
        what = f"asks for the resampler {card.resampler}; embeddings are made with {RESAMPLER}"
        raise UsageError(what, where=f"--protocol {card.name}")
    return card


def require_use(scoring: Scoring) -> None:
    """Raise UsageError if the protocol runs none of the methods asked for, and for corruptions that test no method."""
    from uwbench.cards.find import find_protocol, names_of

    rules = scoring.protocol
    if not any(map(rules.runs, scoring.methods)):
        name = scoring.methods[0]
        others = [other for other in names_of("protocol") if find_protocol(other).runs(name)]
        runs = ", ".join(method for method in METHODS if rules.runs(method))
        remedy = f"add --protocol {others[0]}" if others else f"{rules.name} runs {runs}"
        raise UsageError(f"the protocol {rules.name} does not run it", where=f"--method {name}", remedy=remedy)
    tested = [name for name, info in METHODS.items() if info.corruptible and rules.runs(name)]
    if scoring.options.corruptions and not set(tested) & set(scoring.methods):
        remedy = f"add --method {','.join(tested)}" if tested else f"leave it out: {rules.name} tests none so"
        raise UsageError("no method asked for is tested on corrupted clips", where="--corrupt", remedy=remedy)


def with_same_corruptions(options: ExtractOptions, scoring: Scoring | None) -> tuple[ExtractOptions, Scoring | None]:
    """Return both halves of a run with the corruptions that either of them names."""
    if scoring is None:
        return options, None
    names = tuple(dict.fromkeys((*options.corruptions, *scoring.options.corruptions)))
    return replace(options, corruptions=names), replace(scoring, options=replace(scoring.options, corruptions=names))
