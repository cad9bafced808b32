"""The identity of an encoder in the cache: everything its fingerprint is a hash of."""

from __future__ import annotations

from collections.abc import Sequence

from uwbench.audio.decode import PREPROCESSING_VERSION, RESAMPLER
from uwbench.base.hashing import digest
from uwbench.base.registry import suggestion
from uwbench.cache.records import POOLINGS, EncoderRecord
from uwbench.cache.store import slug_of
from uwbench.encoders.base import IMPORTED, EncoderInfo
from uwbench.errors import UsageError

DEFAULT_POOLINGS = ("mean", "mean-all")


def describe_encoder(
    info: EncoderInfo,
    *,
    layers: str = "last",
    poolings: Sequence[str] = DEFAULT_POOLINGS,
    dtype: str = "fp32",
    generation: int = 0,
) -> EncoderRecord:
    """Return the record of an encoder with these layers, poolings and precision, its fingerprint included.

    `generation` counts how often the answers of an own encoder were seen to change under an unchanged identity.
    """
    unknown = [name for name in poolings if name not in POOLINGS]
    if unknown:
        raise UsageError(f"unknown pooling {unknown[0]!r}", where="--pooling", remedy=suggestion(unknown[0], POOLINGS))
    if "first" in poolings and not info.first_token:
        raise UsageError(f"{info.name} has no first token", where="--pooling first", remedy="use mean")
    if info.family == IMPORTED and (dtype != "fp32" or not set(poolings) <= set(DEFAULT_POOLINGS)):
        option = f"--pooling {','.join(poolings)}" if dtype == "fp32" else f"--dtype {dtype}"
        raise UsageError(f"{info.name} has one ready vector per clip", where=option, remedy="leave the option out")
    layer_names = tuple(info.layers[i] for i in layer_indices(info, layers))
    ordered = tuple(name for name in POOLINGS if name in poolings)
    identity = {
        "encoder": dict(info.identity),
        "dtype": dtype,
        "layers": layer_names,
        "poolings": ordered,
        "preprocessing": PREPROCESSING_VERSION,
        "resampler": RESAMPLER,
        "sample_rate": info.sample_rate,
        "context_s": info.context_s,
        "min_s": info.min_s,
        **({"generation": generation} if generation else {}),
    }
    return EncoderRecord(
        name=info.name,
        slug=slug_of(info.name if info.context in (None, "full") else f"{info.name}-{info.context}"),
        fingerprint=digest(identity),
        family=info.family,
        layers=layer_names,
        poolings=ordered,
        dim=info.dim,
        sample_rate=info.sample_rate,
        hop_s=info.hop_s,
        dtype=dtype,
        context=info.context,
        revision=info.revision,
        parameters=info.parameters,
        training_data=info.training_data,
        identity=identity,
    )


def layer_indices(info: EncoderInfo, layers: str) -> list[int]:
    """Return the indices for `last`, `all` or a list of names or numbers, in the encoder's order."""
    count = len(info.layers)
    if layers == "last":
        return [count - 1]
    if layers == "all":
        return list(range(count))
    indices = set()
    for item in filter(None, (part.strip() for part in layers.split(","))):
        if item in info.layers:
            indices.add(info.layers.index(item))
        elif item == "last":
            indices.add(count - 1)
        elif item.lstrip("-").isdigit() and -count <= int(item) < count:
            indices.add(int(item) % count)
        else:
            remedy = f"use last, all, or some of {', '.join(info.layers)}"
            raise UsageError(f"{info.name} has no layer {item!r}", where="--layers", remedy=remedy)
    if not indices:
        raise UsageError("no layer is named", where="--layers", remedy="use last, all or a list")
    return sorted(indices)
