"""Many photographs → descriptors and feature maps: batched, decoded by threads, with progress."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from spatial_retrieval.features.batches import ImageBatch, Source, alone, contained, equal_shapes
from spatial_retrieval.images import Box, ImageError, crop_query, load_image, to_tensor
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
        transient: positions of those that may be readable another time.
    """

    kept: list[int]
    descriptors: np.ndarray
    failed: dict[int, str]
    transient: frozenset[int] = frozenset()


def describe(
    model: RetrievalModel,
    images: Sequence[Source],
    *,
    size: int = DEFAULT_SIZE,
    boxes: Sequence[Box | None] | None = None,
    scales: Sequence[float] = (1.0,),
    progress: bool = False,
) -> np.ndarray:
    """Describe images.

    Args:
        model: what describes them, on any device and in any precision.
        images: paths, PIL images, or tensors (3, h, w) in [0, 1] that are taken as they are.
        size: longest side in pixels to which larger images are shrunk.
        boxes: per image the part that is meant, in upright pixels, or None.
        scales: factors whose descriptors are averaged.
        progress: show a bar.

    Returns:
        (N, D) float32 unit rows, in the order of ``images``.

    Raises:
        ImageError: at the first image that cannot be read; later ones are not described.
        ValueError: if a box is empty or outside its image.

    Example:
        >>> from spatial_retrieval import describe, load_model
        >>> describe(load_model("lite0-gem"), [torch.rand(3, 64, 64)]).shape
        (1, 512)
    """
    rows = np.zeros((len(images), model.dim), dtype=np.float32)
    for batch, values in _run(
        model, lambda x: model(x, scales), _Work(images, size, boxes), progress
    ):
        if batch.error:
            raise batch.error
        rows[batch.positions] = _unit(values)
    return rows


def describe_readable(
    model: RetrievalModel,
    images: Sequence[Source],
    *,
    size: int = DEFAULT_SIZE,
    boxes: Sequence[Box | None] | None = None,
    scales: Sequence[float] = (1.0,),
    progress: bool = False,
) -> Described:
    """As :func:`describe`, but set bad images aside with their reasons instead of raising."""
    rows = np.zeros((len(images), model.dim), dtype=np.float32)
    errors: dict[int, ImageError] = {}
    for batch, values in _run(
        model, lambda x: model(x, scales), _Work(images, size, boxes), progress
    ):
        if batch.error:
            errors[batch.positions[0]] = batch.error
        else:
            rows[batch.positions] = _unit(values)
    kept = [i for i in range(len(images)) if i not in errors]
    failed = {i: str(errors[i]) for i in sorted(errors)}
    return Described(kept, rows[kept], failed, frozenset(i for i in errors if errors[i].transient))


def feature_maps(
    model: RetrievalModel,
    images: Sequence[Source],
    *,
    size: int = DEFAULT_SIZE,
    boxes: Sequence[Box | None] | None = None,
    layer: str | None = None,
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
    for batch, maps in _run(model, run, _Work(images, size, boxes), progress):
        if batch.error:
            raise batch.error
        found.update(zip(batch.positions, maps.float().cpu().contiguous(), strict=True))
    return [found[i] for i in range(len(images))]


def load_tensor(source: Source, *, size: int = DEFAULT_SIZE, box: Box | None = None) -> Tensor:
    """Decode, crop and shrink one image → (3, h, w) in [0, 1]; a tensor is returned as it is.

    A box counts in the pixels of the whole photograph, so with one nothing is decoded smaller.
    """
    if isinstance(source, Tensor):
        return source
    image = load_image(source, draft=None if box else size)
    return to_tensor(crop_query(image, box, size))


@dataclass(frozen=True, slots=True)
class _Work:
    """Images, the side they are shrunk to, and the parts of them that are meant."""

    images: Sequence[Source]
    size: int
    boxes: Sequence[Box | None] | None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"expected a size of at least 1, got {self.size}")
        if self.boxes is not None and len(self.boxes) != len(self.images):
            raise ValueError(
                f"expected a box or None for each of {len(self.images)} images, "
                f"got {len(self.boxes)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        box = None if self.boxes is None else self.boxes[i]
        return load_tensor(self.images[i], size=self.size, box=box)


def _run(
    model: RetrievalModel,
    function: Callable[[Tensor], Tensor],
    work: _Work,
    progress: bool,
) -> Iterator[tuple[ImageBatch, Tensor | None]]:
    """Yield batches with their outputs; one that holds an error has none."""
    run = _alone if model.device.type == "cpu" else _batched
    with tqdm(total=len(work), disable=not progress, unit="image") as bar:
        for batch, output in run(model, function, work):
            yield batch, output
            bar.update(len(batch.positions))


def _alone(
    model: RetrievalModel, function: Callable[[Tensor], Tensor], work: _Work
) -> Iterator[tuple[ImageBatch, Tensor | None]]:
    def one(i: int) -> tuple[ImageBatch, Tensor | None]:
        image = contained(work, i)
        if isinstance(image, ImageError):
            return ImageBatch([i], error=image), None
        (found,) = _outputs(function, ImageBatch([i], [image]), model)
        return found

    for _, found in alone(one, len(work)):
        yield found


def _batched(
    model: RetrievalModel, function: Callable[[Tensor], Tensor], work: _Work
) -> Iterator[tuple[ImageBatch, Tensor | None]]:
    for batch in equal_shapes(work):
        if batch.error:
            yield batch, None
        else:
            yield from _outputs(function, batch, model)


def _outputs(
    function: Callable[[Tensor], Tensor], batch: ImageBatch, model: RetrievalModel
) -> Iterator[tuple[ImageBatch, Tensor | None]]:
    """What a function makes of a batch; if that fails, of each image on its own."""
    images = torch.stack(batch.tensors)
    try:
        with torch.inference_mode():
            output = function(images.to(model.device, model.dtype))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # what an engine raises is its own
        if len(batch.positions) == 1:
            yield ImageBatch(batch.positions, error=_undescribed(batch, error)), None
            return
        for position, tensor in zip(batch.positions, batch.tensors, strict=True):
            yield from _outputs(function, ImageBatch([position], [tensor]), model)
        return
    yield batch, output


def _undescribed(batch: ImageBatch, error: Exception) -> ImageError:
    h, w = batch.tensors[0].shape[-2:]
    words = " ".join(str(error).split())[:200]
    return ImageError(f"image {batch.positions[0]}: {w}×{h} pixels can't be described ({words})")


def _unit(values: Tensor) -> np.ndarray:
    """(B, D) in any precision → float32 unit rows."""
    rows = values.float()
    if values.dtype != torch.float32:  # whose rows are of unit length only to its own precision
        rows = torch.nn.functional.normalize(rows, dim=1)
    return rows.cpu().numpy()
