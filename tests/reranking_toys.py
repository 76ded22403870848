"""Pictures for the tests of re-ranking."""

import cv2
import numpy as np
from PIL import Image

TURN = np.array([[0.9, -0.25, 30.0], [0.2, 0.95, -10.0], [0, 0, 1]])


def textured(seed, size=(240, 180)):
    """A picture full of corners."""
    rng = np.random.default_rng(seed)
    canvas = np.full((size[1], size[0], 3), 200, np.uint8)
    for _ in range(80):
        x, y = rng.integers(0, size[0]), rng.integers(0, size[1])
        w, h = rng.integers(6, 50, 2)
        color = rng.integers(0, 255, 3).tolist()
        cv2.rectangle(canvas, (int(x), int(y)), (int(x + w), int(y + h)), color, -1)
    return Image.fromarray(canvas)


def warped(image, matrix):
    """The picture under an affine map."""
    pixels = cv2.warpAffine(np.asarray(image), np.asarray(matrix, float)[:2], image.size)
    return Image.fromarray(pixels)
