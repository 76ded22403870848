"""Train what stands behind a frozen backbone, on maps that were cached."""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spatial_retrieval.layers.whitening import Whitening
from spatial_retrieval.model import RetrievalModel
from spatial_retrieval.training.sets import LabelledSet

__all__ = ["HeadsOnMaps", "TurnedWhitening", "save_model"]


class TurnedWhitening(nn.Module):
    """A fixed whitening followed by a trained linear map that starts as the identity.

    In whitened coordinates every direction learns at the same pace; both fold into one layer.

    Args:
        whitening: (B, C) → (B, D), kept as it is.
    """

    def __init__(self, whitening: nn.Linear) -> None:
        super().__init__()
        self.fixed = copy.deepcopy(whitening).requires_grad_(False)
        self.turn = nn.Linear(whitening.out_features, whitening.out_features)
        with torch.no_grad():
            nn.init.eye_(self.turn.weight)
            nn.init.zeros_(self.turn.bias)

    @property
    def out_features(self) -> int:
        """D."""
        return self.turn.out_features

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) → (B, D)."""
        return self.turn(self.fixed(x))

    def folded(self) -> nn.Linear:
        """The same map as one linear layer."""
        layer = nn.Linear(self.fixed.in_features, self.out_features).to(self.turn.weight)
        with torch.no_grad():
            layer.weight.copy_(self.turn.weight @ self.fixed.weight)
            layer.bias.copy_(self.turn.weight @ self.fixed.bias + self.turn.bias)
        return layer


class HeadsOnMaps(nn.Module):
    """The part of a retrieval model behind the backbone: (B, C, H, W) maps → (B, D) unit rows.

    It shares the context layers with ``model``; :meth:`finish` gives back the whole model.

    Args:
        model: with a linear whitening, or none.
    """

    def __init__(self, model: RetrievalModel) -> None:
        super().__init__()
        self.context, self.pooling = model.context, model.pooling
        linear = isinstance(model.whitening, nn.Linear)
        self.whitening = TurnedWhitening(model.whitening) if linear else model.whitening
        self._model = [model]  # in a list: its backbone is no part of this module

    @property
    def dim(self) -> int:
        """D."""
        return self._model[0].dim

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) → (B, D) unit rows."""
        pooled = nn.functional.normalize(self.pooling(self.context(maps)), dim=1)
        return nn.functional.normalize(self.whitening(pooled), dim=1)

    def pooled(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C) unit rows: what the whitening sees."""
        return nn.functional.normalize(self.pooling(self.context(maps)), dim=1)

    def pooled_rows(self, data: LabelledSet, *, most: int, seed: int = 0) -> Tensor:
        """(M, C) pooled maps of at most ``most`` items drawn at random, for fitting a whitening."""
        chosen = np.random.default_rng(seed).permutation(len(data))[:most]
        self.eval()
        with torch.inference_mode():
            rows = [self.pooled(data[int(i), 0][None]) for i in chosen]
        return torch.cat(rows).clone()

    def start_from(self, whitening: Whitening, dim: int) -> "HeadsOnMaps":
        """Take this whitening, cut to ``dim``, as the fixed part; returns a new module."""
        return HeadsOnMaps(self._model[0].with_whitening(whitening, dim))

    def finish(self) -> RetrievalModel:
        """The whole model with what was trained, its whitening folded into one layer."""
        model = self._model[0]
        if isinstance(self.whitening, TurnedWhitening):
            model.whitening = self.whitening.folded()
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Save the whole model without its backbone, as ``load_model`` reads it."""
        self.finish().save_pretrained(folder)


def save_model(model: nn.Module, folder: Path) -> None:
    """Save a model as ``load_model`` reads it; its backbone too, when that was trained."""
    backbone = getattr(model, "backbone", None)
    if backbone is not None and any(p.requires_grad for p in backbone.parameters()):
        model.save_pretrained(folder, include_backbone=True)
    else:
        model.save_pretrained(folder)
