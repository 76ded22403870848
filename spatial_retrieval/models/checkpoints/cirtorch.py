"""cirtorch: ResNet or VGG, GeM, and a whitening inside the network or learned afterwards.

Paper: Radenović, Tolias, Chum, *Fine-tuning CNN Image Retrieval with No Human Annotation*, TPAMI
2019 (arXiv 1711.02512). Repository: https://github.com/filipradenovic/cnnimageretrieval-pytorch,
code and weights MIT.

Published (mAP Medium / Hard, queries cropped, longest side 1024): ResNet-101 GeM with a whitening
learned on SfM-120k, scales 1, 1/√2, 1/2, rows joined by the generalised mean with GeM's p: ROxford
65.4 / 40.1, RParis 76.7 / 55.2; VGG-16 so: 60.9 / 32.9, 69.3 / 44.2. ResNet-101 GeM trained on GL18
with the whitening inside, scales 1, √2, 1/√2 and their mean: 67.3 / 44.3, 80.6 / 61.5.

A file is ``{"meta": …, "state_dict": …}``. ``meta["Lw"][set]["ss" | "ms"]`` may hold whitenings
y = P(x − m) learned on rows of one scale (ss) or of several, already joined (ms).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spatial_retrieval.models.checkpoints.adopted import Adopted, Protocol
from spatial_retrieval.models.checkpoints.assemble import (
    assemble,
    gem_arguments,
    input_statistics,
    linear_arguments,
)
from spatial_retrieval.models.checkpoints.pooling import UnitGeM
from spatial_retrieval.models.checkpoints.resnet import ResNetMap, resnet_arguments, resnet_rules
from spatial_retrieval.models.checkpoints.tensors import Sorted, sort_out
from spatial_retrieval.models.checkpoints.vgg import VGGMap, vgg_arguments

__all__ = ["KIND", "adopt", "recognises"]

KIND = "cirtorch"
_HEAD = (("pool\\.p", "pooling.p"), ("whiten\\.(weight|bias)", r"whitening.\1"))
_VGG = (("features\\.(\\d+)\\.(weight|bias)", r"network.features.\1.\2"), *_HEAD)
_RESNET = (*resnet_rules("features"), *_HEAD)
CARD = {
    "name": "cirtorch GeM",
    "paper": "Radenović, Tolias, Chum: Fine-tuning CNN Image Retrieval with No Human Annotation, "
    "TPAMI 2019, arXiv 1711.02512",
    "repository": "https://github.com/filipradenovic/cnnimageretrieval-pytorch",
    "code_licence": "MIT",
    "weights_licence": "MIT, as the code",
    "training_data": "SfM-120k or Google Landmarks 2018, by the file",
    "published": {
        "ResNet-101 GeM + Lw, SfM-120k": "ROxford M/H 65.4/40.1, RParis M/H 76.7/55.2",
        "VGG-16 GeM + Lw, SfM-120k": "ROxford M/H 60.9/32.9, RParis M/H 69.3/44.2",
        "ResNet-101 GeM, whitening inside, GL18": "ROxford M/H 67.3/44.3, RParis M/H 80.6/61.5",
    },
}
_INSIDE = Protocol(scales=(1.0, 2**0.5, 2**-0.5), size=1024, query_crop=True)
_LEARNED = Protocol(scales=(1.0, 2**-0.5, 0.5), size=1024, query_crop=True)


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the names of a cirtorch network (ResNet or VGG)."""
    return "features.0.weight" in state


def adopt(
    state: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None, *, learned: str = "ms"
) -> Adopted:
    """Take over a cirtorch network.

    Args:
        state: the checkpoint's "state_dict".
        meta: its "meta".
        learned: which of the whitenings in ``meta["Lw"]`` to use where the network has none inside:
            "ms", "ss", or "" for none.

    Raises:
        ValueError: if a tensor is unknown, missing, or of another shape.
    """
    meta = meta or {}
    resnet = "features.4.0.conv1.weight" in state
    tensors = sort_out(state, _RESNET if resnet else _VGG, KIND)
    network = tensors.parts.get("network", {})
    arguments = resnet_arguments(network) if resnet else vgg_arguments(network)
    arguments.update(input_statistics(meta))
    words = (ResNetMap if resnet else VGGMap, arguments)
    pooling = (UnitGeM, gem_arguments(tensors))
    found = assemble(KIND, tensors, words, pooling, _INSIDE, CARD)
    if "whitening" in tensors.parts:
        return found
    protocol = _LEARNED
    if found.pooling.p.numel() == 1:  # published only for one p
        protocol = replace(protocol, power=float(found.pooling.p))
    return _with_learned(replace(found, protocol=protocol), meta.get("Lw") or {}, learned)


def _with_learned(found: Adopted, whitenings: Mapping[str, Any], learned: str) -> Adopted:
    """Put the whitening learned on "retrieval-SfM-120k", or the last one, behind the scales."""
    if not isinstance(whitenings, Mapping) or not all(
        isinstance(pair, Mapping) for pair in whitenings.values()
    ):
        raise ValueError(f"expected meta.Lw as data set → ss, ms → m, P, got {whitenings!r:.80}")
    names = [f"meta.Lw.{name}.{which}" for name, pair in whitenings.items() for which in pair]
    card = {**found.card, "left_out": [*found.card["left_out"], *names]}
    if not names or not learned:
        return replace(found, card=card)
    name = "retrieval-SfM-120k" if "retrieval-SfM-120k" in whitenings else list(whitenings)[-1]
    if learned not in whitenings[name]:
        raise ValueError(f"expected the whitening {learned!r} in {', '.join(names)}")
    final, sizes = _learned_layer(whitenings[name][learned], found.network.channels)
    card["left_out"].remove(used := f"meta.Lw.{name}.{learned}")
    card["whitening"] = f"learned, {used}"
    protocol = found.protocol if learned == "ms" else replace(found.protocol, scales=(1.0,))
    arguments = {**found.arguments, "final": sizes}
    return replace(found, final=final, protocol=protocol, card=card, arguments=arguments)


def _learned_layer(whitening: Mapping[str, Any], dim: int) -> tuple[nn.Module, dict[str, Any]]:
    """y = P(x − m) as a linear layer, and its arguments."""
    if not isinstance(whitening, Mapping) or not {"m", "P"} <= set(whitening):
        raise ValueError(f"expected a whitening of m and P, got {whitening!r:.80}")
    try:
        mean, projection = (torch.as_tensor(whitening[key]).double() for key in ("m", "P"))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"expected a whitening's m and P as arrays: {error}") from error
    if projection.ndim != 2 or not mean.numel() == projection.shape[1] == dim:
        raise ValueError(
            f"expected a whitening m ({dim}, 1) and P (D, {dim}), got {tuple(mean.shape)} and "
            f"{tuple(projection.shape)}"
        )
    values = {"weight": projection, "bias": -projection @ mean.flatten()}
    layer = Sorted({"final": values}, {}, ())
    sizes = linear_arguments(layer, "final", dim)
    return layer.build("final", nn.Linear, sizes), sizes
