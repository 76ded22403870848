"""What training minimises: a weighted sum of losses over one batch of unit descriptors.

CosFace (Wang et al. 2018) and ArcFace (Deng et al. 2019) hold a proxy for each label; supervised
contrastive (Khosla et al. 2020), contrastive (Hadsell et al. 2006), triplet (Schroff et al. 2015)
and multi-similarity (Wang et al. 2019) compare the batch with itself; all from
pytorch-metric-learning. The second-order similarity loss (Tian et al. 2019) is the project's own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Objective", "ObjectiveConfig", "kept_similarities", "side_by_side"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """Weights of the losses (0 leaves one out) and their constants.

    Args:
        margin: of CosFace (cosine) and ArcFace (radians).
        scale: of CosFace and ArcFace.
        temperature: of the supervised contrastive loss.
        triplet_margin: in Euclidean distance of unit rows, semi-hard triplets.
        keep: weight of :func:`kept_similarities`, for items that a teacher describes.
        beside: weight of a supervised contrastive loss over the descriptors as they will be used,
            with a plain model's rows beside them (:func:`side_by_side`): what the plain model
            confuses weighs most. ``share`` is the plain model's part in a similarity,
            ``beside_temperature`` the loss's.
    """

    cosface: float = 1.0
    arcface: float = 0.0
    supcon: float = 1.0
    contrastive: float = 0.0
    triplet: float = 0.0
    multi_similarity: float = 0.0
    sos: float = 0.0
    keep: float = 0.0
    beside: float = 0.0
    share: float = 0.65
    beside_temperature: float = 0.025
    margin: float = 0.15
    scale: float = 24.0
    temperature: float = 0.07
    triplet_margin: float = 0.2

    def __post_init__(self) -> None:
        weights = [*(getattr(self, name) for name in _LOSSES), self.keep, self.beside]
        if min(weights) < 0 or not sum(weights) > 0:
            raise ValueError(f"expected loss weights ≥ 0, at least one above, got {weights}")
        positive = (self.scale, self.temperature, self.beside_temperature)
        if not min(positive) > 0:
            raise ValueError(f"expected scale and temperatures > 0, got {positive}")
        if not 0 <= self.share < 1:
            raise ValueError(f"expected a share in [0, 1), got {self.share}")


_LOSSES = ("cosface", "arcface", "supcon", "contrastive", "triplet", "multi_similarity", "sos")


def kept_similarities(descriptors: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference between own and a teacher's similarities of unlike items.

    Relational distillation (Park et al. 2019): where the teacher is better, its geometry is kept.

    Args:
        descriptors: (B, D) unit rows.
        labels: (B,); pairs of one label are left to the other losses.
        teacher: (B, D') unit rows, NaN where it has no say.

    Returns:
        A scalar, 0 where there is no such pair.
    """
    known = ~teacher.isnan().any(dim=1)  # (B,)
    own, labels, teacher = descriptors[known], labels[known], teacher[known]
    unlike = labels[:, None] != labels
    difference = (own @ own.T - teacher @ teacher.T).square() * unlike
    return difference.sum() / unlike.sum().clamp(min=1)


def side_by_side(descriptors: Tensor, plain: Tensor, share: float) -> Tensor:
    """Unit rows whose similarity is share·plain + (1 − share)·own, as ``model.beside`` makes them.

    Args:
        descriptors: (B, D) unit rows.
        plain: (B, D') unit rows.
        share: in [0, 1).

    Returns:
        (B, D' + D).
    """
    return torch.cat([share**0.5 * plain, (1 - share) ** 0.5 * descriptors], dim=1)


class Objective(nn.Module):
    """The weighted sum; proxies, where a loss has them, are its parameters.

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
        self.weights = {n: getattr(config, n) for n in _LOSSES if getattr(config, n) > 0}
        self.keep, self.beside, self.share = config.keep, config.beside, config.share
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.losses, self.miners = _build(config, labels, dimensions)
        self._whole = _supervised_contrastive(config.beside_temperature)

    def forward(
        self,
        descriptors: Tensor,
        labels: Tensor,
        teacher: Tensor | None = None,
        plain: Tensor | None = None,
    ) -> Tensor:
        """(B, D) unit rows, (B,) labels, maybe (B, D') rows of teacher and plain → the loss."""
        total = sum(
            weight * self._one(name, descriptors, labels) for name, weight in self.weights.items()
        )
        if self.keep and teacher is not None:
            total = total + self.keep * kept_similarities(descriptors, labels, teacher)
        if self.beside and plain is not None:
            whole = side_by_side(descriptors, plain, self.share)
            total = total + self.beside * self._whole(whole, labels)
        return total

    def parts(self, descriptors: Tensor, labels: Tensor) -> dict[str, float]:
        """Each loss by its name, without its weight."""
        return {n: float(self._one(n, descriptors, labels).detach()) for n in self.weights}

    def _one(self, name: str, descriptors: Tensor, labels: Tensor) -> Tensor:
        loss = self.losses[name]
        if name in self.miners:
            return loss(descriptors, labels, self.miners[name](descriptors, labels))
        return loss(descriptors, labels)


def _build(
    config: ObjectiveConfig, labels: int, dimensions: int
) -> tuple[nn.ModuleDict, nn.ModuleDict]:
    from pytorch_metric_learning import losses, miners

    made: dict[str, nn.Module] = {}
    if config.cosface:
        made["cosface"] = losses.CosFaceLoss(
            labels, dimensions, margin=config.margin, scale=config.scale
        )
    if config.arcface:
        made["arcface"] = losses.ArcFaceLoss(
            labels, dimensions, margin=57.2958 * config.margin, scale=config.scale
        )
    if config.supcon:
        made["supcon"] = _supervised_contrastive(config.temperature)
    if config.contrastive:
        made["contrastive"] = losses.ContrastiveLoss(pos_margin=0, neg_margin=0.7)
    if config.triplet:
        made["triplet"] = losses.TripletMarginLoss(margin=config.triplet_margin)
    if config.multi_similarity:
        made["multi_similarity"] = losses.MultiSimilarityLoss()
    if config.sos:
        made["sos"] = _SecondOrder()
    mined: dict[str, nn.Module] = {}
    if config.triplet:
        mined["triplet"] = miners.TripletMarginMiner(
            margin=config.triplet_margin, type_of_triplets="semihard"
        )
    if config.multi_similarity:
        mined["multi_similarity"] = miners.MultiSimilarityMiner()
    return nn.ModuleDict(made), nn.ModuleDict(mined)


def _supervised_contrastive(temperature: float) -> nn.Module:
    from pytorch_metric_learning import losses

    return losses.SupConLoss(temperature=temperature)


class _SecondOrder(nn.Module):
    """The second-order similarity loss of each row, one positive and its nearest strangers.

    Args:
        negatives: strangers of each pair; fewer where the batch has fewer.
    """

    def __init__(self, negatives: int = 4) -> None:
        super().__init__()
        self.negatives = negatives

    def forward(self, descriptors: Tensor, labels: Tensor) -> Tensor:
        """(B, D) unit rows and (B,) labels → the loss, a scalar."""
        from spatial_retrieval.train.losses import second_order_similarity

        same = labels[:, None] == labels  # (B, B)
        later = torch.triu(same, diagonal=1)
        anchors = later.any(dim=1).nonzero().squeeze(1)  # (Q,)
        strangers = int((~same[anchors]).sum(dim=1).min()) if len(anchors) else 0
        if not strangers:
            return 0 * descriptors.sum()
        positives = later[anchors].float().argmax(dim=1)
        similar = (descriptors @ descriptors.T).detach().masked_fill(same, -2)
        nearest = similar[anchors].topk(min(self.negatives, strangers), dim=1).indices  # (Q, R)
        return second_order_similarity(
            descriptors[anchors], descriptors[positives], descriptors[nearest]
        )
