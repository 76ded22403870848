r"""A pinhole camera in a street.

World: x to the right along the façade, y down, z into the house; metres. The façade lies in the
plane z = 0 with its lower left corner at the origin, the street at z < 0. A camera at C with axes R
(rows right, down, forward), focal length f and principal point p projects X to
:math:`p + f\,(c_x, c_y)/c_z` with :math:`c = R\,(X - C)`.
"""

from dataclasses import dataclass

import numpy as np

from spatial_retrieval.facades.renderer.levels import Level

__all__ = ["Camera", "photograph"]


@dataclass(frozen=True, slots=True)
class Camera:
    """Where the photograph is taken from, and how."""

    matrix: np.ndarray  # (3, 4) float64, world to homogeneous pixels
    axes: np.ndarray  # (3, 3) float64, rows right, down, forward
    centre: np.ndarray  # (3,) float64
    yaw: float  # radians, positive when the camera stands to the right

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres to (..., 2) pixels, for points in front of the camera."""
        homogeneous = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        return homogeneous[..., :2] / homogeneous[..., 2:]

    def plane(self, origin: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(3, 3) homography of the plane origin + s·a + t·b: (s, t) to pixels."""
        columns = [self.matrix[:, :3] @ a, self.matrix[:, :3] @ b]
        return np.stack([*columns, self.matrix[:, :3] @ origin + self.matrix[:, 3]], axis=1)

    def horizon(self, size: int) -> tuple[float, float]:
        """Height of the horizon at the left and the right border of the image, pixels."""
        side = np.array([self.axes[2, 2], 0.0, -self.axes[2, 0]])
        forward = np.array([self.axes[2, 0], 0.0, self.axes[2, 2]])
        ends = np.stack([forward - 0.5 * side, forward + 0.5 * side]) @ self.matrix[:, :3].T
        (x0, y0), (x1, y1) = ends[:, :2] / ends[:, 2:]
        slope = (y1 - y0) / (x1 - x0)
        return float(y0 - slope * x0), float(y0 + slope * (size - x0))


def photograph(
    rng: np.random.Generator, level: Level, width: float, height: float, size: int
) -> Camera:
    """Stand somewhere in the street and frame a façade of `width` × `height` metres."""
    yaw = np.deg2rad(rng.uniform(*level.yaw)) * rng.choice([-1, 1])
    distance = rng.uniform(1.25, 2.1) * max(width, height)
    eye = rng.uniform(0.08, 0.42) * height
    target = np.array([width / 2, -rng.uniform(0.42, 0.55) * height, 0.0])
    centre = np.array([width / 2 + distance * np.sin(yaw), -eye, -distance * np.cos(yaw)])
    axes = _look_at(centre, target, np.deg2rad(rng.uniform(-1, 1) * level.roll))
    corners = np.array([[0, 0, 0], [width, 0, 0], [width, -height, 0], [0, -height, 0]])
    seen = (corners - centre) @ axes.T
    seen = seen[:, :2] / seen[:, 2:]
    low, high = seen.min(axis=0), seen.max(axis=0)
    focal = rng.uniform(*level.fill) * size / float((high - low).max())
    place = np.array([0.5, 0.485]) + rng.uniform(-1, 1, 2) * level.shift * (1.0, 0.5)
    principal = place * size - focal * (low + high) / 2
    lens = np.array([[focal, 0, principal[0]], [0, focal, principal[1]], [0, 0, 1]])
    matrix = lens @ np.hstack([axes, -(axes @ centre)[:, None]])
    return Camera(matrix=matrix, axes=axes, centre=centre, yaw=float(yaw))


def _look_at(centre: np.ndarray, target: np.ndarray, roll: float) -> np.ndarray:
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    return np.stack([c * right + s * down, c * down - s * right, forward])
