"""Windows of the upper floors. Each function draws one part in the cell of its pen."""

from dataclasses import dataclass, replace

import numpy as np

from spatial_retrieval.facades.renderer.pen import Color, Pen, Points, arc, tone

Rect = tuple[float, float, float, float]  # x0, y0, x1, y1

__all__ = ["Palette", "WINDOWS", "glazed", "opening"]

GLASS = (46, 54, 66)


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours that a part is drawn in."""

    wall: Color
    trim: Color
    accent: Color
    surround: Color | None = None  # of openings, where it is not the trim's

    @property
    def border(self) -> Color:
        """Colour of what surrounds an opening."""
        return self.surround or self.trim

    @property
    def sash(self) -> Color:
        """Colour of window frames."""
        return tone(self.trim, 1.06)


def opening(
    pen: Pen,
    colors: Palette,
    box: Rect,
    *,
    head: str = "flat",
    panes: tuple[int, int] = (2, 3),
    frame: float = 0.05,
) -> None:
    """A :func:`glazed` opening on a sill."""
    glazed(pen, colors, box, head=head, panes=panes, frame=frame)
    x0, _, x1, y1 = box
    low = y1 + frame * 0.6
    pen.rect(x0 - frame - 0.03, low, x1 + frame + 0.03, low + 0.045, tone(colors.border, 1.05), 34)


def glazed(
    pen: Pen,
    colors: Palette,
    box: Rect,
    *,
    head: str = "flat",
    panes: tuple[int, int] = (2, 3),
    frame: float = 0.05,
) -> None:
    """A glazed opening with its surround: `head` is flat, round or pointed; box in cell units."""
    x0, y0, x1, y1 = box
    if frame:
        pen.polygon(_outline(pen, box, head, frame), colors.border, 20)
        pen.polygon(_outline(pen, box, head, frame * 0.25), tone(colors.border, 0.82), 6)
    pen.polygon(_outline(pen, box, head, 0), colors.sash, -26)
    pen.polygon(_outline(pen, box, head, -0.022), GLASS, -34, glass=255)
    nx, ny = panes
    for k in range(1, nx):
        x = x0 + (x1 - x0) * k / nx
        pen.rect(
            x - 0.012, y0 + (0.03 if head == "flat" else 0.01), x + 0.012, y1, colors.sash, -28
        )
    for k in range(1, ny):
        y = y0 + (y1 - y0) * k / ny
        inset = 0.0 if head == "flat" or k > 1 else 0.02
        pen.rect(x0 + inset, y - 0.011, x1 - inset, y + 0.011, colors.sash, -28)


def _outline(pen: Pen, box: Rect, head: str, grow: float) -> Points:
    """The shape of an opening, grown by `grow` (cell widths) on all sides."""
    gy = grow * pen.w / pen.h
    x0, y0, x1, y1 = box[0] - grow, box[1] - gy, box[2] + grow, box[3] + gy
    if head == "flat":
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    half, middle = (x1 - x0) / 2, (x0 + x1) / 2
    if head == "round":
        rise = half * pen.w / pen.h
        return [(x1, y1), (x0, y1), *arc(middle, y0 + rise, half, rise, 180, 360)]
    rise = 1.5 * half * pen.w / pen.h  # pointed: two arcs, each centred below the other's foot
    left = arc(x1, y0 + rise, 2 * half, rise * 1.155, 180, 240)
    right = arc(x0, y0 + rise, 2 * half, rise * 1.155, 300, 360)
    return [(x1, y1), (x0, y1), *left, *right]


def sash(pen: Pen, colors: Palette) -> None:
    """A tall window under a lintel."""
    opening(pen, colors, (0.24, 0.2, 0.76, 0.84), panes=(2, 4), frame=0.055)
    pen.rect(0.15, 0.1, 0.85, 0.155, tone(colors.trim, 1.05), 40)


def arch(pen: Pen, colors: Palette) -> None:
    """A round-headed window with a keystone."""
    opening(pen, colors, (0.22, 0.13, 0.78, 0.85), head="round", frame=0.075)
    pen.polygon([(0.44, 0.03), (0.56, 0.03), (0.535, 0.14), (0.465, 0.14)], colors.accent, 44)


def pediment(pen: Pen, colors: Palette) -> None:
    """A window under a triangular pediment."""
    opening(pen, colors, (0.27, 0.33, 0.73, 0.86), panes=(2, 3))
    pen.polygon([(0.08, 0.26), (0.5, 0.02), (0.92, 0.26)], tone(colors.trim, 1.05), 48)
    pen.polygon([(0.22, 0.23), (0.5, 0.075), (0.78, 0.23)], tone(colors.accent, 0.95), 26)


def balcony(pen: Pen, colors: Palette) -> None:
    """French windows behind an iron balcony."""
    glazed(pen, colors, (0.22, 0.08, 0.78, 0.86), panes=(2, 4))
    pen.rect(0.04, 0.86, 0.96, 0.94, tone(colors.trim, 0.95), 70)
    iron = tone(colors.accent, 0.55)
    for x in np.linspace(0.06, 0.94, 12):
        pen.rect(x - 0.012, 0.58, x + 0.012, 0.86, iron, 66)
    pen.rect(0.03, 0.55, 0.97, 0.59, iron, 70)


def shutters(pen: Pen, colors: Palette) -> None:
    """A window between open louvred shutters."""
    opening(pen, colors, (0.3, 0.16, 0.7, 0.84), panes=(2, 3), frame=0.04)
    for x0 in (0.03, 0.755):
        pen.rect(x0, 0.12, x0 + 0.215, 0.86, colors.accent, 22)
        for y in np.linspace(0.19, 0.78, 9):
            pen.rect(x0 + 0.03, y, x0 + 0.185, y + 0.025, tone(colors.accent, 0.62), 14)


def bay(pen: Pen, colors: Palette) -> None:
    """A projecting bay with three lights."""
    pen.polygon([(0.05, 0.1), (0.95, 0.1), (0.9, 0.02), (0.1, 0.02)], tone(colors.accent, 0.8), 60)
    pen.rect(0.06, 0.1, 0.94, 0.9, tone(colors.trim, 0.98), 60)
    for x0, x1 in ((0.1, 0.3), (0.35, 0.65), (0.7, 0.9)):
        box = (x0, 0.17, x1, 0.66)
        glazed(pen, colors, box, panes=(1, 2), frame=0.0)
    for x0, x1 in ((0.1, 0.3), (0.35, 0.65), (0.7, 0.9)):
        pen.rect(x0, 0.72, x1, 0.86, tone(colors.accent, 0.9), 52)
    pen.polygon([(0.12, 0.9), (0.88, 0.9), (0.7, 0.99), (0.3, 0.99)], tone(colors.trim, 0.75), 40)


def flowers(pen: Pen, colors: Palette) -> None:
    """A wide window over a flower box."""
    glazed(pen, colors, (0.16, 0.14, 0.84, 0.66), panes=(3, 2))
    pen.rect(0.08, 0.76, 0.92, 0.9, tone(colors.accent, 0.7), 56)
    leaf = (70, 112, 56)
    for k, x in enumerate(np.linspace(0.11, 0.89, 11)):
        pen.disc(x, 0.735 + 0.02 * (k % 3), 0.055, tone(leaf, 0.8 + 0.12 * (k % 4)), 60)
    for k, x in enumerate(np.linspace(0.13, 0.87, 8)):
        pen.disc(x, 0.7 + 0.035 * (k % 2), 0.034, tone(colors.accent, 1.45), 64)


def gothic(pen: Pen, colors: Palette) -> None:
    """A pointed window with tracery."""
    opening(pen, colors, (0.22, 0.06, 0.78, 0.88), head="pointed", panes=(2, 1), frame=0.06)
    pen.disc(0.5, 0.29, 0.13, colors.sash, -20)
    pen.disc(0.5, 0.29, 0.095, tone(colors.accent, 1.1), -30)


def pair(pen: Pen, colors: Palette) -> None:
    """Two narrow windows that share a coloured panel."""
    pen.rect(0.06, 0.12, 0.94, 0.92, tone(colors.accent, 1.15), 10)
    opening(pen, colors, (0.14, 0.2, 0.4, 0.82), panes=(1, 3))
    opening(pen, colors, (0.6, 0.2, 0.86, 0.82), panes=(1, 3))


def loggia(pen: Pen, colors: Palette) -> None:
    """A deep recess behind a balustrade."""
    pen.rect(0.05, 0.08, 0.95, 0.92, colors.trim, 16)
    pen.rect(0.1, 0.12, 0.9, 0.88, tone(colors.wall, 0.42), -80)
    glazed(pen, colors, (0.36, 0.26, 0.64, 0.88), panes=(2, 3), frame=0.0)
    pen.rect(0.06, 0.62, 0.94, 0.67, colors.trim, 24)
    for x in np.linspace(0.13, 0.87, 8):
        pen.rect(x - 0.025, 0.67, x + 0.025, 0.88, tone(colors.trim, 0.95), 12)
    pen.rect(0.04, 0.88, 0.96, 0.95, tone(colors.trim, 0.95), 30)


def awning(pen: Pen, colors: Palette) -> None:
    """A window under a striped awning."""
    opening(pen, colors, (0.18, 0.3, 0.82, 0.86), panes=(3, 2))
    for k in range(7):
        a, b = k / 7, (k + 1) / 7
        color = colors.accent if k % 2 == 0 else (238, 232, 220)
        pen.polygon(
            [
                (0.14 + 0.72 * a, 0.1),
                (0.14 + 0.72 * b, 0.1),
                (0.04 + 0.92 * b, 0.4),
                (0.04 + 0.92 * a, 0.4),
            ],
            color,
            84,
        )


def triplet(pen: Pen, colors: Palette) -> None:
    """Three lancets, the middle one higher."""
    for x0, top in ((0.08, 0.3), (0.385, 0.08), (0.69, 0.3)):
        opening(pen, colors, (x0, top, x0 + 0.23, 0.86), head="pointed", panes=(1, 3), frame=0.045)


def lattice(pen: Pen, colors: Palette) -> None:
    """A wide window of diamond panes."""
    accented = replace(colors, surround=colors.accent)
    opening(pen, accented, (0.12, 0.16, 0.88, 0.8), panes=(1, 1), frame=0.06)
    for k in range(-3, 7):
        for rise in (1, -1):
            x0, x1 = 0.12 + 0.127 * k, 0.12 + 0.127 * (k + 4)
            y0, y1 = (0.16, 0.8) if rise > 0 else (0.8, 0.16)
            lo, hi = max(0.0, (0.12 - x0) / (x1 - x0)), min(1.0, (0.88 - x0) / (x1 - x0))
            a = (x0 + lo * (x1 - x0), y0 + lo * (y1 - y0))
            b = (x0 + hi * (x1 - x0), y0 + hi * (y1 - y0))
            pen.line(a, b, 0.02, colors.sash, -26)


WINDOWS = {
    f.__name__: f
    for f in (
        sash,
        arch,
        pediment,
        balcony,
        shutters,
        bay,
        flowers,
        gothic,
        pair,
        loggia,
        awning,
        triplet,
        lattice,
    )
}
