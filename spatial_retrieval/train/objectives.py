"""What training minimises: a weighted sum of losses over one batch of unit descriptors.

CosFace (Wang et al., CVPR 2018) holds a proxy for each label; supervised contrastive (Khosla et
al., NeurIPS 2020) compares the batch with itself; both from pytorch-metric-learning. Relational
distillation (Park et al., CVPR 2019) keeps a teacher's similarities.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spatial_retrieval.train.reading import renamed

__all__ = ["Objective", "ObjectiveConfig", "fused_rows", "kept_similarities"]

_RENAMED = {"beside": "fused", "share": "base_weight", "beside_temperature": "fused_temperature"}
_GONE = dict.fromkeys(("arcface", "contrastive", "triplet", "multi_similarity", "sos"), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """Weights of the losses (0 leaves one out) and their constants.

    Args:
        cosface, supcon: weights of CosFace and of the supervised contrastive loss.
        keep: weight of :func:`kept_similarities`, for items that a teacher describes.
        fused: weight of a supervised contrastive loss over the descriptors as they will be used,
            fused with a base model's (:func:`fused_rows`): what the base model confuses weighs
            most. ``base_weight`` is the base model's weight in a similarity,
            ``fused_temperature`` the loss's temperature.
        margin, scale: of CosFace.
        temperature: of the supervised contrastive loss.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    cosface: float = 1.0
    supcon: float = 1.0
    keep: float = 0.0
    fused: float = 0.0
    base_weight: float = 0.65
    fused_temperature: float = 0.025
    margin: float = 0.15
    scale: float = 24.0
    temperature: float = 0.07

    def __post_init__(self) -> None:
        weights = [self.cosface, self.supcon, self.keep, self.fused]
        if min(weights) < 0 or not sum(weights) > 0:
            raise ValueError(f"expected loss weights ≥ 0, at least one above, got {weights}")
        positive = (self.scale, self.temperature, self.fused_temperature)
        if not min(positive) > 0:
            raise ValueError(f"expected scale and temperatures > 0, got {positive}")
        if not 0 <= self.base_weight < 1:
            raise ValueError(f"expected a base_weight in [0, 1), got {self.base_weight}")

    @staticmethod
    def up_to_date(value: Mapping[str, Any]) -> dict[str, Any]:
        """The same values under today's keys.

        Raises:
            ValueError: if a loss is asked for that no longer exists.
        """
        return renamed(value, _RENAMED, _GONE | {"triplet_margin": value.get("triplet_margin")})


def kept_similarities(descriptors: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference between own and a teacher's similarities of unlike items.

    Where the teacher is better, its geometry is kept.

    Args:
        descriptors: (B, D) unit rows.
        labels: (B,); pairs of one label are left to the other losses.
        teacher: (B, D') unit rows, NaN for items it does not describe.

    Returns:
        A scalar, 0 where there is no such pair.
    """
    known = ~teacher.isnan().any(dim=1)  # (B,)
    own, labels, teacher = descriptors[known], labels[known], teacher[known]
    unlike = labels[:, None] != labels
    difference = (own @ own.T - teacher @ teacher.T).square() * unlike
    return difference.sum() / unlike.sum().clamp(min=1)


def fused_rows(context: Tensor, base: Tensor, base_weight: float) -> Tensor:
    """Unit rows whose similarity is base_weight·base + (1 − base_weight)·context.

    Args:
        context: (B, D) unit rows.
        base: (B, D') unit rows.
        base_weight: in [0, 1).

    Returns:
        (B, D' + D).
    """
    return torch.cat([base_weight**0.5 * base, (1 - base_weight) ** 0.5 * context], dim=1)


class Objective(nn.Module):
    """The weighted sum; CosFace's proxies are its parameters.

    Args:
        config: weights and constants.
        labels: L, number of labels that proxies are held for.
        dimensions: D of the descriptors.
        seed: of the proxies' start.
    """

    def __init__(
        self, config: ObjectiveConfig, *, labels: int, dimensions: int, seed: int = 0
    ) -> None:
        super().__init__()
        from pytorch_metric_learning import losses

        self.config = config
        self.losses = nn.ModuleDict()
        if config.cosface:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.losses["cosface"] = losses.CosFaceLoss(
                    labels, dimensions, margin=config.margin, scale=config.scale
                )
        if config.supcon:
            self.losses["supcon"] = losses.SupConLoss(temperature=config.temperature)
        self._fused = losses.SupConLoss(temperature=config.fused_temperature)

    def forward(
        self,
        descriptors: Tensor,
        labels: Tensor,
        teacher: Tensor | None = None,
        base: Tensor | None = None,
    ) -> Tensor:
        """(B, D) unit rows, (B,) labels, maybe (B, D') rows of teacher and base → the loss."""
        config = self.config
        parts = [
            getattr(config, name) * loss(descriptors, labels) for name, loss in self.losses.items()
        ]
        if config.keep and teacher is not None:
            parts.append(config.keep * kept_similarities(descriptors, labels, teacher))
        if config.fused and base is not None:
            whole = fused_rows(descriptors, base, config.base_weight)
            parts.append(config.fused * self._fused(whole, labels))
        return sum(parts) if parts else 0 * descriptors.sum()
