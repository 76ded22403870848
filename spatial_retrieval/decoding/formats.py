"""Which files are photographs: by their first bytes when read, by their suffix when listed."""

import importlib
import io
from importlib.util import find_spec
from typing import Any

from PIL import Image, features

__all__ = ["FORMATS", "advice", "by_suffix", "format_of", "is_supported", "open_as"]

# format → suffixes, module and class of its decoder
FORMATS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "JPEG": ((".jpg", ".jpeg", ".jpe", ".jfif"), "PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ((".png",), "PIL.PngImagePlugin", "PngImageFile"),
    "WebP": ((".webp",), "PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ((".gif",), "PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ((".bmp", ".dib"), "PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ((".tif", ".tiff"), "PIL.TiffImagePlugin", "TiffImageFile"),
    "AVIF": ((".avif",), "PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIC": ((".heic", ".heif"), "pillow_heif", "HeifImageFile"),
}
# photographs and pictures that nothing here reads
_OTHERS = {
    "camera raw": """.arw .cr2 .cr3 .crw .dng .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srw
        .x3f""",
    "JPEG 2000": ".j2k .jp2 .jpf .jpx",
    "JPEG XL": ".jxl",
    "Photoshop": ".psb .psd",
    "SVG": ".svg .svgz",
    "other pictures": ".hdr .exr .ico .pbm .pcx .pgm .pnm .ppm .tga .xcf",
}
_BY_SUFFIX = {s: name for name, (suffixes, _, _) in FORMATS.items() for s in suffixes} | {
    suffix: name for name, suffixes in _OTHERS.items() for suffix in suffixes.split()
}
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"BM", "BMP"),
)
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_ADVICE = {
    "HEIC": "pip install 'spatial-retrieval[heic]'",
    "AVIF": "a Pillow that was built with AVIF reads them",
}


def format_of(data: bytes) -> str | None:
    """The format that the first bytes of a file announce; None if it is none of :data:`FORMATS`."""
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] != b"ftyp":
        return None
    length = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[i : i + 4] for i in range(16, length, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIC" if brands & _HEIF_BRANDS else None


def by_suffix(suffix: str) -> str | None:
    """The format of a file name's suffix such as ".JPG"; None for what is no picture."""
    return _BY_SUFFIX.get(suffix.lower())


def is_supported(name: str) -> bool:
    """Whether a format can be read here: HEIC and AVIF need what not every machine has."""
    if name == "HEIC":
        return find_spec("pillow_heif") is not None
    if name == "AVIF":
        return bool(features.check("avif"))
    return name in FORMATS


def advice(name: str) -> str:
    """What to do about a format that is not supported; "convert them" if nothing reads it."""
    return _ADVICE.get(name, "convert them to JPEG or PNG")


def open_as(name: str, data: bytes) -> Any:
    """Read the header of a file by the one decoder of its format; nothing is decoded yet."""
    _, module, decoder = FORMATS[name]
    image: Image.Image = getattr(importlib.import_module(module), decoder)(io.BytesIO(data))
    return image
