"""The vocabulary of each split: parts, materials and colours.

Validation houses share the training style; test houses keep half of the parts and bring materials,
ornaments and colours of their own, so that a method cannot have learned them by heart.
"""

from dataclasses import dataclass

__all__ = ["STYLES", "Style"]

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Style:
    """What houses of one split are made of. `colors` are (wall, trim, accents)."""

    upper: tuple[str, ...]
    ground: tuple[str, ...]
    roofs: tuple[str, ...]
    textures: tuple[str, ...]
    colors: tuple[tuple[Color, Color, tuple[Color, ...]], ...]
    roof_colors: tuple[Color, ...]


_UPPER = ("sash", "arch", "pediment", "balcony", "shutters", "bay", "columns", "flowers")
_GROUND = ("door", "shop", "archway", "portico")
_ROOFS = ("gable", "dome", "dormer", "chimney", "balustrade")
_WHITE, _CREAM, _SAND = (240, 236, 226), (232, 220, 192), (206, 190, 158)
_STONE, _BROWN, _SLATE = (168, 160, 148), (104, 72, 52), (74, 80, 90)
_GREEN, _TEAL, _BLUE = (58, 104, 78), (44, 116, 118), (52, 84, 138)
_RED, _RUST, _OCHRE = (156, 48, 44), (176, 92, 48), (206, 152, 56)
_PLUM, _PINK, _OLIVE = (112, 58, 92), (206, 134, 130), (124, 124, 70)

STYLES = {
    "train": Style(
        upper=(*_UPPER, "gothic", "pair", "mosaic", "loggia", "louvre", "awning"),
        ground=(*_GROUND, "garage", "arcade"),
        roofs=(*_ROOFS, "spire", "crenel", "turret"),
        textures=("brick", "ashlar", "plaster", "render"),
        colors=(
            ((176, 92, 70), _CREAM, (_GREEN, _SLATE, _OCHRE)),
            ((150, 74, 62), _WHITE, (_BLUE, _BROWN, _OCHRE)),
            ((214, 200, 172), _WHITE, (_RED, _GREEN, _BLUE)),
            ((228, 196, 132), _WHITE, (_GREEN, _RUST, _SLATE)),
            ((222, 170, 128), _CREAM, (_TEAL, _RED, _BROWN)),
            ((168, 158, 142), _CREAM, (_RED, _TEAL, _OCHRE)),
            ((126, 120, 116), _SAND, (_RED, _OCHRE, _GREEN)),
            ((234, 224, 204), _STONE, (_BLUE, _PLUM, _RUST)),
            ((172, 182, 168), _WHITE, (_RUST, _PLUM, _SLATE)),
            ((198, 142, 96), _WHITE, (_GREEN, _BLUE, _PLUM)),
        ),
        roof_colors=((92, 84, 84), (150, 76, 58), (78, 96, 106), (90, 124, 112), (120, 66, 52)),
    ),
    "test": Style(
        upper=(*_UPPER, "rose", "triplet", "niche", "clock", "banner", "lattice"),
        ground=(*_GROUND, "cafe", "gate"),
        roofs=(*_ROOFS, "onion", "steps", "pavilion"),
        textures=("brick", "banded", "tiles", "timber"),
        colors=(
            ((190, 108, 84), _SAND, (_TEAL, _SLATE, _PLUM)),
            ((208, 182, 190), _WHITE, (_PLUM, _SLATE, _TEAL)),
            ((186, 196, 200), _WHITE, (_RED, _OCHRE, _BLUE)),
            ((226, 206, 150), _CREAM, (_TEAL, _PLUM, _RUST)),
            ((160, 140, 116), _CREAM, (_BLUE, _RED, _OLIVE)),
            ((216, 146, 116), _WHITE, (_OLIVE, _BLUE, _RED)),
            ((140, 152, 136), _SAND, (_RUST, _RED, _OCHRE)),
            ((236, 230, 220), _BROWN, (_RED, _GREEN, _OCHRE)),
        ),
        roof_colors=((84, 78, 92), (166, 92, 60), (62, 92, 92), (132, 108, 76), (70, 74, 80)),
    ),
}
STYLES["val"] = STYLES["train"]
