"""Train what stands behind a frozen backbone, on maps that were cached."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spatial_retrieval.layers.whitening import pca_whitening
from spatial_retrieval.models import RetrievalModel
from spatial_retrieval.train.data import LabelledSet

__all__ = ["HeadsOnMaps", "TurnedWhitening", "save_trained"]


class TurnedWhitening(nn.Module):
    """A fixed linear map, a normalisation, and a trained linear map; they fold into one layer.

    After the fixed map (principal components) and the batch norm every direction has unit spread
    and learns at the same pace; the trained map starts by giving each its spread back, so that at
    the start the whole is the fixed map.

    Args:
        fixed: (B, C) → (B, D), kept as it is.
        mean: (D,) and
        spread: (D,) of its outputs on the training set.
    """

    def __init__(self, fixed: nn.Linear, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.fixed = copy.deepcopy(fixed).requires_grad_(False)
        self.norm = nn.BatchNorm1d(fixed.out_features, affine=False)
        self.turn = nn.Linear(fixed.out_features, fixed.out_features)
        with torch.no_grad():
            self.norm.running_mean.copy_(mean)
            self.norm.running_var.copy_(spread.square())
            self.turn.weight.copy_(torch.diag(spread))
            self.turn.bias.copy_(mean)

    @property
    def out_features(self) -> int:
        """D."""
        return self.turn.out_features

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) → (B, D)."""
        return self.turn(self.norm(self.fixed(x)))

    def folded(self) -> nn.Linear:
        """The same map, with the statistics of the whole training, as one linear layer."""
        layer = nn.Linear(self.fixed.in_features, self.out_features).to(self.turn.weight)
        scale = (self.norm.running_var + self.norm.eps).rsqrt()  # (D,)
        with torch.no_grad():
            turn = self.turn.weight * scale  # (D, D)
            layer.weight.copy_(turn @ self.fixed.weight)
            shift = self.fixed.bias - self.norm.running_mean
            layer.bias.copy_(turn @ shift + self.turn.bias)
        return layer


class HeadsOnMaps(nn.Module):
    """The part of a retrieval model behind the backbone: (B, C, H, W) maps → (B, D) unit rows.

    It shares the context layers with ``model``, which goes with it from device to device;
    :meth:`finish` gives back the whole model.

    Raises:
        ValueError: if the model has a base, or its head reads more than one map.
    """

    def __init__(self, model: RetrievalModel) -> None:
        super().__init__()
        one = len(model.head.branches) == 1 and model.head.layers == (model.backbone.layer,)
        if model.base is not None or not one:
            heads = ", ".join(model.heads)
            raise ValueError(
                f"expected a model of one branch that reads {model.backbone.layer}, got {heads} "
                f"reading {', '.join(model.head.layers)}; fuse models after their training"
            )
        self.context, self.pooling = model.context, model.pooling
        self.whitening = model.whitening
        self._model = [model]  # in a list: its backbone is no part of this module

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "HeadsOnMaps":
        self._model[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @property
    def dim(self) -> int:
        """D."""
        return self._model[0].dim

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) → (B, D) unit rows."""
        return nn.functional.normalize(self.whitening(self.pooled(maps)), dim=1)

    def pooled(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C) unit rows: what the whitening sees."""
        return nn.functional.normalize(self.pooling(self.context(maps)), dim=1)

    def whiten(
        self, data: LabelledSet, *, power: float = 0.375, most: int = 1500, seed: int = 0
    ) -> "HeadsOnMaps":
        """Start the last layer from the principal components of the pooled maps; returns self.

        Args:
            data: maps to fit on.
            power: of the eigenvalues: 0.5 whitens fully, 0 only rotates.
            most: so many items at most, drawn at random by ``seed``.
        """
        chosen = np.random.default_rng(seed).permutation(len(data))[:most]
        self.eval()
        device = self._model[0].device
        with torch.no_grad():
            batches = (torch.stack([data[int(i), 0] for i in ids]) for ids in _in_tens(chosen))
            rows = torch.cat([self.pooled(maps.to(device)) for maps in batches])  # (M, C)
            fixed = pca_whitening(rows, power=power).linear(self.dim)
            out = fixed(rows)
            self.whitening = TurnedWhitening(fixed, out.mean(dim=0), out.std(dim=0).clamp(1e-6))
        return self

    def finish(self) -> RetrievalModel:
        """The whole model with what was trained, its whitening folded into one layer."""
        model = self._model[0]
        if isinstance(self.whitening, TurnedWhitening):
            model.head.whitening = self.whitening.folded()
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Save the whole model without its backbone, as ``load_model`` reads it."""
        self.finish().save_pretrained(folder)


def _in_tens(items: np.ndarray) -> list[np.ndarray]:
    return np.array_split(items, -(-len(items) // 10))


def save_trained(model: nn.Module, folder: Path) -> None:
    """Save a model as ``load_model`` reads it; its backbone too, when that was trained."""
    backbone = getattr(model, "backbone", None)
    if backbone is not None and any(p.requires_grad for p in backbone.parameters()):
        model.save_pretrained(folder, include_backbone=True)
    else:
        model.save_pretrained(folder)
