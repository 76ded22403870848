"""Photographs from untrusted files, and the geometry of queries.

JPEG, PNG, WebP, GIF, BMP and TIFF are decoded, AVIF and HEIC where the machine can, each by its own
decoder, from regular files of a bounded length, within limits of pixels and of work. What comes out
is always upright 8-bit sRGB. Boxes are (x0, y0, x1, y1) in upright pixels, end-exclusive.
"""

import math
import os
from collections.abc import Sequence
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spatial_retrieval.decoding.colour import to_srgb
from spatial_retrieval.decoding.containers import orientation
from spatial_retrieval.decoding.formats import advice, format_of, is_supported
from spatial_retrieval.decoding.pixels import decode, upright
from spatial_retrieval.files import printable, read_regular

__all__ = [
    "DECODING_VERSION",
    "MAX_BYTES",
    "MAX_PIXELS",
    "Box",
    "BoxError",
    "ImageError",
    "ImageSource",
    "check_box",
    "crop_query",
    "load_image",
    "resize",
    "to_tensor",
]

MAX_PIXELS = 40_000_000
MAX_BYTES = 256 * 2**20
DECODING_VERSION = 2  # raise it whenever the pixels that load_image or resize give change
Box = tuple[float, float, float, float]
ImageSource = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image


class BoxError(ValueError):
    """A box that is empty, not finite, or outside its image."""


class ImageError(ValueError):
    """A file that is no readable photograph; the message names the file and the reason.

    Attributes:
        transient: whether it may be readable another time: no permission, a vanished mount, a
            decoder that is not installed. What is wrong with the file itself is lasting.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


def load_image(
    source: ImageSource, *, draft: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode one photograph to upright 8-bit sRGB.

    An embedded colour profile is converted to sRGB, transparency is laid over white, 16-bit
    greyscale is scaled to 8 bits, the first frame of an animation is taken, and the orientation
    that EXIF gives is applied. A file that lacks its end is read if at most a tenth of its rows
    are missing.

    Args:
        source: path, bytes, binary file, or a PIL image (which is only converted).
        draft: longest side in pixels that the caller will shrink to. A JPEG much larger than that
            is decoded at a half, a quarter or an eighth, never below twice ``draft``.
        max_pixels: above this many pixels the file is refused before it is decoded.

    Raises:
        ImageError: whatever is wrong with the source, also where a decoder fails in a way of its
            own. Only a lack of memory and interrupts pass.
    """
    name = _name(source)
    try:
        if isinstance(source, Image.Image):
            source.load()
            return to_srgb(upright(source, orientation(source.info.get("exif"))))
        data = _read(source)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ImageError(f"{name}: cannot be read ({reason})", transient=True) from error
    except MemoryError:
        raise
    except Exception as error:  # what a stranger's file object or name raises is not foreseeable
        raise ImageError(f"{name}: cannot be read ({_reason(error)})") from error
    kind = _readable_format(data, name)
    try:
        return decode(data, kind, draft=draft, max_pixels=max_pixels)
    except MemoryError:
        raise
    except Exception as error:  # decoders of eight formats raise what they like
        raise ImageError(f"{name}: cannot be read ({_reason(error)})") from error


def resize(image: Image.Image, longest: int) -> Image.Image:
    """Shrink so that the longest side is ``longest`` pixels; never enlarge."""
    if longest < 1:
        raise ValueError(f"expected a size of at least 1 pixel, got {longest}")
    factor = longest / max(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def crop_query(image: Image.Image, box: Sequence[float] | None, longest: int) -> Image.Image:
    """Crop a query and keep the scale that the whole photograph would have had.

    The crop's longest side becomes longest · max(crop) / max(image), so the object is as large as
    it is in a database image of ``longest`` pixels (revisited Oxford/Paris, Radenović et al. 2018;
    cirtorch's ``imresize`` rule). Without a box this is :func:`resize`.

    Raises:
        BoxError: if the box is empty or lies outside the image.
    """
    if box is None:
        return resize(image, longest)
    crop = image.crop(check_box(box, image.size))
    return resize(crop, max(1, int(longest * max(crop.size) / max(image.size))))


def check_box(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Round a box to pixels and cut it to an image of ``size`` (width, height).

    Raises:
        BoxError: if the box is not four finite numbers, is empty, or misses the image.
    """
    if len(box) != 4 or not np.isfinite(np.asarray(box, dtype=float)).all():
        raise BoxError(f"expected a box x0, y0, x1, y1 of finite pixels, got {tuple(box)}")
    (x0, x1), (y0, y1) = (_pixels(*ends) for ends in ((box[0], box[2]), (box[1], box[3])))
    cut = max(x0, 0), max(y0, 0), min(x1, size[0]), min(y1, size[1])
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        raise BoxError(
            f"expected a box x0 < x1, y0 < y1 inside the {size[0]}×{size[1]} image, "
            f"got {(x0, y0, x1, y1)}"
        )
    return cut


def _pixels(start: float, end: float) -> tuple[int, int]:
    """Rounded ends; what is narrower than a pixel is the pixel in which it starts."""
    first, last = round(float(start)), round(float(end))
    if start < end and first == last:
        return math.floor(start), math.floor(start) + 1
    return first, last


def to_tensor(image: Image.Image) -> Tensor:
    """RGB image → (3, h, w) float32 in [0, 1]."""
    pixels = torch.from_numpy(np.array(image.convert("RGB")))  # (h, w, 3) uint8
    return pixels.permute(2, 0, 1).float().div_(255)


def _name(source: ImageSource) -> str:
    if isinstance(source, str | os.PathLike):
        return printable(os.fsdecode(source))
    return printable(str(getattr(source, "name", "image"))) or "image"


def _read(source: str | os.PathLike[str] | bytes | IO[bytes]) -> bytes:
    if isinstance(source, str | os.PathLike):
        return read_regular(source, MAX_BYTES, looks_right=lambda head: bool(format_of(head)))
    data = source if isinstance(source, bytes) else source.read(MAX_BYTES + 1)
    if not isinstance(data, bytes):
        raise TypeError(f"expected bytes, got {type(data).__name__}")
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than the limit of {MAX_BYTES} bytes")
    return data


def _readable_format(data: bytes, name: str) -> str:
    kind = format_of(data)
    if kind is None:
        found = "another kind of file" if data else "an empty file"
        raise ImageError(f"{name}: expected a JPEG, PNG, WebP, GIF, BMP or TIFF image, got {found}")
    if not is_supported(kind):
        raise ImageError(f"{name}: {kind} cannot be read here; {advice(kind)}", transient=True)
    return kind


def _reason(error: BaseException) -> str:
    """One short line, for the first of a decoder's words are enough."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(" ".join(text.split())[:200])
