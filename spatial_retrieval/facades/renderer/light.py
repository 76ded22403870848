"""Sun, sky and how they fall on a façade: shadows of its relief, reflections in its windows."""

from dataclasses import dataclass

import cv2
import numpy as np

from spatial_retrieval.facades.renderer.levels import Level
from spatial_retrieval.facades.renderer.pen import Canvas
from spatial_retrieval.facades.renderer.walls import smooth_noise

__all__ = ["Light", "draw_light", "lit", "scaled"]


@dataclass(frozen=True, slots=True)
class Light:
    """Light of one photograph; colours are RGB factors around 1.

    Attributes:
        sun: (2,) direction in which shadows fall on the façade, in canvas pixels per unit relief.
        sun_color: (3,) colour of direct light, zero under clouds.
        sky_color: (3,) colour of the light from everywhere.
        zenith: (3,) RGB of the sky above.
        horizon: (3,) RGB of the sky at the horizon, the colour of haze too.
        clouds: cover, 0 to 1.
        evening: whether lamps and windows are lit.
    """

    sun: np.ndarray
    sun_color: np.ndarray
    sky_color: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    clouds: float
    evening: bool


_TIMES = {  # zenith, horizon, direct light, light of the sky
    "noon": ((92, 142, 204), (206, 224, 236), (0.6, 0.57, 0.51), (0.56, 0.59, 0.63)),
    "afternoon": ((110, 152, 200), (228, 224, 210), (0.66, 0.57, 0.44), (0.53, 0.55, 0.58)),
    "golden": ((124, 148, 186), (248, 212, 164), (0.7, 0.5, 0.3), (0.5, 0.49, 0.52)),
    "overcast": ((176, 184, 192), (222, 225, 226), (0.0, 0.0, 0.0), (0.86, 0.88, 0.9)),
    "dusk": ((60, 66, 112), (226, 158, 134), (0.0, 0.0, 0.0), (0.55, 0.5, 0.6)),
}


def draw_light(rng: np.random.Generator, level: Level) -> Light:
    """A time of day and a sky."""
    by_day = ["noon", "noon", "afternoon", "afternoon", "golden", "overcast"]
    time = "dusk" if rng.random() < level.dusk else str(rng.choice(by_day))
    zenith, horizon, direct, sky = (np.array(c, dtype=np.float32) for c in _TIMES[time])
    tint = 1 + 0.08 * level.light * rng.uniform(-1, 1, 3).astype(np.float32)
    side = rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
    return Light(
        sun=np.array([side, rng.uniform(0.5, 1.2)]),
        sun_color=direct * tint * np.float32(rng.uniform(0.75, 1.1)),
        sky_color=sky * tint,
        zenith=zenith * np.float32(1 + 0.05 * rng.uniform(-1, 1, 3)),
        horizon=np.minimum(horizon * np.float32(1 + 0.05 * rng.uniform(-1, 1, 3)), 255),
        clouds=float(rng.uniform(0.1, 0.8)),
        evening=time == "dusk",
    )


def scaled(canvas: Canvas, scale: float) -> Canvas:
    """The canvas at a lower resolution, so that warping it does not alias."""
    if scale >= 1:
        return canvas
    w, h = (max(8, round(scale * n)) for n in canvas.size)
    layers = (canvas.rgb, canvas.relief, canvas.glass, canvas.alpha)
    small = [cv2.resize(layer, (w, h), interpolation=cv2.INTER_AREA) for layer in layers]
    return Canvas(*small, side=canvas.side)


def lit(rng: np.random.Generator, canvas: Canvas, light: Light, scale: float) -> np.ndarray:
    """(h, w, 3) uint8, the canvas (already at `scale`) under this light."""
    w, h = canvas.size
    color = canvas.rgb.astype(np.float32)
    _glaze(rng, color, canvas.glass, light, scale)
    relief = canvas.relief.astype(np.float32)
    step = light.sun * scale * 2.5  # one march step: 2.5 px along the sun for 14 units of relief
    shadow = np.zeros_like(relief)
    for k in range(1, 4):
        shift = np.float32([[1, 0, k * step[0]], [0, 1, k * step[1]]])
        above = cv2.warpAffine(relief, shift, (w, h), borderMode=cv2.BORDER_REPLICATE)
        above -= relief
        np.maximum(shadow, above - 14 * (k - 1), out=shadow)
    sunlit = 1 - np.clip(shadow / 26, 0, 1)
    edge = cv2.Sobel(relief, cv2.CV_32F, 1, 0) * light.sun[0]
    edge += cv2.Sobel(relief, cv2.CV_32F, 0, 1) * light.sun[1]
    sunlit += np.clip(edge * 0.0016, -0.25, 0.35)
    color *= light.sky_color + light.sun_color * sunlit[..., None]
    return np.clip(color, 0, 255).astype(np.uint8)


def _glaze(
    rng: np.random.Generator, color: np.ndarray, glass: np.ndarray, light: Light, scale: float
) -> None:
    """Windows mirror the sky, or glow in the evening."""
    h, w = glass.shape
    amount = np.clip(smooth_noise(rng, h, w, 44 * scale) + np.float32(0.2), 0, 1)
    amount *= np.float32(rng.uniform(0.25, 0.75))
    mirrored = light.zenith * np.float32(0.5) + light.horizon * np.float32(0.4)
    if light.evening:
        rooms = rng.random((h // int(60 * scale + 1) + 1, w // int(54 * scale + 1) + 1)) < 0.4
        amount = cv2.resize(rooms.astype(np.float32), (w, h), interpolation=cv2.INTER_NEAREST)
        mirrored = np.float32([460, 330, 170])
    amount = (amount * (glass.astype(np.float32) / 255))[..., None]
    color += amount * (mirrored - color)
