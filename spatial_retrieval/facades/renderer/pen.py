"""A canvas in layers, and the pen that draws on it in the coordinates of one cell."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

__all__ = ["FLAT", "Canvas", "Pen", "arc", "tone"]

FLAT = 96  # relief of the bare wall; more stands out towards the street, less lies back
_SHIFT = 4  # bits of sub-pixel precision in OpenCV's polygon filler

Color = tuple[float, float, float]
Points = Sequence[tuple[float, float]] | np.ndarray


@dataclass(frozen=True, slots=True)
class Canvas:
    """A façade seen frontally.

    Attributes:
        rgb: (h, w, 3) uint8, the colour without light and shadow.
        relief: (h, w) uint8, distance towards the street in quarter pixels, `FLAT` is the wall.
        glass: (h, w) uint8, 255 where the street is reflected.
        alpha: (h, w) uint8, 255 where the house is.
        side: colour of the walls that are not on the street.
    """

    rgb: np.ndarray
    relief: np.ndarray
    glass: np.ndarray
    alpha: np.ndarray
    side: Color

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


def tone(color: Color, factor: float) -> Color:
    """A darker (factor < 1) or lighter colour."""
    return tuple(float(min(255.0, max(0.0, c * factor))) for c in color)


def arc(cx: float, cy: float, rx: float, ry: float, start: float, stop: float) -> np.ndarray:
    """Points of an elliptic arc from angle `start` to `stop`, degrees, clockwise from the right."""
    angles = np.deg2rad(np.linspace(start, stop, 25))
    return np.stack([cx + rx * np.cos(angles), cy + ry * np.sin(angles)], axis=1)


@dataclass(frozen=True, slots=True)
class Pen:
    """Draws in a box of the canvas: (0, 0) is its top left corner, (1, 1) its bottom right."""

    canvas: Canvas
    x: float
    y: float
    w: float
    h: float

    def polygon(
        self,
        points: Points,
        color: Color,
        relief: int | None = None,
        glass: int = 0,
        solid: bool = False,
    ) -> None:
        """Fill a polygon; `relief` above the wall, `solid` makes it part of the silhouette."""
        pixels = np.asarray(points, dtype=np.float64) * (self.w, self.h) + (self.x, self.y)
        fixed = [np.round((pixels - 0.5) * 2**_SHIFT).astype(np.int32)]
        layers = [(self.canvas.rgb, color), (self.canvas.glass, glass)]
        if relief is not None:
            layers.append((self.canvas.relief, FLAT + relief))
        if solid:
            layers.append((self.canvas.alpha, 255))
        for layer, value in layers:
            cv2.fillPoly(layer, fixed, value, cv2.LINE_AA, _SHIFT)

    def rect(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        color: Color,
        relief: int | None = None,
        **options: object,
    ) -> None:
        """Fill a rectangle; options as for `polygon`."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color, relief, **options)

    def disc(
        self,
        cx: float,
        cy: float,
        r: float,
        color: Color,
        relief: int | None = None,
        **options: object,
    ) -> None:
        """Fill a circle; `r` as a share of the box's width."""
        self.polygon(arc(cx, cy, r, r * self.w / self.h, 0, 360), color, relief, **options)

    def line(
        self, a: Points, b: Points, width: float, color: Color, relief: int | None = None
    ) -> None:
        """A straight bar; `width` as a share of the box's width."""
        p, q = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        along = (q - p) * (self.w, self.h)
        normal = np.array([-along[1], along[0]]) / max(1e-9, float(np.hypot(*along)))
        side = normal * width * self.w / 2 / (self.w, self.h)
        self.polygon([p + side, q + side, q - side, p - side], color, relief)
