"""Small pictures that the tests draw for themselves."""

import numpy as np
from PIL import Image


def draw(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """A picture of coloured boxes: quick to make, and unlike that of another seed."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), rng.integers(0, 256, 3), dtype=np.uint8)
    for _ in range(12):
        x, y = rng.integers(0, width), rng.integers(0, height)
        pixels[y : y + 20, x : x + 25] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)
