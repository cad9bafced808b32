"""Predictions of one task as arrays, ready to be scored and resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from uwbench.base.json_text import parse_json
from uwbench.errors import InputError
from uwbench.results.metrics import MEANS, MEANS_OF_BLOCKS, PAIRED

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Items:
    """One method's predictions for one task: `n` test items, `S` probe seeds, `C` classes.

    `clusters` `(n,)` numbers the speaker, recording or song of each item, `folds` `(n,)` its fold. Which other arrays
    are set depends on the metric: `truth` int `(n,)` and `predicted` int `(S, n)` for single labels, `relevant` bool
    `(n, C)` and `scores` float32 `(S, n, C)` for mAP, and `counts` float32 `(S, n, K)` for metrics of summed counts.
    """

    metric: str
    ids: np.ndarray
    clusters: np.ndarray
    folds: np.ndarray
    seeds: tuple[int, ...]
    truth: np.ndarray | None = None
    predicted: np.ndarray | None = None
    relevant: np.ndarray | None = None
    scores: np.ndarray | None = None
    counts: np.ndarray | None = None
    classes: int = 0
    second: np.ndarray | None = None  # pairs of clips: the cluster of the second clip, `(n,)`

    @property
    def n_clusters(self) -> int:
        return int(max(self.clusters.max(), -1 if self.second is None else self.second.max())) + 1

    def take(self, rows: np.ndarray) -> Items:
        """Return the items at `rows` (positions), with clusters renumbered."""

        def pick(array: np.ndarray | None, axis: int) -> np.ndarray | None:
            return None if array is None else array.take(rows, axis)

        both = [self.clusters[rows]] if self.second is None else [self.clusters[rows], self.second[rows]]
        numbers = np.split(np.unique(np.concatenate(both), return_inverse=True)[1], len(both))
        return replace(
            self,
            ids=self.ids[rows],
            clusters=numbers[0],
            second=None if self.second is None else numbers[1],
            folds=self.folds[rows],
            truth=pick(self.truth, 0),
            predicted=pick(self.predicted, 1),
            relevant=pick(self.relevant, 0),
            scores=pick(self.scores, 1),
            counts=pick(self.counts, 1),
        )


def columns_of(metric: str) -> list[str]:
    """Return the columns of the predictions that `read_items` needs for a metric."""
    contents = {"map": ["scores"], "accuracy": [], "macro-f1": []}.get(metric, ["counts"])
    return ["method", "seed", "fold", "id", "group", "truth", "prediction", *contents]


def read_items(predictions: pa.Table, method: str, metric: str) -> Items:
    """Read one method's predictions, sorted by fold and id; an item without a group is a cluster by itself.

    Raises InputError if the seeds do not predict the same items.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = predictions.filter(pc.call_function("equal", [predictions.column("method"), pa.scalar(method)]))
    if table.num_rows == 0:
        raise InputError(f"the predictions hold nothing of {method}")
    fold, fold_names = _codes(table, "fold")
    clip, clip_names = _codes(table, "id")
    seed = table.column("seed").to_numpy()
    seeds = tuple(np.unique(seed).tolist())
    order = np.lexsort((clip, fold, seed))
    if len(order) % len(seeds):
        raise InputError(f"the seeds of {method} do not predict the same items")
    by_seed = order.reshape(len(seeds), -1)
    item = (fold.astype(np.int64) * len(clip_names) + clip)[by_seed]
    if (item != item[0]).any() or (np.diff(item[0]) == 0).any():
        raise InputError(f"the seeds of {method} do not predict the same items, each once")
    first = by_seed[0]
    group, _ = _codes(table, "group")
    ungrouped = table.column("group").is_null().to_numpy()[first]
    clusters = np.where(ungrouped, len(table) + np.arange(len(first)), group[first])
    items = Items(
        metric=metric,
        ids=np.char.add(np.char.add(fold_names[fold[first]], "\0"), clip_names[clip[first]]),
        clusters=np.unique(clusters, return_inverse=True)[1],
        folds=np.unique(fold[first], return_inverse=True)[1],
        seeds=seeds,
    )
    return _with_contents(items, table, by_seed)


def shared_items(rivals: Sequence[Items]) -> list[Items]:
    """Return each model's predictions of the items that all models predict, in the same order.

    Raises InputError if the models have no item in common.
    """
    shared = rivals[0].ids if rivals else np.empty(0)
    for items in rivals[1:]:
        shared = np.intersect1d(shared, items.ids)
    if len(shared) == 0:
        raise InputError("the models have no test item in common")
    return [items.take(np.flatnonzero(np.isin(items.ids, shared))) for items in rivals]


def _codes(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a text column as numbers `(rows,)` and the sorted texts they stand for; null reads as empty."""
    encoded = table.column(name).fill_null("").combine_chunks().dictionary_encode()
    texts, position = np.unique(np.asarray(encoded.dictionary.to_pylist(), dtype=str), return_inverse=True)
    return position[encoded.indices.to_numpy()], texts


def _with_contents(items: Items, table: pa.Table, by_seed: np.ndarray) -> Items:
    """Return the items with the arrays that their metric needs; `by_seed` `(S, n)` orders the table's rows."""
    if items.metric in PAIRED:
        pairs = np.array([parse_json(text) for text in table.column("group").take(by_seed[0]).to_pylist()], dtype=str)
        first, second = np.split(np.unique(pairs.T.ravel(), return_inverse=True)[1], 2)
        truth, truths = _codes(table, "truth")
        similarity = _matrix(table, "counts")[by_seed]
        target = (truths == "true")[truth[by_seed[0]]]
        return replace(items, clusters=first, second=second, truth=target, counts=similarity)
    if items.metric in MEANS_OF_BLOCKS:  # see `block_counts` in probes/methods/clips.py
        value, share, block = np.moveaxis(_matrix(table, "counts")[by_seed][..., -3:], -1, 0)
        of_block = np.stack([value * share, share], axis=-1)
        return replace(items, counts=of_block, clusters=np.unique(block[0], return_inverse=True)[1])
    if items.metric in ("segment-f1-macro", "segment-f1-micro", "one-minus-wer", "recall-at-1", *MEANS):
        return replace(items, counts=_matrix(table, "counts")[by_seed])
    if items.metric == "map":
        relevant = _relevant(table, by_seed[0])
        scores = _matrix(table, "scores")[by_seed]
        if scores.shape[-1] != relevant.shape[1]:
            raise InputError(f"the predictions score {scores.shape[-1]} of {relevant.shape[1]} classes")
        return replace(items, relevant=relevant, scores=scores, classes=relevant.shape[1])
    if items.metric not in ("accuracy", "macro-f1"):
        raise InputError(f"{items.metric} is no metric that can be computed from predictions")
    truth, truths = _codes(table, "truth")
    predicted, guesses = _codes(table, "prediction")
    texts = np.union1d(truths, guesses)
    return replace(
        items,
        truth=np.searchsorted(texts, truths)[truth[by_seed[0]]],
        predicted=np.searchsorted(texts, guesses)[predicted[by_seed]],
        classes=len(texts),
    )


def _relevant(table: pa.Table, rows: np.ndarray) -> np.ndarray:
    """Return the classes of each item, bool `(items, classes)`."""
    import pyarrow as pa

    try:
        names = parse_json((table.schema.metadata or {})[b"classes"])
        position = {name: index for index, name in enumerate(names)}
        texts = table.column("truth").combine_chunks().take(pa.array(rows)).dictionary_encode()
        of_text = np.zeros((len(texts.dictionary), len(names)), dtype=bool)
        for row, text in enumerate(texts.dictionary.to_pylist()):
            of_text[row, [position[label] for label in parse_json(text)]] = True
        relevant = of_text[texts.indices.to_numpy()]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the labels of the predictions cannot be read ({error!r})") from error
    return relevant


def _matrix(table: pa.Table, name: str) -> np.ndarray:
    """Return a list column as float32 `(rows, width)`."""
    column = table.column(name).combine_chunks()
    lengths = {len(value) for value in column.slice(0, 1).to_pylist() if value is not None}
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    width = lengths.pop() if lengths else 0
    if width == 0 or len(values) != width * table.num_rows:
        raise InputError(f"the column {name} of the predictions does not hold one list per item, all of one length")
    return values.reshape(table.num_rows, width)
