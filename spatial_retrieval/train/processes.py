"""The processes of one run: who does what, and one loss over the descriptors of them all."""

from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.utils import KwargsHandler

__all__ = ["gather_rows", "processes"]


def processes(*handlers: "KwargsHandler") -> "Accelerator":
    """The processes of this run: this one alone, or those that ``accelerate launch`` started.

    The others wait as long as it takes while one renders, which may be hours; what a process group
    waits by default is minutes.

    Args:
        handlers: Accelerate's own options, such as ``DistributedDataParallelKwargs``.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs

    patient = InitProcessGroupKwargs(timeout=timedelta(days=2))
    return Accelerator(kwargs_handlers=[patient, *handlers])


class _Gather(torch.autograd.Function):
    """All ranks' rows in rank order; backward keeps the own rows, times the number of ranks.

    Every rank computes the whole loss. Its gradient with respect to the own rows, averaged over
    ranks as DistributedDataParallel does, would come out too small by the number of ranks.
    (Accelerate gathers without gradients, and torch's own differentiable gather is deprecated.)
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        ranks = dist.get_world_size()
        return grad.chunk(ranks)[dist.get_rank()] * ranks


def gather_rows(x: Tensor) -> Tensor:
    """(B, D) of this process → (ranks · B, D) of all; ``x`` itself where there is only one."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return x
    return _Gather.apply(x)
