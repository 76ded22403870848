"""Wall materials: one (h, w) pattern of brightness each, weathered and tinted."""

from collections.abc import Callable

import cv2
import numpy as np

from spatial_retrieval.facades.renderer.design import Design

__all__ = ["smooth_noise", "wall_colors"]


def smooth_noise(rng: np.random.Generator, h: int, w: int, cell: float) -> np.ndarray:
    """(h, w) float32 noise in [-1, 1] whose bumps are about `cell` pixels wide."""
    shape = (max(2, int(h / cell) + 2), max(2, int(w / cell) + 2))
    coarse = rng.uniform(-1, 1, shape).astype(np.float32)
    return cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)


def wall_colors(design: Design, h: int, w: int) -> np.ndarray:
    """(h, w, 3) uint8, the bare wall of a design. Twins get the same one."""
    rng = np.random.default_rng(np.random.SeedSequence([*design.seed, 1]))
    pattern = _TEXTURES[design.texture](rng, h, w)
    soil = 1 + 0.05 * smooth_noise(rng, h, w, 70) + 0.03 * smooth_noise(rng, h, w, 7)
    streaks = 1 + 0.04 * smooth_noise(rng, 3, w, 5)
    pattern *= soil * cv2.resize(streaks, (w, h)) * _grime(h)[:, None]
    warmth = 1 + 0.03 * smooth_noise(rng, h, w, 40)[..., None] * np.float32([1, 0, -1])
    return np.clip(np.float32(design.wall) * warmth * pattern[..., None], 0, 255).astype(np.uint8)


def _grime(h: int) -> np.ndarray:
    below = np.arange(h, dtype=np.float32) - (h - 60)
    return 1 - 0.16 * np.clip(below / 60, 0, 1)


def _blocks(
    rng: np.random.Generator, h: int, w: int, size: tuple[int, int], spread: float, joint: float
) -> np.ndarray:
    """Courses of blocks of (height, width), every other course shifted by half a block."""
    bh, bw = size
    y = np.arange(h)[:, None]
    x = np.arange(w)[None] + (y // bh % 2) * (bw // 2)
    tones = rng.uniform(1 - spread, 1 + spread, (h // bh + 1, (w + bw) // bw + 1)).astype(
        np.float32
    )
    pattern = tones[np.broadcast_to(y // bh, x.shape), x // bw]
    pattern[np.broadcast_to(y % bh == 0, x.shape) | (x % bw == 0)] = joint
    return pattern


def _brick(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    return _blocks(rng, h, w, (6, 15), 0.14, 1.18)


def _ashlar(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    return _blocks(rng, h, w, (20, 44), 0.07, 0.74)


def _plaster(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    return 1 + 0.05 * smooth_noise(rng, h, w, 16) + 0.02 * smooth_noise(rng, h, w, 2)


def _render(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    pattern = 1 + 0.09 * smooth_noise(rng, h, w, 2.2)
    return pattern * _blocks(rng, h, w, (CELL_COURSE, 4000), 0.03, 0.8)


def _banded(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    bands = np.where(np.arange(h) // 18 % 3 == 0, 1.16, 0.95).astype(np.float32)
    return _blocks(rng, h, w, (6, 15), 0.1, 1.1) * bands[:, None]


def _tiles(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    return _blocks(rng, h, w, (13, 13), 0.12, 0.82)


def _timber(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    boards = _blocks(rng, h, w, (9, 4000), 0.06, 0.68)
    return boards * (1 + 0.05 * cv2.resize(smooth_noise(rng, h, 24, 1.5), (w, h)))


CELL_COURSE = 61  # a joint of the render, two a floor

_TEXTURES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "brick": _brick,
    "ashlar": _ashlar,
    "plaster": _plaster,
    "render": _render,
    "banded": _banded,
    "tiles": _tiles,
    "timber": _timber,
}
