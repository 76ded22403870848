"""``RetrievalModel``: photograph → feature map → context → pooling → whitening → descriptor."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spatial_retrieval.backbone import EMBEDDED_BACKBONE, Backbone, build_backbone
from spatial_retrieval.files import atomic_writer, write_json
from spatial_retrieval.layers.pooling import GeM
from spatial_retrieval.layers.whitening import Whitening

__all__ = [
    "ModelConfig",
    "RetrievalModel",
    "build_model",
    "choose_device",
    "embedded_models",
    "load_model",
]

_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a model is made of; its JSON form is ``config.json``.

    Attributes:
        backbone: ``efficientnet_lite0`` (embedded) or any timm model.
        layer: the backbone's map that is used, see :class:`~spatial_retrieval.backbone.Backbone`.
        context: the layers between map and pooling, in order, each a pair (kind, arguments) with
            kind "smoothing", "refinement", "attention" or "convolutions", at most one of a kind.
        p: GeM's exponent.
        dim: length of the whitened descriptor; None: no whitening, as long as the map has channels.
        beside: a model without a context, on the same backbone, whose descriptor stands in front.
        weight: its share of the similarity, 0 … 1; cos = weight · plain + (1 − weight) · own.
    """

    backbone: str = EMBEDDED_BACKBONE
    layer: str = "head"
    context: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=())
    p: float = 3.0
    dim: int | None = None
    beside: "ModelConfig | None" = None
    weight: float = 0.5

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ModelConfig":
        """Read what ``asdict`` wrote; an unknown key is an error, not ignored."""
        unknown = set(value) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"unknown keys in a model's config: {', '.join(sorted(unknown))}")
        context = tuple((str(kind), dict(args)) for kind, args in value.get("context", ()))
        beside = cls.from_json(value["beside"]) if value.get("beside") else None
        return cls(**{**value, "context": context, "beside": beside})


class PlainPart(nn.Module):
    """Pooling and whitening of a map without context: (B, C, H, W) → (B, D) unit rows."""

    def __init__(self, pooling: nn.Module, whitening: nn.Module, dim: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.whitening = whitening
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Describe a map."""
        return _whitened(self.pooling, self.whitening, x)


class RetrievalModel(nn.Module):
    """Describes photographs by one unit vector each.

    Args:
        backbone: (B, 3, h, w) in [0, 1] → (B, C, H, W).
        context: named layers (B, C, H, W) → (B, C, H, W), run in order; empty for plain GeM.
        pooling: (B, C, H, W) → (B, C).
        whitening: (B, C) → (B, D); ``nn.Identity()`` for none.
        config: what these were built from; saved beside the weights.
        beside: pools and whitens the map of ``config.beside``; None without one.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        context: Mapping[str, nn.Module],
        pooling: nn.Module,
        whitening: nn.Module,
        config: ModelConfig,
        beside: "PlainPart | None" = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.context = nn.Sequential(OrderedDict(context))
        self.pooling = pooling
        self.whitening = whitening
        self.plain = beside
        self.config = config

    @property
    def dim(self) -> int:
        """Length D of a descriptor."""
        own = getattr(self.whitening, "out_features", self.backbone.channels)
        return own + (self.plain.dim if self.plain is not None else 0)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.backbone.mean.device

    def forward(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
        """Describe images, as the mean of several scales if asked.

        Args:
            images: (B, 3, h, w) RGB in [0, 1].
            scales: factors of the image's sides; e.g. (1, 2**-0.5, 0.5).

        Returns:
            (B, D) unit rows.
        """
        if not scales:
            raise ValueError("expected at least one scale, got none")
        total = sum(self._describe(_scaled(images, s)) for s in scales)
        return nn.functional.normalize(total, dim=1)

    def _describe(self, images: Tensor) -> Tensor:
        if self.plain is None:
            return self.descriptor(self.feature_map(images))
        layers = (self.config.layer, self.config.beside.layer)
        x, plain = self.backbone.maps(images, layers)
        share = self.config.weight
        parts = (
            share**0.5 * self.plain(plain),
            (1 - share) ** 0.5 * self.descriptor(self.context(x)),
        )
        return torch.cat(parts, dim=1)

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) → (B, C, H, W): the map that is pooled, after all context layers."""
        return self.context(self.backbone(images))

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """Each stage's map (B, C, H, W) by name: "backbone", then one for each context layer."""
        maps = {"backbone": self.backbone(images)}
        x = maps["backbone"]
        for name, layer in self.context.named_children():
            maps[name] = x = layer(x)
        return maps

    def descriptor(self, x: Tensor) -> Tensor:
        """Feature map (B, C, H, W) → (B, D) unit rows: pooling, unit length, whitening.

        Of a model with a plain part beside it this is its own part alone.
        """
        return _whitened(self.pooling, self.whitening, x)

    def with_whitening(self, whitening: Whitening, dim: int | None = None) -> "RetrievalModel":
        """The same model (sharing its layers) with this whitening in front of the descriptor."""
        linear = whitening.linear(dim).to(self.device)
        return RetrievalModel(
            self.backbone,
            context=dict(self.context.named_children()),
            pooling=self.pooling,
            whitening=linear,
            config=replace(self.config, dim=linear.out_features),
            beside=self.plain,
        ).eval()

    def beside(self, plain: "RetrievalModel", weight: float) -> "RetrievalModel":
        """This model with a plain one's descriptor in front of its own, sharing all layers.

        Args:
            plain: without context layers, on the same backbone.
            weight: its share of the similarity, 0 … 1.

        Raises:
            ValueError: if ``plain`` has context layers or another backbone, or the weight is not
                in 0 … 1.
        """
        if len(plain.context) or plain.config.backbone != self.config.backbone:
            raise ValueError(
                f"expected a model without context layers on {self.config.backbone}, got one on "
                f"{plain.config.backbone} with {len(plain.context)} of them"
            )
        if not 0 <= weight <= 1:
            raise ValueError(f"expected a weight from 0 to 1, got {weight}")
        return RetrievalModel(
            self.backbone,
            context=dict(self.context.named_children()),
            pooling=self.pooling,
            whitening=self.whitening,
            config=replace(self.config, beside=plain.config, weight=weight),
            beside=PlainPart(plain.pooling, plain.whitening, plain.dim),
        ).eval()

    def fingerprint(self) -> str:
        """Sha256 over configuration and weights: two models that agree describe alike."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save_pretrained(
        self, folder: str | Path, *, include_backbone: bool = False, half: bool = False
    ) -> None:
        """Write ``config.json`` and ``model.safetensors``, each atomically.

        Args:
            folder: made if it isn't there.
            include_backbone: also the backbone's weights; needed when they were trained.
            half: keep weights in half precision, at half the size; they are used in float32.
        """
        from safetensors.torch import save

        weights = {
            name: _stored(value, half)
            for name, value in self.state_dict().items()
            if include_backbone or not name.startswith("backbone.")
        }
        with atomic_writer(Path(folder) / "model.safetensors") as file:
            file.write(save(weights))
        write_json(Path(folder) / "config.json", asdict(self.config))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "RetrievalModel":
        """Read what :meth:`save_pretrained` wrote; a backbone that isn't in it comes from timm.

        Raises:
            ValueError: if a file is missing or damaged, or the weights don't fit the configuration.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        try:
            config = ModelConfig.from_json(json.loads((folder / "config.json").read_text()))
            weights = load_file(folder / "model.safetensors")
        except (OSError, SafetensorError, json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"{folder}: no readable model ({error})") from error
        whole = any(name.startswith("backbone.") for name in weights)
        model = build_model(config, pretrained=not whole)
        expected = {
            name: value.shape
            for name, value in model.state_dict().items()
            if whole or not name.startswith("backbone.")
        }
        found = {name: value.shape for name, value in weights.items()}
        if different := sorted(expected.items() ^ found.items()):
            raise ValueError(
                f"{folder}: the weights are not of this configuration ({different[0][0]} differs)"
            )
        model.load_state_dict(weights, strict=False)
        return model


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


def embedded_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in _WEIGHTS.glob("*/config.json"))


def load_model(name_or_path: str | Path, *, device: str = "auto") -> RetrievalModel:
    """Load an embedded model by name, a saved one by folder, or one of the Hugging Face Hub by id.

    Raises:
        ValueError: if there is no such model, or its files are damaged.
    """
    name = str(name_or_path)
    if name in embedded_models():
        folder = _WEIGHTS / name
    elif Path(name).is_dir():
        folder = Path(name)
    elif name.count("/") == 1 and not name.startswith((".", "/")):
        folder = _from_hub(name)
    else:
        raise ValueError(
            f"expected one of {', '.join(embedded_models())}, a folder with config.json and "
            f"model.safetensors, or a Hub id like owner/name; got {name!r}"
        )
    return RetrievalModel.from_pretrained(folder).to(choose_device(device))


def choose_device(device: str = "auto") -> torch.device:
    """ "auto" is cuda, else mps, else cpu; any other name is taken as it is."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _plain_part(backbone: Backbone, config: ModelConfig) -> PlainPart:
    if config.context or config.beside:
        raise ValueError("expected a plain model beside this one, got one with context layers")
    channels = backbone.layer_channels(config.layer)
    return PlainPart(GeM(config.p), _whitening(channels, config.dim), config.dim or channels)


def _whitening(channels: int, dim: int | None) -> nn.Module:
    return nn.Linear(channels, dim) if dim else nn.Identity()


def _whitened(pooling: nn.Module, whitening: nn.Module, x: Tensor) -> Tensor:
    pooled = nn.functional.normalize(pooling(x), dim=1)
    return nn.functional.normalize(whitening(pooled), dim=1)


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if half and value.is_floating_point() else value


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


def _scaled(images: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return images
    if not scale > 0:
        raise ValueError(f"expected scales > 0, got {scale}")
    size = [max(1, round(side * scale)) for side in images.shape[-2:]]
    return nn.functional.interpolate(
        images, size=size, mode="bilinear", align_corners=False, antialias=scale < 1
    )


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["config.json", "model.safetensors"]))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{name!r} is neither a folder here nor can it be fetched from the Hugging Face Hub "
            f"({type(error).__name__}); embedded models: {', '.join(embedded_models())}"
        ) from error
