"""Ornaments and sculpted parts of the upper floors."""

import numpy as np

from spatial_retrieval.facades.renderer.pen import Pen, arc, tone
from spatial_retrieval.facades.renderer.windows import GLASS, Palette, opening

__all__ = ["ORNAMENTS"]


def columns(pen: Pen, colors: Palette) -> None:
    """A window between two columns under an entablature."""
    opening(pen, colors, (0.36, 0.24, 0.64, 0.84), panes=(2, 3), frame=0.04)
    for x in (0.08, 0.72):
        for k, light in enumerate((0.78, 0.95, 1.08, 1.0, 0.84)):
            x0 = x + 0.02 + 0.032 * k
            pen.rect(x0, 0.18, x0 + 0.034, 0.9, tone(colors.trim, light), 40 + 6 * min(k, 4 - k))
        pen.rect(x - 0.02, 0.13, x + 0.22, 0.19, colors.accent, 60)
        pen.rect(x - 0.02, 0.89, x + 0.22, 0.96, tone(colors.trim, 0.95), 60)
    pen.rect(0.02, 0.04, 0.98, 0.13, colors.trim, 64)


def mosaic(pen: Pen, colors: Palette) -> None:
    """A framed panel with a coloured diamond."""
    pen.rect(0.1, 0.1, 0.9, 0.9, colors.trim, 24)
    pen.rect(0.16, 0.155, 0.84, 0.845, tone(colors.accent, 0.6), 8)
    for r, color in ((0.33, tone(colors.accent, 1.5)), (0.22, colors.accent), (0.11, colors.trim)):
        q = r * 1.05
        pen.polygon([(0.5, 0.5 - q), (0.5 + r, 0.5), (0.5, 0.5 + q), (0.5 - r, 0.5)], color, 14)


def louvre(pen: Pen, colors: Palette) -> None:
    """Tall fins in front of a dark void."""
    pen.rect(0.07, 0.08, 0.93, 0.92, colors.trim, 14)
    pen.rect(0.11, 0.115, 0.89, 0.885, tone(colors.wall, 0.32), -50)
    for x in np.linspace(0.17, 0.83, 6):
        pen.rect(x - 0.035, 0.115, x + 0.035, 0.885, colors.accent, 30)
        pen.rect(x + 0.01, 0.115, x + 0.035, 0.885, tone(colors.accent, 0.7), 24)


def rose(pen: Pen, colors: Palette) -> None:
    """A wheel window."""
    for r, color, relief in ((0.46, colors.trim, 30), (0.39, tone(colors.trim, 0.75), 6)):
        pen.disc(0.5, 0.5, r, color, relief)
    pen.disc(0.5, 0.5, 0.36, GLASS, -34, glass=255)
    squash = pen.w / pen.h
    for angle in np.arange(8) * np.pi / 4:
        dx, dy = np.cos(angle), np.sin(angle) * squash
        pen.line((0.5, 0.5), (0.5 + 0.37 * dx, 0.5 + 0.37 * dy), 0.035, colors.trim, -10)
        turn = angle + np.pi / 8
        x, y = 0.5 + 0.27 * np.cos(turn), 0.5 + 0.27 * np.sin(turn) * squash
        pen.disc(x, y, 0.062, tone(colors.accent, 1.3), -16)
    pen.disc(0.5, 0.5, 0.12, colors.trim, 4)
    pen.disc(0.5, 0.5, 0.075, colors.accent, 0)


def niche(pen: Pen, colors: Palette) -> None:
    """A statue in a niche."""
    squash = pen.w / pen.h
    shape = [(0.8, 0.9), (0.2, 0.9), *arc(0.5, 0.34, 0.3, 0.3 * squash, 180, 360)]
    inner = [(0.74, 0.88), (0.26, 0.88), *arc(0.5, 0.34, 0.24, 0.24 * squash, 180, 360)]
    pen.polygon(shape, colors.trim, 24)
    pen.polygon(inner, tone(colors.accent, 0.55), -60)
    stone = tone(colors.trim, 0.94)
    pen.polygon([(0.4, 0.36), (0.6, 0.36), (0.66, 0.8), (0.34, 0.8)], stone, -8)
    pen.polygon([(0.38, 0.38), (0.3, 0.56), (0.36, 0.58), (0.46, 0.44)], tone(stone, 0.9), -4)
    pen.polygon([(0.56, 0.38), (0.72, 0.28), (0.74, 0.33), (0.6, 0.48)], tone(stone, 0.96), -4)
    pen.disc(0.5, 0.29, 0.075, stone, -4)
    pen.rect(0.28, 0.8, 0.72, 0.9, tone(colors.trim, 0.85), 10)


def clock(pen: Pen, colors: Palette) -> None:
    """A great clock over a carved panel."""
    pen.disc(0.5, 0.45, 0.44, colors.accent, 40)
    pen.disc(0.5, 0.45, 0.37, (242, 238, 226), 30)
    squash = pen.w / pen.h
    for angle in np.arange(12) * np.pi / 6:
        dx, dy = np.cos(angle), np.sin(angle) * squash
        a, b = (0.5 + 0.28 * dx, 0.45 + 0.28 * dy), (0.5 + 0.35 * dx, 0.45 + 0.35 * dy)
        pen.line(a, b, 0.03, (50, 46, 44), 30)
    pen.line((0.5, 0.47), (0.5, 0.22), 0.035, (40, 36, 36), 34)
    pen.line((0.5, 0.45), (0.69, 0.53), 0.035, (40, 36, 36), 34)
    pen.rect(0.14, 0.88, 0.86, 0.97, colors.trim, 46)


def banner(pen: Pen, colors: Palette) -> None:
    """A long hanging banner on a pole."""
    pen.rect(0.08, 0.07, 0.92, 0.115, (86, 70, 56), 90)
    cloth = colors.accent
    pen.polygon([(0.18, 0.1), (0.82, 0.1), (0.82, 0.97), (0.5, 0.85), (0.18, 0.97)], cloth, 70)
    pen.rect(0.18, 0.2, 0.82, 0.27, tone(cloth, 1.6), 70)
    pen.disc(0.5, 0.5, 0.19, (240, 232, 214), 70)
    pen.polygon([(0.5, 0.36), (0.62, 0.58), (0.38, 0.58)], tone(cloth, 0.7), 70)


ORNAMENTS = {f.__name__: f for f in (columns, mosaic, louvre, rose, niche, clock, banner)}
