"""Images, decoded ahead by threads, → batches of equal shape."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spatial_retrieval.images import BoxError, ImageError, ImageSource

__all__ = ["Batch", "Source", "equal_shapes"]

Source = ImageSource | Tensor

_BATCH = 8  # images
_HELD = 64  # images that wait for others of their shape
_AHEAD = 32  # images that are decoded before they are asked for


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images (3, h, w) of one shape with their positions, or the error of one image."""

    positions: list[int]
    tensors: list[Tensor] = field(default_factory=list)
    error: ImageError | None = None


def equal_shapes(images: Sequence[Tensor], *, batch_size: int = _BATCH) -> Iterator[Batch]:
    """Group images of equal shape, and yield each that can't be read as a batch of its own.

    Args:
        images: an item is decoded when it is asked for; any error is its own.
        batch_size: full at this many.

    Raises:
        BoxError: as the call is wrong, not the image.
        MemoryError: also torch's own.
    """
    waiting: dict[tuple[int, ...], Batch] = {}
    for position, image in _decoded(images):
        if isinstance(image, ImageError):
            yield Batch([position], error=image)
            continue
        batch = waiting.setdefault(tuple(image.shape), Batch([]))
        batch.positions.append(position)
        batch.tensors.append(image)
        held = sum(len(each.positions) for each in waiting.values())
        if len(batch.positions) == batch_size or held >= _HELD:
            full = max(waiting, key=lambda shape: len(waiting[shape].positions))
            yield waiting.pop(full)
    yield from waiting.values()


def _decoded(images: Sequence[Tensor]) -> Iterator[tuple[int, Tensor | ImageError]]:
    """Decode ahead on threads, yield in order."""
    ahead: deque[tuple[int, Future[Tensor | ImageError]]] = deque()
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        for i in range(len(images)):
            ahead.append((i, pool.submit(_contained, images, i)))
            if len(ahead) > _AHEAD:
                position, future = ahead.popleft()
                yield position, future.result()
        while ahead:
            position, future = ahead.popleft()
            yield position, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _contained(images: Sequence[Tensor], i: int) -> Tensor | ImageError:
    """An image, or what is wrong with it, whatever that is."""
    try:
        return images[i]
    except ImageError as error:
        return error
    except (BoxError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # one file must not end a run, however it manages to fail
        return ImageError(f"image {i}: {type(error).__name__}: {' '.join(str(error).split())}")
