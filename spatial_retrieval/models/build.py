"""``build_model``: a configuration, or built modules, become a model."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from spatial_retrieval.layers.pooling import GeM
from spatial_retrieval.layers.token_pooling import ClassToken, MeanPooling
from spatial_retrieval.models.backbone import Backbone, build_backbone
from spatial_retrieval.models.config import ModelConfig
from spatial_retrieval.models.head import Branch, Head
from spatial_retrieval.models.model import RetrievalModel

__all__ = ["build_model"]


def build_model(
    config: ModelConfig = ModelConfig(),  # noqa: B008 - frozen
    *,
    backbone: Backbone | None = None,
    context: Mapping[str, nn.Module] | None = None,
    pooling: nn.Module | None = None,
    whitening: nn.Module | None = None,
    pretrained: bool = True,
) -> RetrievalModel:
    """Build a model in evaluation mode; its context layers and whitening are untrained.

    Modules that are passed take the place of what the configuration names.

    Args:
        config: names and numbers.
        backbone: its ``layer`` is read.
        context: named layers (B, C, H, W) → (B, C, H, W), run in order.
        pooling: (B, C, H, W) → (B, D).
        whitening: (B, D) → (B, D′).
        pretrained: whether the backbone that the configuration names gets its weights.

    Raises:
        ValueError: if a name or an argument in the configuration is unknown.

    Example:
        >>> from spatial_retrieval.layers.smoothing import LearnableSmoothing
        >>> model = build_model(context={"smoothing": LearnableSmoothing(1280, kernel_size=5)})
        >>> model.dim
        1280
    """
    source = None
    if backbone is None:
        backbone = build_backbone(config.backbone, layer=config.layer, pretrained=pretrained)
        source = {"name": config.backbone, "layer": config.layer}
    if context is None:
        context = _context(config, backbone.channels)
    if whitening is None:
        whitening = _whitening(backbone.channels, config.dim)
    if pooling is None and backbone.signed():
        layers, pooling = _signed_pooling(backbone)
    else:
        layers, pooling = backbone.layer, pooling or GeM(config.p)
    branch = Branch(layers, pooling, context=context)
    model = RetrievalModel(backbone, Head([branch], whitening), source=source).eval()
    if config.base is None:
        return model
    base = _base(backbone, config.base)
    weight = config.base_weight
    return RetrievalModel(backbone, model.head, base=base, base_weight=weight, source=source).eval()


def _signed_pooling(backbone: Backbone) -> tuple[str | tuple[str, str], nn.Module]:
    """What describes a map of signed values: the class token if there is one, else the mean."""
    if backbone.layer == "head" and "token" in backbone.layers:
        return ("head", "token"), ClassToken()
    return backbone.layer, MeanPooling()


def _base(backbone: Backbone, config: ModelConfig) -> Head:
    if config.context or config.base:
        raise ValueError("expected a base without context layers, got one with them")
    channels = backbone.layer_channels(config.layer)
    branch = Branch(config.layer, GeM(config.p))
    return Head([branch], _whitening(channels, config.dim))


def _whitening(channels: int, dim: int | None) -> nn.Module:
    return nn.Linear(channels, dim) if dim else nn.Identity()


def _context(config: ModelConfig, channels: int) -> dict[str, nn.Module]:
    kinds = [kind for kind, _ in config.context]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"expected each kind of context layer at most once, got {kinds}")
    return {kind: _layer(kind, channels, args) for kind, args in config.context}


def _layer(kind: str, channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        match kind:
            case "smoothing":
                from spatial_retrieval.layers.smoothing import LearnableSmoothing as Layer
            case "refinement" if arguments.get("edges") == "none":
                from spatial_retrieval.layers.controls import MLPControl as Layer

                arguments = {name: value for name, value in arguments.items() if name != "edges"}
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
