"""One training run on this process: model, objective, optimizer, progress; loss and validation."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from spatial_retrieval.train.checkpoint import save_checkpoint
from spatial_retrieval.train.config import TrainConfig
from spatial_retrieval.train.data import TrainingData
from spatial_retrieval.train.loading import Batch, TrainingError, load_batches
from spatial_retrieval.train.processes import gather_rows, processes
from spatial_retrieval.train.samplers import Batches, BatchSource, item_seed, mine_groups
from spatial_retrieval.train.setup import (
    half_precision,
    has_idle_parameters,
    lr_factor,
    new_objective,
    parameter_groups,
)
from spatial_retrieval.train.validation import encode, score_names, validate

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Run"]

T = TypeVar("T")


class Run:
    """Model, objective, optimizer, schedule and progress of one run on this process."""

    def __init__(self, model: nn.Module, data: TrainingData, config: TrainConfig) -> None:
        self.model, self.data, self.config = model, data, config
        self._check_best_by()
        self.source = data.batches or Batches(
            data.train, groups=config.groups, views=config.views, seed=config.seed
        )
        self.folder = Path(config.output)
        self.accelerator = _accelerator(model, data, self.source)
        self.is_main = self.accelerator.is_main_process
        self.device = self.accelerator.device
        self.wrapped = self.accelerator.prepare_model(model)
        self.objective = new_objective(model, data.train, self.source, config)
        groups = parameter_groups(model, self.objective, config)
        self.parameters = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, partial(lr_factor, steps=config.steps, warmup=config.warmup)
        )
        # Accelerate's mixed precision is one for a whole process; two runs in a notebook may differ
        self._dtype = dtype = half_precision(config.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        self.best, self.best_step, self.without_gain = math.nan, 0, 0

    def steps(self) -> Iterator[list[Batch]]:
        """Yield the batches of each step that is still to be done."""
        k, every = self.config.accumulate, self.config.mine_every
        while self.step < self.config.steps and not self.patience_is_over:
            if every and self.step % every == 0:
                self._mine()
            stop = self.config.steps if not every else (self.step // every + 1) * every
            stop = min(stop, self.config.steps)
            batches = load_batches(
                self.data.train,
                self.source,
                range(self.step * k, stop * k),
                seed=self.config.seed,
                rank=(self.accelerator.process_index, self.accelerator.num_processes),
                workers=self.config.workers,
            )
            for _ in range(self.step, stop):
                yield [next(batches) for _ in range(k)]

    def before_step(self) -> None:
        """Training mode, seeds of dropout, no gradients."""
        self.wrapped.train()
        for name, module in self.model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and name.startswith(
                self.config.frozen_statistics
            ):
                module.eval()
        position = 2**30 + self.accelerator.process_index
        torch.manual_seed(item_seed(self.config.seed, self.step, position))
        self.optimizer.zero_grad(set_to_none=True)

    def autocast(self) -> torch.autocast:
        """Half precision where the run uses it."""
        enabled = self._dtype is not None
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=enabled)

    def loss(self, descriptors: Tensor, batch: Batch) -> Tensor:
        """The loss over the batches of all processes.

        Raises:
            TrainingError: naming the batch, if the loss is no number.
        """
        rows = gather_rows(descriptors)
        labels = self.accelerator.gather(batch.labels.to(self.device))
        indices = self.accelerator.gather(batch.indices.to(self.device)).cpu()
        others = (
            None if known is None else known[indices].to(self.device)
            for known in (self.data.teacher, self.data.base)
        )
        value = self.objective(rows, labels, *others)
        if not torch.isfinite(value.detach()):
            raise self._diverged("loss", value, batch)
        return value

    def check_finite(self, norm: Tensor, batches: list[Batch]) -> None:
        """Raise a TrainingError for a gradient that is no number (a scaler skips such a step)."""
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            raise self._diverged("gradient", norm, batches[-1])

    def _diverged(self, what: str, value: Tensor, batch: Batch) -> TrainingError:
        names = [self.data.train.names[i] for i in batch.indices.tolist()]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return TrainingError(
            f"step {self.step}: the {what} is {float(value.detach())}; batch: {shown}. Look at "
            f"these items, or lower lr ({self.config.lr:g}); {self.folder / 'last.pt'}, if it is "
            "there, holds the last good state"
        )

    def record(self, row: dict[str, float]) -> dict[str, float]:
        """Count the step and put its row into the history."""
        self.step += 1
        self.history.append({"step": self.step, **row})
        return self.history[-1]

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return self.step % every == 0 or self.step == self.config.steps

    def agreed(self, flag: bool) -> bool:
        """Whether any process has set the flag."""
        if self.accelerator.num_processes == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.device)) > 0)

    @property
    def patience_is_over(self) -> bool:
        """Whether validation has not improved for as long as the config waits."""
        return 0 < self.config.patience <= self.without_gain

    def validate(self) -> dict[str, float]:
        """Scores on the held-out sets; the best weights so far are kept in ``best.pt``."""
        if not self.data.validation:
            return {}
        scores = self._on_main(lambda: validate(self.model, self.data.validation))
        chosen = self.config.best_by or next(iter(scores))
        if math.isnan(self.best) or scores[chosen] > self.best:
            self.best, self.best_step, self.without_gain = scores[chosen], self.step, 0
            if self.is_main:
                best = {"step": self.step, "model": self.model.state_dict()}
                save_checkpoint(self.folder / "best.pt", best)
        else:
            self.without_gain += 1
        return scores

    def _check_best_by(self) -> None:
        offered = score_names(self.data.validation)
        if self.config.best_by and self.config.best_by not in offered:
            names = ", ".join(offered) or "the scores of a held-out set, of which there is none"
            raise ValueError(f"expected best_by among {names}; got {self.config.best_by!r}")

    def _mine(self) -> None:
        anchors = getattr(self.source, "anchors", None)
        if anchors is None:
            raise ValueError("mine_every needs batches drawn by Batches; set it to 0")
        labels = self.data.train.labels
        items = np.concatenate([np.flatnonzero(labels == a)[:2] for a in anchors])

        def nearest() -> list[list[int]]:
            rows = encode(self.model, self.data.train, indices=items)
            mine_groups(rows, labels[items], self.source, n=min(5, len(anchors) - 1))
            return self.source.harder.tolist()

        self.source.harder = np.asarray(self._on_main(nearest))

    def _on_main(self, function: Callable[[], T]) -> T:
        """Run something on the main process and give every process its result."""
        result = [function() if self.is_main else None]
        if self.accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(result)
        return result[0]


def _accelerator(model: nn.Module, data: TrainingData, source: BatchSource) -> "Accelerator":
    """The processes, prepared for parameters that never get a gradient, if there are any."""
    from accelerate import DistributedDataParallelKwargs

    accelerator = processes()
    if accelerator.num_processes == 1:
        return accelerator
    idle = has_idle_parameters(model, data.train[int(source.batch(0)[0]), 0])
    if not idle:
        return accelerator
    return processes(DistributedDataParallelKwargs(find_unused_parameters=True))
