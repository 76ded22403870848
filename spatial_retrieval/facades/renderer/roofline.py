"""Roof pieces, one above each column of the grid; their pen's lower edge is the eaves."""

import numpy as np

from spatial_retrieval.facades.renderer.pen import Color, Pen, arc, tone
from spatial_retrieval.facades.renderer.windows import GLASS, Palette

__all__ = ["ROOFS"]


def gable(pen: Pen, colors: Palette, roof: Color) -> None:
    """A gable wall with an oculus."""
    pen.polygon([(0.0, 1), (0.5, 0.22), (1.0, 1)], roof, 40, solid=True)
    pen.polygon([(0.1, 1), (0.5, 0.37), (0.9, 1)], colors.wall, 0)
    pen.disc(0.5, 0.76, 0.13, colors.trim, 16)
    pen.disc(0.5, 0.76, 0.095, GLASS, -20, glass=255)


def dome(pen: Pen, colors: Palette, roof: Color) -> None:
    """A dome with a lantern."""
    pen.rect(0.12, 0.78, 0.88, 1.0, colors.trim, 10, solid=True)
    for x in np.linspace(0.18, 0.74, 5):
        pen.rect(x, 0.83, x + 0.07, 0.97, GLASS, -16, glass=255)
    pen.polygon(arc(0.5, 0.78, 0.42, 0.46, 180, 360), roof, 0, solid=True)
    for light, a, b in ((1.16, 215, 250), (0.8, 290, 360)):
        pen.polygon([(0.5, 0.78), *arc(0.5, 0.78, 0.42, 0.46, a, b)], tone(roof, light), 0)
    pen.rect(0.43, 0.18, 0.57, 0.34, colors.trim, 0, solid=True)
    pen.polygon([(0.41, 0.18), (0.5, 0.03), (0.59, 0.18)], roof, 0, solid=True)


def dormer(pen: Pen, colors: Palette, roof: Color) -> None:
    """A mansard with a dormer window."""
    pen.polygon([(0, 1), (0.06, 0.44), (0.94, 0.44), (1, 1)], roof, -10, solid=True)
    pen.polygon(
        [(0.26, 0.97), (0.26, 0.56), (0.5, 0.34), (0.74, 0.56), (0.74, 0.97)],
        colors.trim,
        50,
        solid=True,
    )
    pen.rect(0.34, 0.58, 0.66, 0.92, GLASS, 10, glass=255)
    pen.rect(0.485, 0.58, 0.515, 0.92, colors.sash, 14)


def chimney(pen: Pen, colors: Palette, roof: Color) -> None:
    """A low pitched roof with two chimney stacks."""
    pen.polygon([(0, 1), (0.05, 0.7), (0.95, 0.7), (1, 1)], roof, -10, solid=True)
    for x in (0.16, 0.64):
        pen.rect(x, 0.28, x + 0.2, 0.92, (160, 92, 70), 30, solid=True)
        pen.rect(x - 0.03, 0.25, x + 0.23, 0.32, tone(colors.trim, 0.85), 40, solid=True)
        for dx in (0.02, 0.12):
            pen.rect(x + dx, 0.15, x + dx + 0.06, 0.25, (172, 104, 78), 30, solid=True)


def balustrade(pen: Pen, colors: Palette, roof: Color) -> None:
    """A stone balustrade with urns."""
    pen.rect(0, 0.72, 1, 0.78, colors.trim, 30, solid=True)
    pen.rect(0, 0.94, 1, 1, colors.trim, 30, solid=True)
    for x in np.linspace(0.12, 0.88, 9):
        pen.rect(x - 0.028, 0.77, x + 0.028, 0.95, tone(colors.trim, 0.92), 20, solid=True)
    for x in (0.0, 0.86):
        pen.rect(x, 0.68, x + 0.14, 1, tone(colors.trim, 0.96), 40, solid=True)
        pen.polygon(arc(x + 0.07, 0.58, 0.075, 0.1, 0, 360), colors.accent, 40, solid=True)


def spire(pen: Pen, colors: Palette, roof: Color) -> None:
    """A steep spire on a square turret."""
    pen.rect(0.2, 0.66, 0.8, 1, colors.wall, 10, solid=True)
    pen.polygon([(0.12, 0.68), (0.5, 0.02), (0.5, 0.68)], tone(roof, 1.12), 20, solid=True)
    pen.polygon([(0.5, 0.68), (0.5, 0.02), (0.88, 0.68)], tone(roof, 0.78), 20, solid=True)
    pen.polygon(
        [(0.58, 0.96), (0.42, 0.96), *arc(0.5, 0.8, 0.08, 0.06, 180, 360)], GLASS, -20, glass=255
    )


def crenel(pen: Pen, colors: Palette, roof: Color) -> None:
    """Battlements."""
    pen.rect(0, 0.74, 1, 1, tone(colors.wall, 0.95), 20, solid=True)
    for x in (0.03, 0.29, 0.55, 0.81):
        pen.rect(x, 0.5, x + 0.16, 0.76, tone(colors.wall, 0.98), 20, solid=True)
        pen.rect(x - 0.015, 0.47, x + 0.175, 0.52, colors.trim, 30, solid=True)


def turret(pen: Pen, colors: Palette, roof: Color) -> None:
    """A round turret with a flat cap."""
    for k, light in enumerate((0.8, 0.98, 1.06, 1.0, 0.82)):
        pen.rect(0.2 + 0.12 * k, 0.34, 0.32 + 0.12 * k, 1, tone(colors.wall, light), 20, solid=True)
    pen.rect(0.12, 0.24, 0.88, 0.35, colors.trim, 40, solid=True)
    pen.polygon([(0.16, 0.24), (0.5, 0.06), (0.84, 0.24)], roof, 30, solid=True)
    for x in (0.3, 0.54):
        pen.rect(x, 0.5, x + 0.16, 0.86, GLASS, -20, glass=255)


def onion(pen: Pen, colors: Palette, roof: Color) -> None:
    """An onion dome."""
    pen.rect(0.22, 0.74, 0.78, 1, colors.trim, 10, solid=True)
    pen.rect(0.4, 0.8, 0.6, 0.98, GLASS, -16, glass=255)
    t = np.linspace(0, np.pi, 30)  # a bulb that draws in to a point
    half = 0.4 * np.sin(t) ** 0.8 * (1 - 0.42 * (t / np.pi) ** 2) + 0.16 * (1 - t / np.pi)
    y = 0.74 - 0.62 * (t / np.pi)
    for light, left, right in ((1.0, -1.0, 1.0), (1.2, -0.75, -0.3), (0.78, 0.35, 1.0)):
        outline = [
            *zip(0.5 + left * half, y, strict=True),
            *zip(0.5 + right * half[::-1], y[::-1], strict=True),
        ]
        pen.polygon(outline, tone(roof, light), 10, solid=True)
    pen.rect(0.485, 0.02, 0.515, 0.14, (206, 176, 92), 0, solid=True)


def steps(pen: Pen, colors: Palette, roof: Color) -> None:
    """A stepped gable."""
    for x, y in ((0.0, 0.82), (0.1, 0.64), (0.2, 0.46), (0.3, 0.28)):
        pen.rect(x, y, 1 - x, 1, colors.wall, 10, solid=True)
        pen.rect(x - 0.01, y - 0.035, x + 0.1, y + 0.015, colors.trim, 30, solid=True)
        pen.rect(0.9 - x, y - 0.035, 1.01 - x, y + 0.015, colors.trim, 30, solid=True)
    pen.rect(0.38, 0.25, 0.62, 0.29, colors.trim, 30, solid=True)
    pen.polygon(
        [(0.62, 0.92), (0.38, 0.92), *arc(0.5, 0.62, 0.12, 0.09, 180, 360)], colors.trim, 16
    )
    pen.polygon(
        [(0.58, 0.9), (0.42, 0.9), *arc(0.5, 0.62, 0.08, 0.06, 180, 360)], GLASS, -20, glass=255
    )


def pavilion(pen: Pen, colors: Palette, roof: Color) -> None:
    """A tall curved pavilion roof with an iron crest."""
    left = [(0.04 + 0.18 * np.sin(s), 1 - 0.7 * s / 1.5) for s in np.linspace(0, 1.5, 12)]
    right = [(1 - x, y) for x, y in left[::-1]]
    pen.polygon([*left, *right], roof, 10, solid=True)
    for y in np.linspace(0.4, 0.92, 7):
        pen.rect(0.16, y, 0.84, y + 0.018, tone(roof, 0.8), 6)
    pen.rect(0.2, 0.26, 0.8, 0.31, colors.accent, 30, solid=True)
    for x in np.linspace(0.24, 0.74, 6):
        pen.rect(x, 0.17, x + 0.03, 0.27, tone(colors.accent, 0.7), 30, solid=True)
    pen.disc(0.5, 0.6, 0.12, colors.trim, 40)
    pen.disc(0.5, 0.6, 0.085, GLASS, 0, glass=255)


ROOFS = {
    f.__name__: f
    for f in (
        gable,
        dome,
        dormer,
        chimney,
        balustrade,
        spire,
        crenel,
        turret,
        onion,
        steps,
        pavilion,
    )
}
