"""One photograph of a house in its street, with the mask of what is visible of the house."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from spatial_retrieval.facades.renderer import canvas as frontal
from spatial_retrieval.facades.renderer.camera import Camera, photograph
from spatial_retrieval.facades.renderer.levels import LEVELS, Level
from spatial_retrieval.facades.renderer.light import Light, draw_light, lit, scaled
from spatial_retrieval.facades.renderer.pen import Canvas
from spatial_retrieval.facades.renderer.photo import develop, draw_weather, fall
from spatial_retrieval.facades.renderer.sprites import SPRITES, Shape, bush, tree
from spatial_retrieval.facades.renderer.street import paint_ground, paint_sky

__all__ = ["View", "photograph_house"]

_METRE = 1 / frontal.PIXELS_PER_METRE


@dataclass(frozen=True, slots=True)
class View:
    """A photograph.

    Attributes:
        rgb: (size, size, 3) uint8.
        mask: (size, size) uint8, 255 where the façade is visible.
        homography: (3, 3) float64, canvas pixels to image pixels, last entry 1.
        quality: of the JPEG file it is to be kept in.
    """

    rgb: np.ndarray
    mask: np.ndarray
    homography: np.ndarray
    quality: int


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """What is painted on, and by which rules: the image changes, all else stays."""

    rng: np.random.Generator
    image: np.ndarray  # (size, size, 3) float32
    camera: Camera
    light: Light
    level: Level
    width: float  # of the house, metres
    height: float


def photograph_house(
    rng: np.random.Generator,
    house: Canvas,
    neighbour: Callable[[np.random.Generator], Canvas],
    difficulty: str,
    size: int,
) -> View:
    """Photograph `house` at a difficulty of E, M or H; `neighbour` draws the houses next to it."""
    level = LEVELS[difficulty]
    width, height = (n * _METRE for n in house.size)
    camera = photograph(rng, level, width, height, size)
    light, weather = draw_light(rng, level), draw_weather(rng, level)
    image = paint_sky(rng, camera, light, size)
    paint_ground(rng, image, camera, light, snow=weather == "snow")
    scene = _Scene(rng, image, camera, light, level, width, height)
    _greenery(scene)
    _neighbours(scene, neighbour)
    _side_walls(scene, house, 0.0)
    homography, mask = _paste(scene, house, 0.0)
    _street_shadow(scene)
    _occluders(scene, mask)
    fall(rng, image, weather, light)
    return View(
        rgb=develop(rng, image, level),
        mask=np.where(mask > 127, 255, 0).astype(np.uint8),
        homography=homography / homography[2, 2],
        quality=int(rng.integers(level.quality[0], level.quality[1] + 1)),
    )


def _paste(
    scene: _Scene, house: Canvas, x: float, *, detail: float = 1.15
) -> tuple[np.ndarray, np.ndarray]:
    """Put a house at `x` metres along the street; returns its homography and its mask."""
    image, camera = scene.image, scene.camera
    size = len(image)
    w, h = house.size
    axes = np.eye(3)[:2] * _METRE
    homography = camera.plane(np.array([x, -h * _METRE, 0]), *axes)
    ends = np.array(
        [[x, 0, 0], [x, -h * _METRE, 0], [x + w * _METRE, 0, 0], [x + w * _METRE, -h * _METRE, 0]]
    )
    if ((ends - camera.centre) @ camera.axes[2] < 1).any():
        return homography, np.zeros((size, size), dtype=np.uint8)
    seen = camera.project(ends)
    if not ((seen.max(axis=0) > 0) & (seen.min(axis=0) < size)).all():
        return homography, np.zeros((size, size), dtype=np.uint8)
    tall = max(np.linalg.norm(seen[0] - seen[1]), np.linalg.norm(seen[2] - seen[3]))
    small = scaled(house, min(1.0, detail * float(tall) / h))
    zoom = np.diag([w / small.size[0], h / small.size[1], 1.0])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # pixel centres are at .5
    to_image = np.linalg.inv(half) @ homography @ zoom @ half
    rgb = lit(scene.rng, small, scene.light, small.size[0] / w)
    warped = cv2.warpPerspective(rgb, to_image, (size, size), borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpPerspective(small.alpha, to_image, (size, size))
    x0, y0, across, down = cv2.boundingRect(alpha)
    part = np.s_[y0 : y0 + down, x0 : x0 + across]
    image[part] += (alpha[part].astype(np.float32) / 255)[..., None] * (warped[part] - image[part])
    return homography, alpha


def _side_walls(scene: _Scene, house: Canvas, x: float) -> None:
    """The wall towards the side on which the camera stands; a façade is no stage set."""
    camera, light = scene.camera, scene.light
    w, h = (n * _METRE for n in house.size)
    inset, eaves = frontal.MARGIN * _METRE, h - frontal.ROOF * _METRE
    near = x + w - inset if camera.centre[0] > x + w / 2 else x + inset
    if (camera.centre[0] - near) * (1 if near > x + w / 2 else -1) <= 0:
        return
    corners = np.array([[near, 0, 0], [near, -eaves, 0], [near, -eaves, 7.0], [near, 0, 7.0]])
    corners = camera.project(corners)
    color = np.float32(house.side) * (0.8 * light.sky_color + 0.25 * light.sun_color)
    _fill(scene.image, corners, color.tolist())


def _neighbours(scene: _Scene, neighbour: Callable[[np.random.Generator], Canvas]) -> None:
    rng, width, camera = scene.rng, scene.width, scene.camera
    placed = []
    for side in (-1, 1):
        edge = -0.2 if side < 0 else width + 0.2
        for _ in range(2):
            house = neighbour(rng)
            span = house.size[0] * _METRE
            edge += side * (rng.uniform(1.5, 4.0) if rng.random() < 0.3 else -0.4)
            if rng.random() > scene.level.neighbours:
                break
            placed.append((edge if side > 0 else edge - span, house))
            edge += side * span
    for x, house in sorted(placed, key=lambda p: -abs(p[0] - camera.centre[0])):
        _side_walls(scene, house, x)
        _paste(scene, house, x, detail=0.85)


def _greenery(scene: _Scene) -> None:
    rng = scene.rng
    for _ in range(int(rng.integers(2, 6))):
        shapes = (tree if rng.random() < 0.6 else bush)(rng)
        place = rng.uniform(-12, scene.width + 12), rng.uniform(9, 22)
        _paint(scene, _stand(scene.camera, shapes, place), haze=0.3)


def _street_shadow(scene: _Scene) -> None:
    """The outline of roofs across the street falls on the lower floors and the ground."""
    rng, image, light = scene.rng, scene.image, scene.light
    if rng.random() > scene.level.shadow or not light.sun_color.any():
        return
    xs = np.arange(-4.0, scene.width + 5.0, rng.uniform(2.5, 5.0))
    tops = np.repeat(-scene.height * rng.uniform(0.08, 0.5) * rng.uniform(0.5, 1, len(xs)), 2)
    outline = np.stack([np.repeat(xs, 2)[1:-1], tops[1:-1], np.zeros(2 * len(xs) - 2)], axis=1)
    foot = np.array([[xs[-1], 0.0, -2.0], [xs[0], 0.0, -2.0]])
    shadow = np.zeros(image.shape[:2], dtype=np.float32)
    _fill(shadow, scene.camera.project(np.concatenate([outline, foot])), 1.0)
    shadow = cv2.GaussianBlur(shadow, (0, 0), len(image) / 260)[..., None]
    strength = light.sun_color / (light.sun_color + light.sky_color)
    image *= 1 - shadow * strength.astype(np.float32) * 0.8


def _occluders(scene: _Scene, mask: np.ndarray) -> None:
    """Things in front, the nearest last; one that would hide too much is left out."""
    rng, camera, level, width = scene.rng, scene.camera, scene.level, scene.width
    least = level.visible * int((mask > 127).sum())
    count = int(rng.integers(level.occluders[0], level.occluders[1] + 1))
    reach = -0.55 * camera.centre[2]
    for z in sorted(rng.uniform(1.2, max(2.5, reach), count)):
        shapes = SPRITES[str(rng.choice(list(SPRITES)))](rng)
        x = (
            width / 2
            + (z / -camera.centre[2]) * (camera.centre[0] - width / 2)
            + rng.uniform(-0.75, 0.75) * width
        )
        standing = _stand(camera, shapes, (x, -z))
        covered = mask.copy()
        for pixels, _ in standing:
            _fill(covered, pixels, 0)
        if int((covered > 127).sum()) < least:
            continue
        mask[:] = covered
        _paint(scene, standing)


def _stand(
    camera: Camera, shapes: list[Shape], place: tuple[float, float]
) -> list[tuple[np.ndarray, Sequence[float]]]:
    """A sprite's outlines (n, 2) in pixels and colours, at (x, z), turned towards the camera."""
    x, z = place
    facing = np.array([np.cos(0.6 * camera.yaw), 0.0, np.sin(0.6 * camera.yaw)])
    foot, up = np.array([x, 0.0, z]), np.array([0, 1.0, 0])
    return [
        (camera.project(foot + outline[:, :1] * facing - outline[:, 1:] * up), color)
        for outline, color in shapes
    ]


def _paint(
    scene: _Scene, standing: list[tuple[np.ndarray, Sequence[float]]], *, haze: float = 0.0
) -> None:
    light = scene.light
    tint = light.sky_color + 0.7 * light.sun_color
    for pixels, color in standing:
        shown = np.clip(np.array(color) * tint, 0, 255) * (1 - haze) + light.horizon * haze
        _fill(scene.image, pixels, tuple(shown.tolist()))


def _fill(layer: np.ndarray, pixels: np.ndarray, color: object) -> None:
    """Fill a polygon given in pixels (centres at .5), to a sixteenth of a pixel."""
    limited = np.clip(pixels - 0.5, -4000, 4000)
    cv2.fillPoly(layer, [np.round(limited * 16).astype(np.int32)], color, cv2.LINE_AA, 4)
