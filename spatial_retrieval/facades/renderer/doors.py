"""Parts of the ground floor; they stand on the pavement, the lower edge of their cell."""

import numpy as np

from spatial_retrieval.facades.renderer.pen import Pen, arc, tone
from spatial_retrieval.facades.renderer.windows import GLASS, Palette, glazed

__all__ = ["DOORS"]

_INK = (244, 238, 224)


def door(pen: Pen, colors: Palette) -> None:
    """A panelled front door with a fanlight and two steps."""
    pen.rect(0.2, 0.1, 0.8, 1.0, colors.trim, 30)
    glazed(pen, colors, (0.29, 0.17, 0.71, 0.31), panes=(3, 1), frame=0.0)
    wood = tone(colors.accent, 0.85)
    pen.rect(0.29, 0.34, 0.71, 0.94, wood, -20)
    for x0 in (0.33, 0.53):
        for y0, y1 in ((0.39, 0.6), (0.66, 0.88)):
            pen.rect(x0, y0, x0 + 0.14, y1, tone(wood, 0.72), -30)
    pen.disc(0.66, 0.64, 0.02, (214, 184, 96), -10)
    pen.rect(0.14, 0.94, 0.86, 1.0, (150, 144, 136), 60)


def shop(pen: Pen, colors: Palette) -> None:
    """A shop window under a striped awning."""
    pen.rect(0.03, 0.08, 0.97, 0.22, colors.accent, 50)
    for x in np.linspace(0.2, 0.72, 6):
        pen.rect(x, 0.12, x + 0.055, 0.18, _INK, 50)
    glazed(pen, colors, (0.08, 0.36, 0.92, 0.84), panes=(3, 1), frame=0.03)
    for k in range(9):
        a, b = k / 9, (k + 1) / 9
        color = colors.accent if k % 2 == 0 else _INK
        pen.polygon(
            [(0.05 + 0.9 * a, 0.22), (0.05 + 0.9 * b, 0.22), (b, 0.42), (a, 0.42)], color, 96
        )
    pen.rect(0.05, 0.86, 0.95, 1.0, tone(colors.accent, 0.7), 14)


def archway(pen: Pen, colors: Palette) -> None:
    """A wide carriage arch."""
    squash = pen.w / pen.h
    pen.polygon(
        [(0.95, 1), (0.05, 1), *arc(0.5, 0.5, 0.45, 0.45 * squash, 180, 360)], colors.trim, 24
    )
    inner = [(0.86, 1), (0.14, 1), *arc(0.5, 0.5, 0.36, 0.36 * squash, 180, 360)]
    pen.polygon(inner, tone(colors.wall, 0.28), -90)
    pen.polygon(
        [(0.7, 1), (0.3, 1), *arc(0.5, 0.62, 0.2, 0.2 * squash, 180, 360)], (188, 190, 178), -90
    )
    pen.polygon([(0.44, 0.04), (0.56, 0.04), (0.54, 0.2), (0.46, 0.2)], colors.accent, 44)


def portico(pen: Pen, colors: Palette) -> None:
    """A pediment on four columns."""
    pen.rect(0.1, 0.28, 0.9, 1.0, tone(colors.wall, 0.5), -60)
    pen.rect(0.36, 0.4, 0.64, 0.95, tone(colors.accent, 0.7), -50)
    pen.polygon([(0.0, 0.24), (0.5, 0.01), (1.0, 0.24)], colors.trim, 70)
    pen.polygon([(0.16, 0.205), (0.5, 0.055), (0.84, 0.205)], colors.accent, 50)
    pen.rect(0.02, 0.24, 0.98, 0.32, tone(colors.trim, 0.95), 66)
    for x in (0.07, 0.27, 0.64, 0.84):
        for k, light in enumerate((0.82, 1.0, 1.06, 0.86)):
            pen.rect(x + 0.023 * k, 0.32, x + 0.023 * k + 0.024, 0.95, tone(colors.trim, light), 50)
    pen.rect(0.0, 0.94, 1.0, 1.0, (156, 150, 142), 70)


def garage(pen: Pen, colors: Palette) -> None:
    """A roller door."""
    pen.rect(0.06, 0.14, 0.94, 1.0, colors.trim, 14)
    pen.rect(0.11, 0.2, 0.89, 1.0, tone(colors.accent, 0.95), -24)
    for y in np.linspace(0.28, 0.94, 8):
        pen.rect(0.11, y, 0.89, y + 0.022, tone(colors.accent, 0.6), -34)


def arcade(pen: Pen, colors: Palette) -> None:
    """Two open arches on piers."""
    squash = pen.w / pen.h
    for x in (0.26, 0.74):
        top = arc(x, 0.4, 0.21, 0.21 * squash, 180, 360)
        pen.polygon([(x + 0.21, 1), (x - 0.21, 1), *top], colors.trim, 20)
        top = arc(x, 0.42, 0.165, 0.165 * squash, 180, 360)
        pen.polygon([(x + 0.165, 1), (x - 0.165, 1), *top], tone(colors.wall, 0.3), -80)
        pen.rect(x - 0.165, 0.8, x + 0.165, 1.0, tone(colors.accent, 0.6), -70)
    pen.disc(0.5, 0.24, 0.06, colors.accent, 30)


def cafe(pen: Pen, colors: Palette) -> None:
    """A glazed café front with a round sign."""
    pen.rect(0.03, 0.1, 0.97, 1.0, tone(colors.accent, 0.8), 30)
    glazed(pen, colors, (0.08, 0.32, 0.56, 0.8), panes=(2, 2), frame=0.0)
    glazed(pen, colors, (0.64, 0.32, 0.92, 0.97), panes=(1, 3), frame=0.0)
    pen.rect(0.08, 0.85, 0.56, 0.96, tone(colors.accent, 0.55), 20)
    pen.rect(0.08, 0.15, 0.92, 0.26, _INK, 34)
    for x in np.linspace(0.16, 0.76, 5):
        pen.disc(x + 0.04, 0.205, 0.035, colors.accent, 34)
    for x in (0.2, 0.44):
        pen.rect(x - 0.1, 0.86, x + 0.1, 0.885, _INK, 60)


def gate(pen: Pen, colors: Palette) -> None:
    """Double doors with iron straps in a pointed stone arch."""
    outer = [
        (0.92, 1),
        (0.08, 1),
        (0.08, 0.45),
        *arc(0.92, 0.45, 0.84, 0.42, 180, 240),
        *arc(0.08, 0.45, 0.84, 0.42, 300, 360),
    ]
    inner = [
        (0.82, 1),
        (0.18, 1),
        (0.18, 0.48),
        *arc(0.82, 0.48, 0.64, 0.34, 180, 240),
        *arc(0.18, 0.48, 0.64, 0.34, 300, 360),
    ]
    pen.polygon(outer, colors.trim, 30)
    pen.polygon(inner, colors.accent, -30)
    for y in (0.56, 0.72, 0.88):
        pen.rect(0.18, y, 0.82, y + 0.035, tone(colors.accent, 0.45), -24)
    pen.rect(0.49, 0.22, 0.51, 1.0, tone(colors.accent, 0.3), -34)
    pen.disc(0.5, 0.36, 0.09, GLASS, -34, glass=255)


DOORS = {f.__name__: f for f in (door, shop, archway, portico, garage, arcade, cafe, gate)}
