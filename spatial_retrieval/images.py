"""Photographs from untrusted files, and the geometry of queries.

Only JPEG, PNG and WebP are decoded, by their own decoder and after the pixel limit is checked.
What comes out is always upright 8-bit RGB. Boxes are (x0, y0, x1, y1) in upright pixels,
end-exclusive.
"""

import io
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from torch import Tensor

__all__ = [
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
Box = tuple[float, float, float, float]
ImageSource = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, OverflowError)


class BoxError(ValueError):
    """A box that is empty, not finite, or outside its image."""


class ImageError(ValueError):
    """A file that is no readable photograph; the message names the file and the reason."""


def load_image(
    source: ImageSource, *, draft: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode one photograph to upright 8-bit RGB.

    Transparency is laid over white, 16-bit greyscale is scaled to 8 bits, the first frame of an
    animation is taken, and EXIF orientation is applied.

    Args:
        source: path, bytes, binary file, or a PIL image (which is only converted).
        draft: longest side in pixels that the caller will shrink to. A JPEG much larger than that
            is decoded at a half, a quarter or an eighth, never below twice ``draft``.
        max_pixels: above this many pixels the file is refused before it is decoded.

    Raises:
        ImageError: if the file cannot be read, is not JPEG, PNG or WebP, is damaged or too large.
    """
    if isinstance(source, Image.Image):
        return _to_rgb(ImageOps.exif_transpose(source))
    name = _name(source)
    try:
        data = _read(source)
        image = _decoder(data, name)(io.BytesIO(data))
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(
                f"{name}: {width}×{height} pixels are more than the limit of "
                f"{max_pixels / 1e6:g} megapixels; shrink the image first"
            )
        if draft and isinstance(image, JpegImagePlugin.JpegImageFile):
            longest = max(width, height)
            image.draft("RGB", (2 * draft * width // longest, 2 * draft * height // longest))
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"{name}: cannot be read ({reason})") from error


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
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    cut = max(x0, 0), max(y0, 0), min(x1, size[0]), min(y1, size[1])
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        raise BoxError(
            f"expected a box x0 < x1, y0 < y1 inside the {size[0]}×{size[1]} image, "
            f"got {(x0, y0, x1, y1)}"
        )
    return cut


def to_tensor(image: Image.Image) -> Tensor:
    """RGB image → (3, h, w) float32 in [0, 1]."""
    pixels = torch.from_numpy(np.array(image.convert("RGB")))  # (h, w, 3) uint8
    return pixels.permute(2, 0, 1).float().div_(255)


def _name(source: ImageSource) -> str:
    if isinstance(source, bytes):
        return "image"
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", "image"))


def _read(source: str | os.PathLike[str] | bytes | IO[bytes]) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | os.PathLike):
        return Path(source).read_bytes()
    return source.read()


def _decoder(data: bytes, name: str) -> type:
    if data[:3] == b"\xff\xd8\xff":
        return JpegImagePlugin.JpegImageFile
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return PngImagePlugin.PngImageFile
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    kind = "an empty file" if not data else "another kind of file"
    raise ImageError(f"{name}: expected a JPEG, PNG or WebP image, got {kind}")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit greyscale, held as I;16 or as I
        values = np.asarray(image).astype(np.float32) / 257
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
