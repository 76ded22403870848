"""The parts of an official checkpoint built, filled and checked to fit one another."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from spatial_retrieval.models.checkpoints.adopted import Adopted, Protocol
from spatial_retrieval.models.checkpoints.tensors import Sorted

__all__ = ["assemble", "gem_arguments", "input_statistics", "linear_arguments"]

Words = tuple[type[nn.Module], dict[str, Any]]  # a class and its keywords


def assemble(
    kind: str,
    tensors: Sorted,
    network: Words,
    pooling: Words,
    protocol: Protocol,
    card: Mapping[str, Any],
) -> Adopted:
    """Build network, pooling and, where the checkpoint has one, the linear layer behind them.

    Raises:
        ValueError: if a tensor is missing, left over, or of another shape, or the parts don't fit.
    """
    built = tensors.build("network", *network)
    pool = tensors.build("pooling", *pooling)
    if pooling[1].get("channels") not in (None, built.channels):
        raise ValueError(
            f"expected a pooling of {built.channels} channels, as the network gives, got one of "
            f"{pooling[1]['channels']}"
        )
    width = getattr(pool, "width", built.channels)
    whitening: Words = (nn.Identity, {})
    if "whitening" in tensors.parts:
        whitening = (nn.Linear, linear_arguments(tensors, "whitening", width))
    return Adopted(
        kind=kind,
        network=built,
        pooling=pool,
        whitening=tensors.build("whitening", *whitening),
        final=nn.Identity(),
        protocol=protocol,
        card={**card, "left_out": list(tensors.left_out)},
        arguments={
            "network": network[1], "pooling": pooling[1], "whitening": whitening[1], "final": {},
        },
    )  # fmt: skip


def gem_arguments(tensors: Sorted) -> dict[str, Any]:
    """GeM's arguments by its tensor: one p, or one for each channel."""
    p = tensors.tensor("pooling", "p")
    if p.ndim != 1 or not len(p) or not bool((p > 0).all()):
        raise ValueError(f"expected GeM's p as positive numbers (1,) or (C,), got {p}")
    return {"p": float(p[0]), "channels": None if len(p) == 1 else len(p)}


def input_statistics(meta: Mapping[str, Any]) -> dict[str, list[float]]:
    """The "mean" and "std" of the input's channels, if the metadata has them."""
    found = {}
    for name in ("mean", "std"):
        if name in meta:
            try:
                found[name] = [float(value) for value in meta[name]]
            except (TypeError, ValueError) as error:
                raise ValueError(f"expected three numbers as meta.{name}: {error}") from error
            if len(found[name]) != 3 or (name == "std" and not min(found[name]) > 0):
                raise ValueError(f"expected three numbers as meta.{name}, got {found[name]}")
    return found


def linear_arguments(tensors: Sorted, part: str, width: int) -> dict[str, Any]:
    """``nn.Linear``'s arguments by its weight (out, ``width``)."""
    weight = tensors.tensor(part, "weight")
    if weight.ndim != 2 or weight.shape[1] != width:
        where = tensors.official.get(f"{part}.weight", f"{part}.weight")
        raise ValueError(f"expected {where} of shape (D, {width}), got {tuple(weight.shape)}")
    return {"in_features": width, "out_features": weight.shape[0]}
