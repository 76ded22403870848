"""Training: one visible loop, the same in a notebook cell, on the command line and on many GPUs.

``train(model, data, config)`` trains whatever maps a batch (B, …) to unit rows (B, D): a whole
:class:`~spatial_retrieval.models.RetrievalModel` on images (end to end), or
:class:`~spatial_retrieval.train.heads.HeadsOnMaps` on cached feature maps (frozen backbone).
A run writes ``last.pt`` (all that is needed to go on) and ``best.pt`` into its output folder, and
going on is the default: call it again. On several processes (``accelerate launch``,
``accelerate.notebook_launcher``) each loads its part of every batch, and the loss sees all of it.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn

from spatial_retrieval.train.config import TrainConfig, TrainResult
from spatial_retrieval.train.data import LabelledSet, TrainingData
from spatial_retrieval.train.interrupt import Interrupt
from spatial_retrieval.train.loading import Batch
from spatial_retrieval.train.run import Run
from spatial_retrieval.train.saving import finish, save
from spatial_retrieval.train.saving import resume as resume_run

__all__ = ["train"]


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
            resume_run(run)
        began = time.monotonic() - run.seconds
        for batches in run.steps():
            row = _step(run, batches)
            if run.due(config.validate_every):
                row |= run.validate()
            run.seconds = time.monotonic() - began
            stop = run.agreed(interrupt.asked) or run.patience_is_over
            if stop or run.due(config.checkpoint_every):
                save(run)
            if callback is not None and run.is_main:
                callback(run.history)
            if stop:
                break
        return finish(run, interrupted=interrupt.asked and run.step < config.steps)


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
