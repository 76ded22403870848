"""What stands in front of houses. Each function returns polygons in metres: x right, y up."""

from collections.abc import Callable

import numpy as np

from spatial_retrieval.facades.renderer.pen import Color, arc, tone

__all__ = ["SPRITES", "Shape", "bush", "tree"]

Shape = tuple[np.ndarray, Color]  # outline (K, 2) in metres, RGB

_PAINTS = (
    (176, 44, 40),
    (44, 74, 122),
    (226, 224, 218),
    (58, 60, 64),
    (60, 104, 84),
    (208, 168, 62),
    (150, 156, 160),
    (124, 62, 50),
)
_SKINS = ((238, 200, 172), (204, 152, 116), (142, 96, 68), (92, 62, 46))


def _pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    return tone(colors[rng.integers(len(colors))], rng.uniform(0.85, 1.1))


def _ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    return arc(cx, cy, rx, ry, 0, 360)


def _box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)


def tree(rng: np.random.Generator) -> list[Shape]:
    """A street tree, summer or autumn, with light on one side of its crown."""
    height, green = (
        rng.uniform(4.5, 8.0),
        _pick(rng, ((86, 122, 58), (112, 136, 66), (70, 106, 70), (190, 122, 48))),
    )
    trunk = np.array([(-0.16, 0), (0.16, 0), (0.08, 0.62 * height), (-0.08, 0.62 * height)])
    shapes: list[Shape] = [(trunk, (92, 74, 60)), (trunk * (0.5, 1) + (0.05, 0), (70, 56, 46))]
    spots = rng.normal(0, 1, (34, 2)) * (0.17 * height, 0.13 * height) + (0, 0.72 * height)
    radii = rng.uniform(0.05, 0.12, 34) * height
    for (x, y), r in sorted(
        zip(spots.tolist(), radii.tolist(), strict=True), key=lambda s: s[0][1] - s[0][0]
    ):
        light = 0.62 + 0.5 * np.clip((y / height - 0.5) * 1.6 - 0.1 * x, 0, 1)
        wobble = 1 + 0.16 * rng.uniform(-1, 1, 25)[:, None]
        blob = (_ellipse(0, 0, r, 0.86 * r) * wobble) + (x, y)
        shapes.append((blob, tone(green, light * rng.uniform(0.9, 1.1))))
    return shapes


def bush(rng: np.random.Generator) -> list[Shape]:
    """A low hedge."""
    green = _pick(rng, ((78, 108, 60), (96, 120, 66)))
    spots = sorted(rng.uniform((-1.4, 0.2), (1.4, 0.9), (16, 2)).tolist(), key=lambda s: -s[1])
    return [(_ellipse(x, y, 0.42, 0.36), tone(green, 0.66 + 0.5 * y)) for x, y in spots]


def car(rng: np.random.Generator) -> list[Shape]:
    """A parked car from the side."""
    paint = _pick(rng, _PAINTS)
    flip = rng.choice([-1.0, 1.0])
    body = [
        (-2.1, 0.35),
        (2.1, 0.35),
        (2.12, 0.72),
        (1.9, 0.88),
        (1.2, 0.95),
        (0.65, 1.42),
        (-1.0, 1.45),
        (-1.75, 0.98),
        (-2.1, 0.9),
    ]
    lower = [(-2.1, 0.35), (2.1, 0.35), (2.12, 0.6), (-2.1, 0.6)]
    front = [(0.1, 0.95), (1.0, 0.95), (0.58, 1.34), (0.1, 1.36)]
    back = [(-1.5, 0.97), (0.0, 0.95), (0.0, 1.36), (-0.95, 1.37)]
    lamp = _box(1.88, 0.66, 2.08, 0.8)
    shapes: list[Shape] = [
        (_ellipse(0, 0.08, 2.25, 0.12), (46, 44, 44)),
        (np.array(body), paint),
        (np.array(lower), tone(paint, 0.72)),
        (np.array(front), (60, 72, 84)),
        (np.array(back), (52, 62, 74)),
        (lamp, (244, 232, 190)),
    ]
    for x in (-1.32, 1.32):
        shapes += [
            (_ellipse(x, 0.33, 0.34, 0.33), (32, 32, 34)),
            (_ellipse(x, 0.33, 0.18, 0.18), (150, 152, 156)),
        ]
    return [(outline * (flip, 1), color) for outline, color in shapes]


def person(rng: np.random.Generator) -> list[Shape]:
    """Somebody on the pavement."""
    k = rng.uniform(0.88, 1.08)
    coat, legs, skin = (
        _pick(rng, _PAINTS),
        _pick(rng, ((52, 54, 70), (84, 72, 62))),
        _pick(rng, _SKINS),
    )
    stride = rng.uniform(0.04, 0.22)
    shapes: list[Shape] = [(_ellipse(0, 0.03, 0.36, 0.06), (58, 56, 54))]
    for side in (-1, 1):
        leg = [
            (-0.1, 0.85),
            (0.1, 0.85),
            (0.07 + side * stride, 0.02),
            (-0.07 + side * stride, 0.02),
        ]
        shapes.append((np.array(leg), tone(legs, 0.9 + 0.1 * side)))
    torso = [(-0.2, 0.74), (0.2, 0.74), (0.25, 1.3), (0.13, 1.45), (-0.13, 1.45), (-0.25, 1.3)]
    arms = [(-0.25, 1.36), (-0.33, 0.86), (-0.22, 0.84), (-0.15, 1.3)]
    shapes += [
        (np.array(torso), coat),
        (np.array(arms), tone(coat, 0.8)),
        (np.array(arms) * (-1, 1), tone(coat, 0.9)),
    ]
    hair = _pick(rng, ((48, 36, 30), (112, 78, 48), (196, 178, 150)))
    shapes += [(_ellipse(0, 1.63, 0.12, 0.145), hair), (_ellipse(0.015, 1.59, 0.1, 0.12), skin)]
    return [(outline * k, color) for outline, color in shapes]


def people(rng: np.random.Generator) -> list[Shape]:
    """Two or three people together."""
    offsets = np.cumsum(rng.uniform(0.5, 0.9, int(rng.integers(2, 4))))
    return [(o + np.array([dx, 0]), c) for dx in offsets for o, c in person(rng)]


def lamp(rng: np.random.Generator) -> list[Shape]:
    """A street lamp."""
    iron = (56, 60, 62)
    glass = [(-0.2, 4.75), (0.2, 4.75), (0.14, 4.3), (-0.14, 4.3)]
    return [
        (_box(-0.12, 0, 0.12, 0.9), iron),
        (_box(-0.06, 0, 0.06, 4.3), tone(iron, 0.9)),
        (np.array(glass), (250, 236, 190)),
        (_box(-0.26, 4.75, 0.26, 4.85), iron),
    ]


def sign(rng: np.random.Generator) -> list[Shape]:
    """A traffic sign or an advertising column."""
    if rng.random() < 0.5:
        pole = (_box(-0.04, 0, 0.04, 2.5), (132, 136, 140))
        rim, inside = (
            ((186, 44, 40), (240, 238, 232))
            if rng.random() < 0.5
            else ((40, 78, 150), (70, 110, 184))
        )
        return [pole, (_ellipse(0, 2.5, 0.36, 0.36), rim), (_ellipse(0, 2.5, 0.26, 0.26), inside)]
    paper = [_pick(rng, _PAINTS) for _ in range(3)]
    shapes: list[Shape] = [
        (_box(-0.6, 0, 0.6, 2.9), (78, 92, 84)),
        (_ellipse(0, 2.9, 0.7, 0.32), (62, 84, 74)),
    ]
    for k, color in enumerate(paper):
        x = -0.52 + 0.36 * k
        shapes += [
            (_box(x, 0.7, x + 0.3, 2.3), (234, 228, 214)),
            (_box(x + 0.04, 1.2, x + 0.26, 2.2), color),
        ]
    return shapes


SPRITES: dict[str, Callable[[np.random.Generator], list[Shape]]] = {
    f.__name__: f for f in (tree, car, person, people, lamp, sign)
}
