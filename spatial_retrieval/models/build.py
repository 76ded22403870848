"""``build_model``: the one place where a configuration becomes layers."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from spatial_retrieval.layers.pooling import GeM
from spatial_retrieval.models.backbone import Backbone, build_backbone
from spatial_retrieval.models.config import ModelConfig
from spatial_retrieval.models.model import PlainPart, RetrievalModel

__all__ = ["build_model"]


def build_model(config: ModelConfig, *, pretrained: bool = True) -> RetrievalModel:
    """Build a model in evaluation mode; its context layers and whitening are untrained.

    Raises:
        ValueError: if a name or an argument in the configuration is unknown.
    """
    backbone = build_backbone(config.backbone, layer=config.layer, pretrained=pretrained)
    kinds = [kind for kind, _ in config.context]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"expected each kind of context layer at most once, got {kinds}")
    context = {kind: _layer(kind, backbone.channels, args) for kind, args in config.context}
    return RetrievalModel(
        backbone,
        context=context,
        pooling=GeM(config.p),
        whitening=_whitening(backbone.channels, config.dim),
        config=config,
        beside=_plain_part(backbone, config.beside) if config.beside else None,
    ).eval()


def _plain_part(backbone: Backbone, config: ModelConfig) -> PlainPart:
    if config.context or config.beside:
        raise ValueError("expected a plain model beside this one, got one with context layers")
    channels = backbone.layer_channels(config.layer)
    return PlainPart(GeM(config.p), _whitening(channels, config.dim), config.dim or channels)


def _whitening(channels: int, dim: int | None) -> nn.Module:
    return nn.Linear(channels, dim) if dim else nn.Identity()


def _layer(kind: str, channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        match kind:
            case "smoothing":
                from spatial_retrieval.layers.smoothing import LearnableSmoothing as Layer
            case "refinement":
                from spatial_retrieval.layers.refinement import SpatialContextRefinement as Layer
            case "attention":
                from spatial_retrieval.layers.attention import SecondOrderAttention as Layer
            case "convolutions":
                from spatial_retrieval.layers.controls import ConvolutionControl as Layer
            case _:
                raise ValueError(
                    "expected a context layer smoothing, refinement, attention or convolutions, "
                    f"got {kind!r}"
                )
        return Layer(channels, **arguments)
    except TypeError as error:
        raise ValueError(f"context layer {kind!r}: {error}") from error
