"""``DataConfig``: what a recipe trains on."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

__all__ = ["DataConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What is trained on, and what chooses the best step.

    Attributes:
        folder: folder of folders of photographs, one landmark each: trains end to end.
        landmarks: rendered Twin Façades (train), an even number; trains heads on their maps.
        views: of each rendered landmark.
        hide: largest part of cells hidden in a map.
        photographs: folder whose photographs join as instances, each a label of its own.
        instances: how many of them; ``instance_views`` augmented views of each.
        instance_groups: of them in a batch, in addition to the config's ``groups`` of twins.
        teacher: model whose similarities are kept on the instances (the objective's ``keep``).
        base: model that the trained one will be fused with (the objective's ``fused``).
        validation_landmarks: rendered Twin Façades (val), six views each.
        validation_folders: name → folder of folders, scored by leave-one-out mAP.
            Folders may begin with an environment variable, as in "$PHOTOS/train". Where it is not
            set, training goes without that folder, and says so.
        size: side of rendered and augmented pictures, pixels.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    folder: str = ""
    landmarks: int = 0
    views: int = 4
    hide: float = 0.0
    photographs: str = ""
    instances: int = 0
    instance_views: int = 3
    instance_groups: int = 8
    teacher: str = ""
    base: str = ""
    validation_landmarks: int = 0
    validation_folders: Mapping[str, str] = field(default_factory=dict)
    size: int = 448

    def __post_init__(self) -> None:
        if bool(self.folder) == bool(self.landmarks):
            raise ValueError("expected either a folder or a number of rendered landmarks")
        if self.landmarks % 2 or self.landmarks < 0:
            raise ValueError(f"expected an even number of landmarks (twins), got {self.landmarks}")
        if bool(self.photographs) != bool(self.instances):
            raise ValueError("expected both photographs and instances, or neither")
        if self.teacher and not self.photographs:
            raise ValueError("expected photographs for the teacher to describe, got none")
        if self.base and not self.landmarks:
            raise ValueError("expected rendered landmarks for a base model, got none")

    def without_photographs(self) -> "DataConfig":
        """The same data without instances, and so without a teacher to describe them."""
        return replace(self, photographs="", instances=0, teacher="")

    def score_names(self) -> list[str]:
        """Names of the scores on the held-out sets, as ``best_by`` may name them."""
        twins = ["twins/map", "twins/twin"] if self.validation_landmarks else []
        return twins + [f"{name}/map" for name in self.validation_folders]
