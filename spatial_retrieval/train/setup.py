"""What a run is set up with: objective, parameter groups, learning rate, precision."""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor, nn

from spatial_retrieval.train.config import TrainConfig
from spatial_retrieval.train.data import LabelledSet
from spatial_retrieval.train.objectives import Objective
from spatial_retrieval.train.samplers import BatchSource

__all__ = [
    "data_digest",
    "half_precision",
    "has_idle_parameters",
    "lr_factor",
    "new_objective",
    "parameter_groups",
]


def new_objective(
    model: nn.Module, data: LabelledSet, source: BatchSource, config: TrainConfig
) -> Objective:
    """The config's losses, with proxies of the size that ``model`` gives, on its device."""
    device = next(model.parameters()).device
    item = data[int(source.batch(0)[0]), 0].to(device)
    labels = int(data.labels.max()) + 1
    dimensions = _dimensions(model, item)
    objective = Objective(config.objective, labels=labels, dimensions=dimensions, seed=config.seed)
    return objective.to(device)


def parameter_groups(
    model: nn.Module, objective: nn.Module, config: TrainConfig
) -> list[dict[str, object]]:
    """AdamW's groups: weight decay for matrices alone, each factor of ``slower`` its own rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in (*model.named_parameters(), *objective.named_parameters(prefix="objective")):
        if not p.requires_grad:
            continue
        fits = (factor for start, factor in config.slower if name.startswith(start))
        decay = config.weight_decay if p.ndim > 1 else 0.0
        groups.setdefault((next(fits, 1.0), decay), []).append(p)
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("expected a model with parameters that require gradients, got none")
    return [
        {"params": parameters, "lr": config.lr * factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]


def has_idle_parameters(model: nn.Module, item: Tensor) -> bool:
    """Whether parameters get no gradient from an item, as layers behind the one that is used.

    Data-parallel training waits for all gradients unless it is told.
    """
    was_training = model.training
    before = [p.grad for p in model.parameters()]
    device = next(model.parameters()).device
    model.eval()(item[None].to(device)).sum().backward()
    idle = any(p.requires_grad and p.grad is None for p in model.parameters())
    for p, grad in zip(model.parameters(), before, strict=True):
        p.grad = grad
    model.train(was_training)
    return idle


def lr_factor(step: int, *, steps: int, warmup: int) -> float:
    """Linear warm-up to 1 within a tenth of the steps at most, then half a cosine to 0."""
    warmup = min(warmup, steps // 10)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def half_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """The type of autocast, None for full precision; "auto" is half on a GPU that has it."""
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def data_digest(data: LabelledSet) -> dict[str, object]:
    """What a checkpoint remembers of its data: sizes, and a digest of labels and twins."""
    arrays = [np.ascontiguousarray(data.labels), np.ascontiguousarray(data.twin_of)]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    return {"items": len(data), "labels": len(np.unique(data.labels)), "sha256": digest[:16]}


def _dimensions(model: nn.Module, item: Tensor) -> int:
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        rows = model(item[None])
    model.train(was_training)
    if rows.ndim != 2:
        raise ValueError(f"expected a model that gives (B, D) rows, got {tuple(rows.shape)}")
    return rows.shape[1]
