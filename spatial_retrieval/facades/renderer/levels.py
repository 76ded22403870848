"""How much of everything that makes recognition hard an Easy, Medium or Hard view gets."""

from dataclasses import dataclass

__all__ = ["LEVELS", "Level"]

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Level:
    """Ranges from which a view draws.

    Attributes:
        yaw: angle between the view and the façade's normal, degrees, to either side.
        roll: of the camera, degrees, to either side.
        fill: longer side of the façade as a share of the image side.
        shift: of the façade off the centre, share of the image side.
        visible: smallest share of the façade that occluders and the image border may leave.
        occluders: number of trees, cars, people, lamps and signs in front.
        neighbours: chance of a house on each side.
        shadow: chance that something across the street casts a shadow.
        light: strength of changes of exposure, contrast and colour.
        weather: chance of fog, rain or snow.
        dusk: chance of an evening view.
        blur: sigma of the lens, pixels at 448.
        noise: sigma of the sensor, of 255.
        quality: of the JPEG file.
    """

    yaw: Range
    roll: float
    fill: Range
    shift: float
    visible: float
    occluders: tuple[int, int]
    neighbours: float
    shadow: float
    light: float
    weather: float
    dusk: float
    blur: Range
    noise: Range
    quality: tuple[int, int]


LEVELS = {
    "E": Level(
        yaw=(0, 24),
        roll=2.0,
        fill=(0.74, 0.97),
        shift=0.06,
        visible=0.88,
        occluders=(0, 2),
        neighbours=0.6,
        shadow=0.2,
        light=0.4,
        weather=0.0,
        dusk=0.0,
        blur=(0.2, 0.5),
        noise=(1, 3),
        quality=(88, 95),
    ),
    "M": Level(
        yaw=(12, 38),
        roll=3.5,
        fill=(0.7, 1.0),
        shift=0.08,
        visible=0.68,
        occluders=(2, 5),
        neighbours=0.85,
        shadow=0.45,
        light=0.7,
        weather=0.2,
        dusk=0.08,
        blur=(0.3, 0.9),
        noise=(2, 7),
        quality=(70, 90),
    ),
    "H": Level(
        yaw=(28, 48),
        roll=5.0,
        fill=(0.62, 1.02),
        shift=0.1,
        visible=0.5,
        occluders=(4, 8),
        neighbours=1.0,
        shadow=0.6,
        light=1.0,
        weather=0.4,
        dusk=0.2,
        blur=(0.4, 1.5),
        noise=(4, 13),
        quality=(45, 75),
    ),
}
