"""Training: one visible loop, the same in a notebook cell, on the command line and on many GPUs.

``train(model, data, config)`` trains whatever maps a batch (B, …) to unit rows (B, D): a whole
:class:`~spatial_retrieval.model.RetrievalModel` on images (end to end), or
:class:`~spatial_retrieval.training.heads.HeadsOnMaps` on cached feature maps (frozen backbone).
A run writes ``last.pt`` (all that is needed to go on) and ``best.pt`` into its output folder, and
going on is the default: call it again. On several processes (``accelerate launch``,
``accelerate.notebook_launcher``) each loads its share of every batch, and the loss sees all of it.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from spatial_retrieval.training.interrupt import Interrupt
from spatial_retrieval.training.loading import Batch
from spatial_retrieval.training.objectives import ObjectiveConfig
from spatial_retrieval.training.run import Run
from spatial_retrieval.training.sets import LabelledSet, TrainingData

__all__ = ["TrainConfig", "TrainResult", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """All numbers of a run; its JSON form is kept in the output folder.

    Args:
        output: folder of checkpoints and history.
        steps: optimizer steps in all.
        groups: landmarks in a batch, each with its twin where there are twins.
        views: items of each label in a batch; ``accumulate`` batches make a step.
        lr: peak learning rate of AdamW, after ``warmup`` steps, before the cosine to 0.
        slower: (start of a parameter's name, factor on ``lr``), the first that fits counts.
        clip: largest gradient norm.
        precision: "auto" is bf16 (or fp16) on a GPU that has it, full precision elsewhere.
        frozen_statistics: starts of names of modules whose batch norms keep their statistics.
        workers: processes that load items ahead.
        validate_every, checkpoint_every: in steps; both also happen at the end.
        best_by: validation score that chooses the best step; empty: the first one.
        patience: stop after so many validations without a better score; 0: never.
        mine_every: look for hard landmarks every so many steps; 0: never.
    """

    output: str
    steps: int = 400
    groups: int = 8
    views: int = 2
    accumulate: int = 1
    lr: float = 4e-3
    slower: tuple[tuple[str, float], ...] = ()
    weight_decay: float = 1e-3
    warmup: int = 40
    clip: float = 5.0
    seed: int = 0
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    frozen_statistics: tuple[str, ...] = ("backbone",)
    workers: int = 0
    validate_every: int = 100
    checkpoint_every: int = 100
    best_by: str = ""
    patience: int = 0
    mine_every: int = 0
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    def __post_init__(self) -> None:
        counts = ("steps", "groups", "accumulate", "validate_every", "checkpoint_every")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if not (self.lr > 0 and self.clip > 0):
            raise ValueError(f"expected lr and clip > 0, got {self.lr} and {self.clip}")
        if self.precision not in ("auto", "no", "bf16", "fp16"):
            raise ValueError(f"expected precision auto, no, bf16 or fp16, got {self.precision!r}")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TrainConfig":
        """Read what ``asdict`` wrote; an unknown key is an error, not ignored."""
        for kind, part in ((cls, value), (ObjectiveConfig, value.get("objective", {}))):
            unknown = set(part) - {f.name for f in fields(kind)}
            if unknown:
                raise ValueError(f"unknown keys in a training's config: {sorted(unknown)}")
        slower = tuple((str(start), float(factor)) for start, factor in value.get("slower", ()))
        frozen = tuple(value.get("frozen_statistics", ("backbone",)))
        objective = ObjectiveConfig(**value.get("objective", {}))
        return cls(
            **{**value, "slower": slower, "frozen_statistics": frozen, "objective": objective}
        )


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run gives back; the model itself holds the best weights.

    Attributes:
        history: one row a step ("step", "loss", "lr", "norm"), some with validation scores.
        best_step, best: where the score that chooses was highest, and that score (NaN: none).
        path: the saved model, or the best checkpoint of a module that cannot save itself.
        interrupted: whether it was stopped; the same call goes on.
        seconds: of training and validation, over all resumed parts.
    """

    history: list[dict[str, float]]
    best_step: int
    best: float
    path: Path
    interrupted: bool
    seconds: float


def train(
    model: nn.Module,
    data: TrainingData | LabelledSet,
    config: TrainConfig,
    *,
    callback: Callable[[list[dict[str, float]]], None] | None = None,
    resume: bool = True,
) -> TrainResult:
    """Train ``model`` in place and leave the best weights in it.

    Args:
        model: (B, …) → (B, D) unit rows; parameters that don't require gradients stay.
        data: what to learn from.
        callback: called with the history after every step (a live figure:
            :class:`spatial_retrieval.plots.training.LiveTraining`).
        resume: go on from ``last.pt`` in the output folder where there is one.

    Raises:
        ValueError: if the data cannot be learned from, the checkpoint is of another model, data or
            config, an item cannot be read, or the loss is no number (naming the batch). The last
            good checkpoint stays as it was.
    """
    data = data if isinstance(data, TrainingData) else TrainingData(data)
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices), Interrupt() as interrupt:
        run = Run(model, data, config)
        if resume:
            run.resume()
        began = time.monotonic() - run.seconds
        for batches in run.steps():
            row = _step(run, batches)
            if run.due(config.validate_every):
                row |= run.validate()
            run.seconds = time.monotonic() - began
            stop = run.agreed(interrupt.asked) or run.patience_is_over
            if stop or run.due(config.checkpoint_every):
                run.save()
            if callback is not None and run.is_main:
                callback(run.history)
            if stop:
                break
        return run.finish(interrupted=interrupt.asked and run.step < config.steps)


def _step(run: Run, batches: list[Batch]) -> dict[str, float]:
    """One optimizer step: forward, loss over all processes, backward, clip, update."""
    total = 0.0
    run.before_step()
    for last, batch in zip([False] * (len(batches) - 1) + [True], batches, strict=True):
        with nullcontext() if last else run.accelerator.no_sync(run.wrapped):
            with run.autocast():
                descriptors = run.wrapped(batch.items.to(run.device))
            loss = run.loss(descriptors.float(), batch) / len(batches)
            run.scaler.scale(loss).backward()
        total += float(loss.detach())
    run.scaler.unscale_(run.optimizer)
    norm = nn.utils.clip_grad_norm_(run.parameters, run.config.clip)
    run.check_finite(norm, batches)
    lr = run.schedule.get_last_lr()[0]
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.schedule.step()
    return run.record({"loss": total, "lr": lr, "norm": float(norm)})
