"""How an encoder spreads clips, without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

_CLUSTERS = 8


def effective_rank(vectors: torch.Tensor) -> float:
    """Return the effective number of dimensions that `vectors` `(clips, dim)` use, from 1 to the smaller of the two.

    The exponential of the entropy of the centred vectors' singular values (Roy and Vetterli 2007; RankMe of Garrido et
    al. 2023 does not centre). It falls towards 1 as an encoder collapses; vectors that are all equal use 1.
    """
    values = torch.linalg.svdvals((vectors - vectors.mean(dim=0)).double())
    total = values.sum()
    if float(total) <= 0:
        return 1.0
    shares = values / total
    return float(torch.exp(torch.special.entr(shares).sum()))


def cluster_quality(vectors: torch.Tensor) -> float | None:
    """Return how clearly `vectors` `(clips, dim)` fall into clusters, from -1 to 1; None for fewer than 16 clips.

    The mean silhouette (Rousseeuw 1987) by cosine distance of eight clusters that k-means finds. It is about 0 where
    clusters touch each other, and 0 if fewer than eight vectors differ.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    if len(vectors) < 2 * _CLUSTERS:
        return None
    unit = torch.nn.functional.normalize((vectors - vectors.mean(dim=0)).double(), dim=1).numpy()
    if len(np.unique(unit, axis=0)) < _CLUSTERS:
        return 0.0
    tries: Any = 4  # scikit-learn's stubs know "auto" alone
    clusters = KMeans(_CLUSTERS, n_init=tries, random_state=0).fit_predict(unit)
    return float(silhouette_score(unit, clusters, metric="cosine"))
