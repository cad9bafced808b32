"""The methods that score embeddings: what each is called, which labels it takes and how its score reads.

Nothing here computes: a method's code is imported from `probes/methods/` when it runs, so that results are listed and
read without it. A new method is one file there, one entry here and its settings on the protocol's card. Another package
adds methods by entry points of the group `uwbench.methods`, whose targets are `MethodInfo`s with their settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from uwbench.base.registry import Registry
from uwbench.errors import UsageError


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """A method: its names, the kinds of labels that it takes, its code and its metric.

    `run` is "module:function", a function from a `ProbeRun` to a `Scored`. Every score is in [0, 1], higher is better.
    """

    name: str
    title: str  # in headings
    short: str  # in narrow tables
    answers: str  # the question, in a line
    kinds: tuple[str, ...]  # as on task cards
    run: str
    corruptible: bool = False  # its probes are tested on corrupted clips too
    headline: bool = False  # shown first, run by default, and its settings are part of the protocol's hash
    metric: str | None = None  # None: the task card's
    segments: bool = False  # it reads segments, which a run of it extracts
    needs_texts: bool = False  # takes encoders that embed texts too
    describes: bool = False  # its score is no quality: it takes no part in what holds under every method
    settings: Mapping[str, Any] | None = None  # of a plug-in, with their `version`; None: on the protocol's card


_METHODS = (
    MethodInfo(
        "mlp",
        "MLP probe",
        "MLP",
        "What can a small trained network read from the vectors?",
        ("single-label", "multi-label", "frame-multi-label", "retrieval", "transcription"),
        "uwbench.probes.methods.mlp:score",
        corruptible=True,
        headline=True,
    ),
    MethodInfo(
        "knn",
        "kNN",
        "kNN",
        "Do the nearest training clips have the label?",
        ("single-label", "multi-label", "frame-multi-label"),
        "uwbench.probes.methods.knn:score",
        corruptible=True,
        headline=True,
    ),
    MethodInfo(
        "linear",
        "Logistic regression",
        "linear",
        "What can a linear classifier read from the vectors?",
        ("single-label", "multi-label"),
        "uwbench.probes.methods.linear:score",
        corruptible=True,
    ),
    MethodInfo(
        "attentive",
        "Attentive probe",
        "attend",
        "What can a probe read that attends to parts of a clip?",
        ("single-label", "multi-label", "retrieval"),
        "uwbench.probes.methods.attentive:score",
        segments=True,
    ),
    MethodInfo(
        "few-shot",
        "Few-shot",
        "few-shot",
        "How many labels does a linear classifier need?",
        ("single-label",),
        "uwbench.probes.methods.few_shot:score",
        metric="few-shot-accuracy",
    ),
    MethodInfo(
        "clustering",
        "Clustering",
        "cluster",
        "Do classes form clusters without any label?",
        ("single-label",),
        "uwbench.probes.methods.clustering:score",
        metric="v-measure",
    ),
    MethodInfo(
        "verification",
        "Verification",
        "verify",
        "Are two test clips of one class, as two recordings of one speaker?",
        ("single-label",),
        "uwbench.probes.methods.verification:score",
        metric="one-minus-eer",
    ),
    MethodInfo(
        "clip-retrieval",
        "Clip retrieval",
        "clips",
        "Does a test clip find the other test clips of its class first?",
        ("single-label",),
        "uwbench.probes.methods.clip_retrieval:score",
        metric="query-map",
    ),
    MethodInfo(
        "zero-shot",
        "Zero-shot",
        "zero-shot",
        "Do clips lie near the names of their classes? (models with a text tower)",
        ("single-label", "multi-label"),
        "uwbench.probes.methods.zero_shot:score",
        needs_texts=True,
    ),
    MethodInfo(
        "geometry",
        "Geometry",
        "geometry",
        "How many of their dimensions do the vectors use? (a description, not a quality)",
        ("single-label", "multi-label"),
        "uwbench.probes.methods.geometry:score",
        metric="rank-share",
        describes=True,
    ),
    MethodInfo(
        "mteb-classification",
        "mteb classification",
        "m-class",
        "What does logistic regression read from 8 clips per class? (maeb-2)",
        ("single-label",),
        "uwbench.probes.mteb.classification:score",
        metric="accuracy",
    ),
    MethodInfo(
        "mteb-multilabel",
        "mteb multilabel classification",
        "m-multi",
        "What do logistic regressions read from 8 clips per class, of several? (maeb-2)",
        ("multi-label",),
        "uwbench.probes.mteb.multilabel:score",
        metric="lrap",
    ),
    MethodInfo(
        "mteb-clustering",
        "mteb clustering",
        "m-cluster",
        "Do classes form clusters of mini-batch k-means? (maeb-2)",
        ("single-label",),
        "uwbench.probes.mteb.clustering:score",
        metric="v-measure",
    ),
    MethodInfo(
        "mteb-pairs",
        "mteb pair classification",
        "m-pairs",
        "Are two clips of one class? (maeb-2)",
        ("single-label",),
        "uwbench.probes.mteb.pairs:score",
        metric="max-ap",
    ),
)
BUILTIN_METHODS: Mapping[str, MethodInfo] = MappingProxyType({info.name: info for info in _METHODS})
HEADLINE = tuple(info.name for info in _METHODS if info.headline)
METRIC_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "macro-f1": "macro F1",
        "map": "mAP",
        "segment-f1-macro": "segment F1, macro",
        "segment-f1-micro": "segment F1, micro",
        "recall-at-1": "recall at 1",
        "one-minus-wer": "1 - WER",
        "few-shot-accuracy": "area of accuracy",
        "v-measure": "V-measure",
        "one-minus-eer": "1 - EER",
        "query-map": "mAP of queries",
        "rank-share": "rank share",
        "lrap": "LRAP",
        "max-ap": "max AP",
    }
)  # for readers; programs and files have the keys, and a metric without a name here is shown by its key
GROUPS = ("default", "all")  # words for several methods


class Methods(Mapping[str, MethodInfo]):
    """All methods by name: uwbench's own, then those of installed packages, which are looked for at the first use.

    Raises UsageError naming the entry point if one cannot be imported, is no `MethodInfo`, or takes a name that exists.
    """

    @cached_property
    def _infos(self) -> dict[str, MethodInfo]:
        plugins = Registry("method", {}, entry_point_group="uwbench.methods")
        return {**BUILTIN_METHODS, **{name: _checked(name, plugins) for name in sorted(plugins.entries())}}

    def __getitem__(self, name: str) -> MethodInfo:
        return BUILTIN_METHODS[name] if name in BUILTIN_METHODS else self._infos[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)


METHODS: Mapping[str, MethodInfo] = Methods()


def _checked(name: str, plugins: Registry) -> MethodInfo:
    """Return a plug-in's method; raise UsageError if something is wrong with it."""
    info = plugins.load(name)
    if not isinstance(info, MethodInfo) or info.name != name:
        what = f"is no MethodInfo of the name {name!r}"
    elif name in BUILTIN_METHODS or name in GROUPS:
        what = "takes a name of uwbench's"
    elif info.headline or not isinstance((info.settings or {}).get("version"), int):
        what = "is of the headline" if info.headline else "has no settings with a version, as {'version': 1}"
    else:
        return info
    where = f"the method {name!r} ({plugins.entries()[name]})"
    raise UsageError(f"{where} {what}", remedy="repair or uninstall the package that adds it")


def metric_name(metric: str) -> str:
    """Return what readers see of a metric: `1 - EER` for `one-minus-eer`."""
    return METRIC_NAMES.get(metric, metric)


def in_group(name: str) -> tuple[str, ...]:
    """Return the methods that a word for several stands for, or the one of this name."""
    return {"default": HEADLINE, "all": tuple(METHODS)}[name] if name in GROUPS else (name,)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of methods in the order of the registry, each once; names that it lacks are left out."""
    wanted = set(names)
    return tuple(name for name in METHODS if name in wanted)


def needing_texts(methods: Iterable[str]) -> list[str]:
    """Return the methods that take only encoders with a text tower."""
    return [name for name in methods if METHODS[name].needs_texts]
