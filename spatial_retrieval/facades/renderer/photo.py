"""Weather in front of the lens, and the lens, sensor and exposure behind it."""

import cv2
import numpy as np

from spatial_retrieval.facades.renderer.levels import Level
from spatial_retrieval.facades.renderer.light import Light
from spatial_retrieval.facades.renderer.walls import smooth_noise

__all__ = ["develop", "draw_weather", "fall"]


def draw_weather(rng: np.random.Generator, level: Level) -> str:
    """clear, fog, rain or snow."""
    return str(rng.choice(["fog", "rain", "snow"])) if rng.random() < level.weather else "clear"


def fall(rng: np.random.Generator, image: np.ndarray, weather: str, light: Light) -> None:
    """Fog, rain or snow between the camera and the house; changes `image`."""
    size = len(image)
    if weather == "fog":
        amount = np.float32(rng.uniform(0.2, 0.42)) * (
            1 + 0.25 * smooth_noise(rng, size, size, size / 3)
        )
        image += amount[..., None] * (light.horizon - image)
    if weather in ("rain", "snow"):
        flakes = np.zeros((size, size), dtype=np.uint8)
        count = int(rng.integers(200, 420))
        starts = rng.uniform(0, size, (count, 2))
        if weather == "rain":
            slant = np.array([rng.uniform(-0.3, 0.3), 1.0]) * size * 0.045
            for p in starts:
                ends = np.int32(np.round(np.stack([p, p + slant * rng.uniform(0.5, 1)]) * 16))
                cv2.line(flakes, ends[0].tolist(), ends[1].tolist(), 90, 1, cv2.LINE_AA, 4)
            image *= 0.88
        else:
            for p in starts:
                radius = int(size * rng.uniform(0.001, 0.0055) * 16)
                cv2.circle(flakes, np.int32(p * 16).tolist(), radius, 220, -1, cv2.LINE_AA, 4)
        image += (flakes.astype(np.float32) / 255)[..., None] * (236 - image)


def develop(rng: np.random.Generator, image: np.ndarray, level: Level) -> np.ndarray:
    """Exposure, white balance, contrast, vignette, blur and noise: float image to uint8."""
    size = len(image)
    axis = np.linspace(-1, 1, size, dtype=np.float32) ** 2
    vignette = 1 - np.float32(rng.uniform(0, 0.14)) * (axis[:, None] + axis)
    balance = 1 + 0.07 * level.light * rng.uniform(-1, 1, 3)
    image = image * (vignette[..., None] * balance.astype(np.float32))
    gamma = np.exp(level.light * rng.uniform(-0.32, 0.32))
    curve = 255 * np.linspace(0, 1, 1024, dtype=np.float32) ** np.float32(gamma)
    image = curve[np.clip(image * np.float32(1023 / 255), 0, 1023).astype(np.int16)]
    mean = float(image.mean())
    image = (image - mean) * np.float32(1 + level.light * rng.uniform(-0.28, 0.16)) + np.float32(
        mean
    )
    image += np.float32(level.light * rng.uniform(-16, 16))
    sigma = rng.uniform(*level.blur) * size / 448
    if sigma > 0.25:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    grain = rng.standard_normal((size, size, 1), dtype=np.float32) * np.float32(
        rng.uniform(*level.noise)
    )
    chroma = rng.standard_normal((size // 2, size // 2, 3), dtype=np.float32)
    chroma = cv2.resize(chroma, (size, size), interpolation=cv2.INTER_LINEAR)
    image += grain + chroma * np.float32(0.35 * rng.uniform(*level.noise))
    return np.clip(image, 0, 255).astype(np.uint8)
