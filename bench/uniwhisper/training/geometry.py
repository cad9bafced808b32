"""How an encoder spreads clips, without labels."""

from __future__ import annotations

import torch


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
