"""Images, decoded by threads, → batches of equal shape, or each on its own."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from spatial_retrieval.images import BoxError, ImageError, ImageSource

__all__ = ["ImageBatch", "Source", "alone", "contained", "equal_shapes"]

Source = ImageSource | Tensor
Result = TypeVar("Result")

_BATCH = 8  # images
_HELD = 64  # images that wait for others of their shape
_AHEAD = 32  # images that are decoded before they are asked for


@dataclass(frozen=True, slots=True, eq=False)
class ImageBatch:
    """Images (3, h, w) of one shape with their positions, or the error of one image."""

    positions: list[int]
    tensors: list[Tensor] = field(default_factory=list)
    error: ImageError | None = None


def equal_shapes(images: Sequence[Tensor], *, batch_size: int = _BATCH) -> Iterator[ImageBatch]:
    """Group images of equal shape, and yield each that can't be read as a batch of its own.

    Args:
        images: an item is decoded when it is asked for; any error is its own.
        batch_size: full at this many.

    Raises:
        BoxError: as the call is wrong, not the image.
        MemoryError: also torch's own.
    """
    waiting: dict[tuple[int, ...], ImageBatch] = {}
    workers = min(4, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(workers)
    for position, image in _in_order(pool, lambda i: contained(images, i), len(images)):
        if isinstance(image, ImageError):
            yield ImageBatch([position], error=image)
            continue
        batch = waiting.setdefault(tuple(image.shape), ImageBatch([]))
        batch.positions.append(position)
        batch.tensors.append(image)
        held = sum(len(each.positions) for each in waiting.values())
        if len(batch.positions) == batch_size or held >= _HELD:
            full = max(waiting, key=lambda shape: len(waiting[shape].positions))
            yield waiting.pop(full)
    yield from waiting.values()


def alone(function: Callable[[int], Result], count: int) -> Iterator[tuple[int, Result]]:
    """Yield (i, function(i)) in order, computed by as many threads as torch has, one core each.

    On processors this beats one network over all cores: nothing waits for others, and decoding has
    its turn wherever a core is free. What comes out does not depend on what else is computed.
    """
    threads = torch.get_num_threads()
    if min(count, threads) == 1:
        yield from ((i, function(i)) for i in range(count))
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from _in_order(pool, function, count)
    finally:
        torch.set_num_threads(threads)  # threads that start later take the number set last


def contained(images: Sequence[Tensor], i: int) -> Tensor | ImageError:
    """An image, or what is wrong with it, whatever that is."""
    try:
        return images[i]
    except ImageError as error:
        return error
    except (BoxError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # one file must not end a run, however it manages to fail
        return ImageError(f"image {i}: {type(error).__name__}: {' '.join(str(error).split())}")


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[int], Result], count: int
) -> Iterator[tuple[int, Result]]:
    """Compute ahead in the pool, which ends with it; yield in order."""
    ahead: deque[tuple[int, Future[Result]]] = deque()
    try:
        for i in range(count):
            ahead.append((i, pool.submit(function, i)))
            if len(ahead) > _AHEAD:
                position, future = ahead.popleft()
                yield position, future.result()
        while ahead:
            position, future = ahead.popleft()
            yield position, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
