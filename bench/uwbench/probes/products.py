"""Products of stacked matrices, by the fastest kernel there is on the CPU.

torch multiplies float32 matrices with MKL, which leaves AVX-512 idle on other processors than Intel's. oneDNN, in torch
too, does not, and is twice as fast there (`benchmarks/probes.py --products`). The two round differently in the last
digit, as MKL does between processors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_WORTH = 3_000_000  # multiplications a matrix; a call for each costs more than a batched product of smaller ones


def multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return `left @ right`: float32 `(S, 1 or G, m, k)` times `(S, G or 1, k, n)`.

    Each matrix of the stack is multiplied as if it were alone, outside autograd.
    """
    import torch

    found = products(left, right)
    if isinstance(found, torch.Tensor):
        return found
    out = torch.empty(len(left), max(left.shape[1], right.shape[1]), left.shape[2], right.shape[3])
    for stream in range(len(out)):
        for point in range(out.shape[1]):
            out[stream, point] = found[stream, point]
    return out


def products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor | Products:
    """Return the products of `multiply`, to be taken by `[stream, point]`; large ones are computed when they are taken.

    The gradients of wide layers take 60 MB together, and new memory of that size costs as much as the products; one
    that is used and forgotten before the next is computed stays in the processor's cache.
    """
    (rows, inner), columns = left.shape[2:], right.shape[3]
    one = _one_dnn()
    if one is None or left.device.type != "cpu" or rows * inner * columns < _WORTH:
        return left @ right
    return Products(left.contiguous(), right, one)


@dataclass(frozen=True, slots=True)
class Products:
    """Products of the matrices of two stacks, each computed when it is taken."""

    left: torch.Tensor
    right: torch.Tensor
    one: Callable

    def __getitem__(self, place: tuple[int, int]) -> torch.Tensor:
        stream, point = place
        first, second = (part[stream, point if part.shape[1] > 1 else 0] for part in (self.left, self.right))
        return self.one(first, second.t(), None, "none", [], "")


def use_avx512() -> bool:
    """Return whether large products on the CPU use AVX-512, by way of oneDNN."""
    import torch

    return _one_dnn() is not None and torch.backends.cpu.get_cpu_capability() == "AVX512"


@cache
def _one_dnn() -> Callable | None:
    """Return oneDNN's `x, weight (out, in), bias, ... -> x @ weight.T`, None where torch was built without it.

    torch's compiler calls it by this name; the public way, `Tensor.to_mkldnn`, copies what goes in and out.
    """
    import torch

    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)
