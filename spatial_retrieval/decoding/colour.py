"""Any mode, any embedded profile → 8-bit sRGB.

An embedded ICC profile is converted by Little CMS; one that is damaged, or of another colour space
than the pixels, is left aside, as browsers do. Transparency is laid over white.
"""

import io

import numpy as np
from PIL import Image, ImageCms

__all__ = ["to_srgb"]

_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_UNUSABLE = (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError)


def to_srgb(image: Image.Image) -> Image.Image:
    """A new picture in sRGB, without the other's metadata; the other is not changed."""
    profile = image.info.get("icc_profile")
    if image.mode[0] in "IF":
        rgb = _from_deep_grey(image)
    elif image.has_transparency_data:
        rgb = _converted(_over_white(image), profile)
    else:
        rgb = _converted(image, profile)
    rgb.info = {}
    return rgb


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit greyscale, held as I;16 or as I, scaled; float is taken as 0 … 255, or 0 … 1."""
    values = np.asarray(image).astype(np.float32)
    if image.mode.startswith("I"):
        values /= 257
    elif values.size and np.nanmax(values) <= 1:
        values *= 255
    values = np.nan_to_num(values.round(), nan=0.0).clip(0, 255)
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _converted(image: Image.Image, profile: object) -> Image.Image:
    image = image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")
    if not isinstance(profile, bytes) or not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        about = source.profile
        if (about.profile_description or "").startswith("sRGB IEC61966"):
            return image.convert("RGB")
        if _SPACES.get(about.xcolor_space) != image.mode:
            return image.convert("RGB")
        target = ImageCms.createProfile("sRGB")
        found = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except _UNUSABLE:
        return image.convert("RGB")
    return found if found is not None else image.convert("RGB")
