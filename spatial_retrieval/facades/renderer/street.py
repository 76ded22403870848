"""Sky, skyline and ground around a house."""

from functools import cache

import cv2
import numpy as np

from spatial_retrieval.facades.renderer.camera import Camera
from spatial_retrieval.facades.renderer.light import Light
from spatial_retrieval.facades.renderer.walls import smooth_noise

__all__ = ["paint_ground", "paint_sky"]

_DENSITY = 12.0  # ground texture, pixels per metre
_TEXTURES = 20
_X, _Z = (-24.0, 42.0), (-34.0, 14.0)  # its extent in metres


def paint_sky(rng: np.random.Generator, camera: Camera, light: Light, size: int) -> np.ndarray:
    """(size, size, 3) float32: a gradient to the horizon, clouds, and roofs far away."""
    left, right = camera.horizon(size)
    top = max(size * 0.3, (left + right) / 2)
    fade = np.clip(np.arange(size, dtype=np.float32) / top, 0, 1)[:, None, None] ** 1.3
    image = (light.zenith + (light.horizon - light.zenith) * fade).astype(np.float32)
    image = np.ascontiguousarray(np.broadcast_to(image, (size, size, 3)))
    bumps = smooth_noise(rng, size, size, size / 5) + 0.55 * smooth_noise(
        rng, size, size, size / 11
    )
    bumps += 0.3 * smooth_noise(rng, size, size, size / 26)
    cover = np.clip((bumps + np.float32(1.6 * light.clouds - 1)) * np.float32(1.1), 0, 0.9)[
        ..., None
    ]
    glow = 150 * (light.sky_color + np.float32(0.7) * light.sun_color)
    image += cover * (light.horizon * np.float32(0.4) + glow - image)
    _skyline(rng, image, (left, right), light)
    return image


def _skyline(
    rng: np.random.Generator, image: np.ndarray, horizon: tuple[float, float], light: Light
) -> None:
    size = len(image)
    for haze, tall in ((0.72, 0.13), (0.5, 0.08)):
        color = light.horizon * haze + np.array([70, 76, 84]) * (1 - haze) * light.sky_color
        x = -0.05 * size
        while x < size:
            w, h = size * rng.uniform(0.05, 0.16), size * tall * rng.uniform(0.25, 1)
            base = horizon[0] + (horizon[1] - horizon[0]) * x / size
            peak = h * rng.choice([0.0, 0.3, 0.5])
            middle = (x + w / 2, base - h - peak)
            low, high = base + size, base - h
            block = [(x, low), (x, high), middle, (x + w, high), (x + w, low)]
            cv2.fillPoly(image, [np.int32(np.round(block))], color.tolist(), cv2.LINE_AA)
            x += w * rng.uniform(0.8, 1.3)


def paint_ground(
    rng: np.random.Generator, image: np.ndarray, camera: Camera, light: Light, *, snow: bool
) -> None:
    """Pavement and road, in perspective, below the horizon; changes `image`."""
    size = len(image)
    texture = _texture(int(rng.integers(_TEXTURES)))
    down = camera.plane(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 0, 1.0]))
    x = _X[0] + rng.uniform(-4, 4)
    to_metres = np.array([[1 / _DENSITY, 0, x], [0, 1 / _DENSITY, _Z[0]], [0, 0, 1]])
    ground = cv2.warpPerspective(
        texture, down @ to_metres, (size, size), borderMode=cv2.BORDER_REPLICATE
    ).astype(np.float32)
    if snow:
        ground = np.float32(0.35) * ground + np.float32([147, 150, 154])
    ground *= light.sky_color + np.float32(0.8) * light.sun_color
    left, right = camera.horizon(size)
    below = np.zeros((size, size), dtype=np.uint8)
    edge = np.array([(0, left), (size, right), (size, 2 * size), (0, 2 * size)])
    cv2.fillPoly(below, [np.int32(np.round(edge * 16))], 255, cv2.LINE_AA, 4)
    line = np.linspace(left, right, size, dtype=np.float32)
    depth = (np.arange(size, dtype=np.float32)[:, None] - line) / size
    haze = np.float32(0.8) * np.exp(np.clip(depth, 0, None) * np.float32(-26))[..., None]
    shown = ground + haze * (light.horizon - ground)
    image += (below[..., None].astype(np.float32) / 255) * (shown - image)


@cache
def _texture(k: int) -> np.ndarray:
    """One of the streets and squares, (h, w, 3) uint8; the same for everybody."""
    rng = np.random.default_rng(np.random.SeedSequence([k, 3]))
    texture = _road(rng) if k % 5 < 3 else _square(rng)
    texture[-6:] = texture[-60:].mean(axis=(0, 1))  # what lies farther is one tone
    return np.clip(texture, 0, 255).astype(np.uint8)


def _slabs(rng: np.random.Generator, h: int, w: int, side: int, spread: float) -> np.ndarray:
    tones = rng.uniform(1 - spread, 1 + spread, (h // side + 1, w // side + 1)).astype(np.float32)
    pattern = np.kron(tones, np.ones((side, side), dtype=np.float32))[:h, :w]
    pattern[::side] *= 0.85
    pattern[:, ::side] *= 0.85
    return pattern


def _extent() -> tuple[int, int]:
    return int((_Z[1] - _Z[0]) * _DENSITY), int((_X[1] - _X[0]) * _DENSITY)


def _road(rng: np.random.Generator) -> np.ndarray:
    """Pavement, kerb, asphalt with a dashed line, and the other pavement."""
    h, w = _extent()
    near, far, middle = (int((z - _Z[0]) * _DENSITY) for z in (-10.5, -2.8, -6.6))
    slabs = _slabs(rng, h, w, 9, 0.06)[..., None] * np.float32([168, 162, 152])
    asphalt = (1 + 0.06 * smooth_noise(rng, h, w, 3) + 0.08 * smooth_noise(rng, h, w, 40))[
        ..., None
    ]
    texture = slabs
    texture[near:far] = (asphalt * np.float32([104, 103, 104]))[near:far]
    texture[far : far + 3] = (196, 192, 184)
    texture[near - 3 : near] = (196, 192, 184)
    texture[middle : middle + 2, (np.arange(w) // 24) % 2 == 0] = (224, 220, 206)
    return texture * (1 + 0.06 * smooth_noise(rng, h, w, 30))[..., None]


def _square(rng: np.random.Generator) -> np.ndarray:
    """A paved square, or a lawn behind a footpath."""
    h, w = _extent()
    stone = np.float32([(170, 152, 132), (150, 148, 146), (178, 168, 148)][rng.integers(3)])
    texture = _slabs(rng, h, w, int(rng.choice([5, 8, 14])), 0.1)[..., None] * stone
    if rng.random() < 0.4:
        lawn = int((-3.2 - _Z[0]) * _DENSITY)
        blades = 1 + 0.14 * smooth_noise(rng, lawn, w, 2.5) + 0.1 * smooth_noise(rng, lawn, w, 30)
        texture[:lawn] = blades[..., None] * np.float32([104, 128, 72])
    return texture * (1 + 0.07 * smooth_noise(rng, h, w, 26))[..., None]
