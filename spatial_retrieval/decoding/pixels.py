"""Decoding within limits of work, and what can be kept of a file that is cut short."""

from typing import Any

import numpy as np
from PIL import Image

from spatial_retrieval.decoding import containers
from spatial_retrieval.decoding.colour import to_srgb
from spatial_retrieval.decoding.formats import open_as

__all__ = ["LimitError", "decode", "upright"]

MAX_SIDE = 65_535  # what a JPEG can have
MAX_SCANS = 100  # of a progressive JPEG; cameras and tools write about ten
MAX_SLOW_BYTES = 4 * 2**20  # of a file whose decoder is written in Python
MAX_LOST = 0.1  # part of the rows that a file which is cut short may lack
_BLOCK_ROWS = 17  # of a JPEG are held back until its end marker, with one for their upsampling
_END = b"\xff\xd9"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class LimitError(ValueError):
    """A file that asks for more work than a photograph does."""


def decode(data: bytes, kind: str, *, draft: int | None, max_pixels: int) -> Image.Image:
    """Decode a file of a known format to an upright sRGB picture.

    Args:
        data: the whole file.
        kind: see :func:`~spatial_retrieval.decoding.formats.format_of`.
        draft, max_pixels: see :func:`~spatial_retrieval.images.load_image`.

    Raises:
        LimitError: if it has too many pixels, scans or strips.
        Exception: whatever Pillow raises for a damaged file.
    """
    containers.check_directories(data, kind)
    if kind == "JPEG" and containers.count_scans(data, MAX_SCANS) > MAX_SCANS:
        raise LimitError(f"it has more than {MAX_SCANS} scans; save the image again")
    block = containers.exif_of(data, kind)
    data = containers.essential(data, kind)
    image = _opened(data, kind, draft, max_pixels)
    try:
        image.load()
    except OSError as error:
        if "runcated" not in str(error):
            raise
        image = _rescued(image, data, kind, error, draft, max_pixels)
    block = block or image.info.get("exif")
    return to_srgb(upright(image, containers.orientation(block)))


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture as EXIF's orientation 1 … 8 asks."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _opened(data: bytes, kind: str, draft: int | None, max_pixels: int) -> Any:
    """The picture, not yet decoded, if it is within the limits."""
    image = open_as(kind, data)
    width, height = image.size
    if width * height > max_pixels:
        raise LimitError(
            f"{width}×{height} pixels are more than the limit of "
            f"{max_pixels / 1e6:g} megapixels; shrink the image first"
        )
    if max(width, height) > MAX_SIDE:
        raise LimitError(f"a side of {max(width, height)} pixels is more than {MAX_SIDE}")
    slow = any(tile[0] in Image.DECODERS for tile in image.tile)
    if slow and len(data) > MAX_SLOW_BYTES:
        raise LimitError(f"this kind of {kind} is read up to {MAX_SLOW_BYTES} bytes")
    if draft and kind == "JPEG":
        longest = max(width, height)
        image.draft("RGB", tuple(max(1, 2 * draft * side // longest) for side in image.size))
    return image


def _rescued(
    part: Any, data: bytes, kind: str, error: OSError, draft: int | None, max_pixels: int
) -> Image.Image:
    """What other viewers show of a file that is cut short, if next to nothing is lost.

    A sequential JPEG is decoded again with an end marker: rows that differ from the first attempt
    are those that the file does not hold. Of a progressive one the scans so far are taken if the
    last is more than the second.
    """
    if kind not in ("JPEG", "PNG"):
        raise error
    part.tile = []  # what is decoded so far stays; nothing more is tried
    if kind == "PNG":
        rows = np.asarray(part).reshape(part.size[1], -1)
        if part.info.get("interlace") or _lost(rows.any(axis=1)) > MAX_LOST:
            raise error
        return part
    image = _opened(data + _END, kind, draft, max_pixels)
    image.load()
    if part.info.get("progressive"):
        if containers.count_scans(data, 2) <= 2:
            raise error
        return image
    same = (np.asarray(part) == np.asarray(image)).reshape(part.size[1], -1).all(axis=1)
    if _lost(same) > MAX_LOST + _BLOCK_ROWS / len(same):
        raise error
    return image


def _lost(rows: np.ndarray) -> float:
    """Part of the rows after the last one that is there (rows: (h,) bool)."""
    there = np.flatnonzero(rows)
    return 1 - (there[-1] + 1) / len(rows) if len(there) else 1.0
