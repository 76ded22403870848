"""Many photographs → descriptors and feature maps: batched, decoded by threads, with progress."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from spatial_retrieval.images import Box, ImageError, ImageSource, crop_query, load_image, to_tensor
from spatial_retrieval.models import RetrievalModel

__all__ = ["Described", "describe", "describe_readable", "feature_maps", "load_tensor"]

DEFAULT_SIZE = 480


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """Descriptors of the readable ones among some images.

    Attributes:
        kept: positions of the readable images, ascending.
        descriptors: (len(kept), D) float32 unit rows.
        failed: position → reason, for the others.
    """

    kept: list[int]
    descriptors: np.ndarray
    failed: dict[int, str]


def describe(
    model: RetrievalModel,
    images: Sequence[ImageSource | Tensor],
    *,
    size: int = DEFAULT_SIZE,
    boxes: Sequence[Box | None] | None = None,
    scales: Sequence[float] = (1.0,),
    batch_size: int = 8,
    progress: bool = False,
) -> np.ndarray:
    """Describe images.

    Args:
        model: what describes them.
        images: paths, PIL images, or tensors (3, h, w) in [0, 1] that are taken as they are.
        size: longest side in pixels to which larger images are shrunk.
        boxes: per image the part that is meant, in upright pixels, or None.
        scales: factors whose descriptors are averaged.
        batch_size: images of equal shape run together.
        progress: show a bar.

    Returns:
        (N, D) float32 unit rows, in the order of ``images``.

    Raises:
        ImageError: at the first image that cannot be read.
        ValueError: if a box is empty or outside its image.

    Example:
        >>> from spatial_retrieval import describe, load_model
        >>> describe(load_model("lite0-gem"), [torch.rand(3, 64, 64)]).shape
        (1, 512)
    """
    result = describe_readable(
        model, images, size=size, boxes=boxes, scales=scales, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    if result.failed:
        raise ImageError(next(iter(result.failed.values())))
    return result.descriptors


def describe_readable(
    model: RetrievalModel,
    images: Sequence[ImageSource | Tensor],
    *,
    size: int = DEFAULT_SIZE,
    boxes: Sequence[Box | None] | None = None,
    scales: Sequence[float] = (1.0,),
    batch_size: int = 8,
    progress: bool = False,
) -> Described:
    """As :func:`describe`, but set bad images aside with their reasons instead of raising."""
    rows = np.zeros((len(images), model.dim), dtype=np.float32)
    failed: dict[int, str] = {}
    run = lambda batch: model(batch, scales)  # noqa: E731
    for positions, values in _run(model, run, images, size, boxes, batch_size, progress, failed):
        rows[positions] = values.float().cpu().numpy()
    kept = [i for i in range(len(images)) if i not in failed]
    return Described(kept, rows[kept], failed)


def feature_maps(
    model: RetrievalModel,
    images: Sequence[ImageSource | Tensor],
    *,
    size: int = DEFAULT_SIZE,
    boxes: Sequence[Box | None] | None = None,
    layer: str | None = None,
    batch_size: int = 8,
    progress: bool = False,
) -> list[Tensor]:
    """Feature maps of images, one (C, H, W) float32 CPU tensor each.

    Args:
        layer: None: the map that the model pools; otherwise a backbone layer such as "stage4".

    The other arguments and errors are those of :func:`describe`.
    """
    run: Callable[[Tensor], Tensor] = model.feature_map
    if layer is not None:
        run = lambda batch: model.backbone.maps(batch, (layer,))[0]  # noqa: E731
    found: dict[int, Tensor] = {}
    failed: dict[int, str] = {}
    for positions, maps in _run(model, run, images, size, boxes, batch_size, progress, failed):
        found.update(zip(positions, maps.float().cpu().contiguous(), strict=True))
    if failed:
        raise ImageError(next(iter(failed.values())))
    return [found[i] for i in range(len(images))]


def load_tensor(
    source: ImageSource | Tensor, *, size: int = DEFAULT_SIZE, box: Box | None = None
) -> Tensor:
    """Decode, crop and shrink one image → (3, h, w) in [0, 1]; a tensor is returned as it is."""
    if isinstance(source, Tensor):
        return source
    image = load_image(source, draft=None if box else size)
    return to_tensor(crop_query(image, box, size))


def _run(
    model: RetrievalModel,
    function: Callable[[Tensor], Tensor],
    images: Sequence[ImageSource | Tensor],
    size: int,
    boxes: Sequence[Box | None] | None,
    batch_size: int,
    progress: bool,
    failed: dict[int, str],
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield (positions, outputs) batch by batch; unreadable images go to ``failed``."""
    if boxes is not None and len(boxes) != len(images):
        raise ValueError(
            f"expected a box or None for each of {len(images)} images, got {len(boxes)}"
        )
    if size < 1 or batch_size < 1:
        raise ValueError(f"expected size and batch_size of at least 1, got {size}, {batch_size}")
    with tqdm(total=len(images), disable=not progress, unit="image") as bar:
        for positions, tensors in _equal_shapes(_decoded(images, boxes, size, failed), batch_size):
            with torch.inference_mode():
                yield positions, function(torch.stack(tensors).to(model.device))
            bar.update(len(positions))


def _equal_shapes(
    decoded: Iterator[tuple[int, Tensor]], batch_size: int
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Group images of equal shape into batches, holding back at most 8 batches' worth."""
    waiting: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    held = 0
    for position, tensor in decoded:
        group = waiting.setdefault(tuple(tensor.shape), [])
        group.append((position, tensor))
        held += 1
        if len(group) == batch_size or held >= 8 * batch_size:
            full = max(waiting, key=lambda shape: len(waiting[shape]))
            batch = waiting.pop(full)
            held -= len(batch)
            yield [i for i, _ in batch], [t for _, t in batch]
    for batch in waiting.values():
        yield [i for i, _ in batch], [t for _, t in batch]


def _decoded(
    images: Sequence[ImageSource | Tensor],
    boxes: Sequence[Box | None] | None,
    size: int,
    failed: dict[int, str],
) -> Iterator[tuple[int, Tensor]]:
    """Decode ahead on threads, yield in order, note what cannot be read."""
    ahead: deque[tuple[int, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for i, source in enumerate(images):
            box = boxes[i] if boxes is not None else None
            ahead.append((i, pool.submit(load_tensor, source, size=size, box=box)))
            if len(ahead) > 32:
                yield from _finished(*ahead.popleft(), failed)
        while ahead:
            yield from _finished(*ahead.popleft(), failed)


def _finished(
    position: int, future: Future[Tensor], failed: dict[int, str]
) -> Iterator[tuple[int, Tensor]]:
    try:
        yield position, future.result()
    except ImageError as error:
        failed[position] = str(error)
