"""What a house is, and what its twin is.

A design is a grid of parts under a row of roof pieces. The twin has the same multiset of parts,
materials and colours, re-arranged in one of three ways: cells shuffled, floors permuted, or columns
permuted. It differs from the original, and from the original's mirror image, in at least
`MIN_CHANGE` of the cells, so no flip of a photograph turns one into the other.
"""

from dataclasses import dataclass, replace

import numpy as np

from spatial_retrieval.facades.renderer.styles import STYLES, Style

__all__ = ["KINDS", "MIN_CHANGE", "Design", "Part", "change", "design_pair"]

KINDS = ("shuffle", "rows", "columns")
MIN_CHANGE = 0.6

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Part:
    """What fills one cell: the kind of part and its accent colour."""

    kind: str
    accent: Color


@dataclass(frozen=True, slots=True)
class Design:
    """A house. `cells` are floors from the top down, the last is the ground floor.

    Attributes:
        cells: R floors of C parts.
        roof: C roof pieces.
        texture: name of the wall's material.
        wall, trim, roof_color, roof_accent: RGB.
        pilasters: whether columns of the grid are divided by pilasters.
        courses: whether floors are divided by string courses.
        seed: of the wall's weathering, the same for both twins.
    """

    cells: tuple[tuple[Part, ...], ...]
    roof: tuple[str, ...]
    texture: str
    wall: Color
    trim: Color
    roof_color: Color
    roof_accent: Color
    pilasters: bool
    courses: bool
    seed: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Number of floors and of columns."""
        return len(self.cells), len(self.cells[0])


def design_pair(seed: tuple[int, ...], kind: str, split: str) -> tuple[Design, Design]:
    """Draw a house and its twin; `kind` is one of `KINDS`, `split` chooses the style.

    Raises:
        ValueError: if kind or split is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"expected a kind of re-arrangement in {KINDS}, got {kind!r}")
    if split not in STYLES:
        raise ValueError(f"expected a split in {tuple(STYLES)}, got {split!r}")
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    while True:  # a few designs are too regular to have a twin; the next draw is another house
        design = _draw(rng, kind, STYLES[split], seed)
        twin = _twin(rng, design, kind)
        if twin is not None:
            return design, twin


def change(a: Design, b: Design) -> float:
    """Share of cells that differ between `a` and `b`, or `b` mirrored if that is less."""
    plain = [
        p != q for x, y in zip(a.cells, b.cells, strict=True) for p, q in zip(x, y, strict=True)
    ]
    mirrored = [
        p != q
        for x, y in zip(a.cells, b.cells, strict=True)
        for p, q in zip(x, y[::-1], strict=True)
    ]
    return min(float(np.mean(plain)), float(np.mean(mirrored)))


def _draw(rng: np.random.Generator, kind: str, style: Style, seed: tuple[int, ...]) -> Design:
    columns = int(rng.choice([3, 4, 4]))
    upper = int(rng.choice([2, 3] if kind != "rows" else [2, 3, 3]))
    wall, trim, accents = style.colors[rng.integers(len(style.colors))]
    accent_of = {k: accents[int(rng.integers(len(accents)))] for k in (*style.upper, *style.ground)}
    floors = [
        [Part(k, accent_of[k]) for k in row] for row in _floors(rng, kind, style, upper, columns)
    ]
    ground = rng.choice(style.ground, size=3, replace=False)
    floors.append([Part(str(k), accent_of[k]) for k in _spread(rng, list(ground), columns)])
    roofs = rng.choice(style.roofs, size=3, replace=False)
    return Design(
        cells=tuple(tuple(row) for row in floors),
        roof=tuple(str(k) for k in _spread(rng, list(roofs), columns)),
        texture=str(rng.choice(style.textures)),
        wall=wall,
        trim=trim,
        roof_color=style.roof_colors[rng.integers(len(style.roof_colors))],
        roof_accent=accents[0],
        pilasters=bool(rng.random() < 0.35),
        courses=bool(rng.random() < 0.6),
        seed=seed,
    )


def _floors(
    rng: np.random.Generator, kind: str, style: Style, upper: int, columns: int
) -> list[list[str]]:
    """Kinds of the upper floors' parts, with the regularity that the re-arrangement needs."""
    kinds = [str(k) for k in rng.permutation(style.upper)]
    if kind == "rows":  # each floor has its own one or two parts
        floors = []
        for i in range(upper):
            a, b = kinds[2 * i], kinds[2 * i + 1]
            pattern = rng.integers(3)
            mark = [(j % 2, min(j, columns - 1 - j) == 0, 0)[pattern] for j in range(columns)]
            floors.append([b if m else a for m in mark])
        return floors
    if kind == "columns":  # each column has its own
        stacks = [
            [kinds[2 * j + (i % 2) * int(rng.integers(2))] for i in range(upper)]
            for j in range(columns)
        ]
        return [[stack[i] for stack in stacks] for i in range(upper)]
    pool = kinds[: int(rng.integers(4, 7))]
    spread = _spread(rng, pool, upper * columns)
    return [spread[i * columns : (i + 1) * columns] for i in range(upper)]


def _spread(rng: np.random.Generator, pool: list[str], n: int) -> list[str]:
    """`n` entries that use every entry of the pool about equally often, in random order."""
    copies = [str(pool[i % len(pool)]) for i in range(n)]
    return [copies[i] for i in rng.permutation(n)]


def _twin(rng: np.random.Generator, design: Design, kind: str) -> Design | None:
    """The most different of some re-arrangements, or None when none differs enough."""
    candidates = [_rearranged(rng, design, kind) for _ in range(24)]
    best = max(candidates, key=lambda other: change(design, other))
    return best if change(design, best) >= MIN_CHANGE else None


def _rearranged(rng: np.random.Generator, design: Design, kind: str) -> Design:
    *upper, ground = design.cells
    columns = len(ground)
    if kind == "rows":
        order = rng.permutation(len(upper))
        return replace(design, cells=(*(upper[i] for i in order), ground))
    if kind == "columns":
        order = rng.permutation(columns)
        cells = tuple(tuple(row[j] for j in order) for row in design.cells)
        return replace(design, cells=cells, roof=tuple(design.roof[j] for j in order))
    flat = [part for row in upper for part in row]
    flat = [flat[i] for i in rng.permutation(len(flat))]
    rows = [tuple(flat[i * columns : (i + 1) * columns]) for i in range(len(upper))]
    ground = tuple(ground[j] for j in rng.permutation(columns))
    roof = tuple(design.roof[j] for j in rng.permutation(columns))
    return replace(design, cells=(*rows, ground), roof=roof)
