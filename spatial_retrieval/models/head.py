r"""From the maps of a backbone to a descriptor: branches, concatenation, whitening.

A branch takes one of the backbone's maps, runs its context layers and pools; a head joins its
branches, each at unit length times a fixed scale, and whitens:

.. math:: v_b = s_b \frac{\mathrm{pool}_b(\mathrm{context}_b(x_b))}{\lVert\cdot\rVert}, \qquad
    d = \frac{W [v_1; v_2; \dots]}{\lVert\cdot\rVert}
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spatial_retrieval.models.modules import build_module, describe_module

__all__ = ["Branch", "Head", "Maps"]

Maps = Mapping[str, Tensor]  # layer → (B, C, H, W)


class Branch(nn.Module):
    """One map → context → pooling → (B, D) rows.

    Args:
        layers: of the backbone; the context works on the first, the pooling gets all of them.
        context: named layers (B, C, H, W) → (B, C, H, W), run in order.
        pooling: (B, C, H, W), … → (B, D).
        scale: length of the pooled rows; None leaves them as the pooling gives them.
    """

    def __init__(
        self,
        layers: str | Sequence[str],
        pooling: nn.Module,
        *,
        context: Mapping[str, nn.Module] | None = None,
        scale: float | None = 1.0,
    ) -> None:
        super().__init__()
        self.layers = (layers,) if isinstance(layers, str) else tuple(layers)
        self.context = nn.Sequential(OrderedDict(context or {}))
        self.pooling = pooling
        self.scale = scale

    def forward(self, maps: Maps) -> Tensor:
        """Maps by layer → (B, D) rows of length ``scale``."""
        return self.pooled(*self.refined(maps))

    def refined(self, maps: Maps) -> list[Tensor]:
        """The maps that are pooled: the first one after the context, others as they are."""
        first, *others = (maps[layer] for layer in self.layers)
        return [self.context(first), *others]

    def pooled(self, *refined: Tensor) -> Tensor:
        """(B, C, H, W), … → (B, D) rows of length ``scale``."""
        rows = self.pooling(*refined)
        return rows if self.scale is None else self.scale * nn.functional.normalize(rows, dim=1)

    def describe(self) -> dict[str, Any]:
        """As JSON holds it, see :func:`~spatial_retrieval.models.modules.describe_module`."""
        context = [[name, describe_module(layer)] for name, layer in self.context.named_children()]
        pooling = describe_module(self.pooling)
        return {
            "layers": [*self.layers],
            "context": context,
            "pooling": pooling,
            "scale": self.scale,
        }

    @classmethod
    def build(cls, value: Mapping[str, Any], trusted: Sequence[str]) -> "Branch":
        """Build what :meth:`describe` described."""
        context = {name: build_module(part, trusted=trusted) for name, part in value["context"]}
        pooling = build_module(value["pooling"], trusted=trusted)
        return cls(value["layers"], pooling, context=context, scale=value["scale"])


class Head(nn.Module):
    """Branches → one vector → whitening → (B, D) unit rows.

    Args:
        branches: at least one.
        whitening: (B, ΣD) → (B, D); ``nn.Identity()`` for none.
    """

    def __init__(self, branches: Sequence[Branch], whitening: nn.Module) -> None:
        super().__init__()
        if not branches:
            raise ValueError("expected at least one branch, got none")
        self.branches = nn.ModuleList(branches)
        self.whitening = whitening

    @property
    def layers(self) -> tuple[str, ...]:
        """The backbone's layers that the branches read, each once."""
        return tuple(dict.fromkeys(layer for branch in self.branches for layer in branch.layers))

    @property
    def main(self) -> Branch:
        """The first branch with context layers, or else the first."""
        with_context = (branch for branch in self.branches if len(branch.context))
        return next(with_context, self.branches[0])

    def forward(self, maps: Maps) -> Tensor:
        """Maps by layer → (B, D) unit rows."""
        return self.whitened(self.pooled(maps))

    def pooled(self, maps: Maps) -> Tensor:
        """Maps by layer → (B, ΣD): the joined branches, which the whitening sees."""
        return torch.cat([branch(maps) for branch in self.branches], dim=1)

    def whitened(self, pooled: Tensor) -> Tensor:
        """(B, ΣD) → (B, D) unit rows, in the whitening's precision."""
        weight = next(self.whitening.parameters(), pooled)  # second order is never half
        return nn.functional.normalize(self.whitening(pooled.to(weight.dtype)), dim=1)

    def describe(self) -> dict[str, Any]:
        """As JSON holds it."""
        branches = [branch.describe() for branch in self.branches]
        return {"branches": branches, "whitening": describe_module(self.whitening)}

    @classmethod
    def build(cls, value: Mapping[str, Any], trusted: Sequence[str]) -> "Head":
        """Build what :meth:`describe` described.

        Raises:
            ValueError: if something is missing, or a class isn't trusted.
        """
        try:
            branches = [Branch.build(branch, trusted) for branch in value["branches"]]
            return cls(branches, build_module(value["whitening"], trusted=trusted))
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected a head's branches and whitening, got {error}") from error
