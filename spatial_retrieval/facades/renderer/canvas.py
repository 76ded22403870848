"""A design drawn frontally: wall, parts, mouldings and roofline on one canvas."""

from functools import lru_cache

import cv2
import numpy as np

from spatial_retrieval.facades.renderer.design import Design
from spatial_retrieval.facades.renderer.doors import DOORS
from spatial_retrieval.facades.renderer.ornaments import ORNAMENTS
from spatial_retrieval.facades.renderer.pen import FLAT, Canvas, Color, Pen, tone
from spatial_retrieval.facades.renderer.roofline import ROOFS
from spatial_retrieval.facades.renderer.walls import wall_colors
from spatial_retrieval.facades.renderer.windows import WINDOWS, Palette

__all__ = ["CELL", "MARGIN", "PIXELS_PER_METRE", "ROOF", "canvas_size", "draw"]

CELL = (108, 122)  # width and height of a cell, pixels
ROOF = 136  # height of the roofline
MARGIN = 14  # room for cornices on either side
PIXELS_PER_METRE = 36.0

_PARTS = WINDOWS | ORNAMENTS | DOORS


def canvas_size(grid: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the canvas of a grid of (floors, columns)."""
    floors, columns = grid
    return columns * CELL[0] + 2 * MARGIN, floors * CELL[1] + ROOF


@lru_cache(maxsize=4)
def draw(design: Design) -> Canvas:
    """Draw a design; treat the result as read-only, it is cached."""
    width, height = canvas_size(design.grid)
    canvas = Canvas(
        rgb=wall_colors(design, height, width),
        relief=np.full((height, width), FLAT, dtype=np.uint8),
        glass=np.zeros((height, width), dtype=np.uint8),
        alpha=np.zeros((height, width), dtype=np.uint8),
        side=tone(design.wall, 0.92),
    )
    canvas.alpha[ROOF:, MARGIN : width - MARGIN] = 255
    _mouldings(canvas, design)
    for i, row in enumerate(design.cells):
        for j, part in enumerate(row):
            pen = Pen(canvas, MARGIN + j * CELL[0], ROOF + i * CELL[1], *CELL)
            _PARTS[part.kind](pen, Palette(design.wall, design.trim, part.accent))
    for j, kind in enumerate(design.roof):
        pen = Pen(canvas, MARGIN + j * CELL[0], 0, CELL[0], ROOF)
        palette = Palette(design.wall, design.trim, design.roof_accent)
        ROOFS[kind](pen, palette, design.roof_color)
    _cornice(canvas, design)
    _occlude(canvas)
    return canvas


def _mouldings(canvas: Canvas, design: Design) -> None:
    floors, columns = design.grid
    width, height = canvas.size
    whole = Pen(canvas, 0, 0, width, height)
    if design.pilasters:
        for j in range(columns + 1):
            x = (MARGIN + j * CELL[0]) / width
            whole.rect(x - 6 / width, ROOF / height, x + 6 / width, 1, tone(design.trim, 0.93), 18)
    for i in range(1, floors):
        if design.courses or i == floors - 1:
            y = (ROOF + i * CELL[1]) / height
            _band(whole, MARGIN / width, y, 4 / height, design.trim, 30)
    _band(whole, MARGIN / width, 1 - 5 / height, 6 / height, tone(design.wall, 0.6), 16)


def _cornice(canvas: Canvas, design: Design) -> None:
    width, height = canvas.size
    whole = Pen(canvas, 0, 0, width, height)
    y = ROOF / height
    _band(whole, MARGIN / width - 4 / width, y + 2 / height, 5 / height, tone(design.trim, 0.9), 50)
    _band(whole, MARGIN / width - 9 / width, y - 6 / height, 5 / height, design.trim, 80)


def _band(pen: Pen, inset: float, y: float, half: float, color: Color, relief: int) -> None:
    pen.rect(inset, y - half, 1 - inset, y + half, color, relief, solid=True)


def _occlude(canvas: Canvas) -> None:
    """Darken what lies deeper than its surroundings, as a hazy sky would leave it."""
    depth = cv2.GaussianBlur(canvas.relief, (0, 0), 5).astype(np.float32) - canvas.relief
    shade = 1 - np.clip(depth * 0.006, -0.06, 0.3)
    canvas.rgb[:] = np.clip(canvas.rgb * shade[..., None], 0, 255).astype(np.uint8)
