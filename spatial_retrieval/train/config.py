"""``TrainConfig``: all numbers of a run; ``TrainResult``: what a run gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from spatial_retrieval.train.objectives import ObjectiveConfig
from spatial_retrieval.train.reading import read_strictly

__all__ = ["TrainConfig", "TrainResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """All numbers of a run; its JSON form is kept in the output folder.

    Args:
        output: folder of checkpoints and history.
        steps: optimizer steps in all.
        groups: landmarks in a batch, each with its twin where there are twins.
        views: items of each label in a batch; ``accumulate`` batches make a step.
        lr: peak learning rate of AdamW, after ``warmup`` steps, before the cosine to 0.
        slower: (start of a parameter's name, factor on ``lr``), the first that fits counts.
        warmup: at most a tenth of ``steps`` are used for it.
        clip: largest gradient norm.
        precision: "auto" is bf16 (or fp16) on a GPU that has it, full precision elsewhere.
        frozen_statistics: starts of names of modules whose batch norms keep their statistics.
        workers: processes that load items ahead.
        validate_every, checkpoint_every: in steps; both also happen at the end.
        best_by: validation score that chooses the best step; empty: the first one.
        patience: stop after so many validations without a better score; 0: never.
        mine_every: look for hard landmarks every so many steps; 0: never.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    output: str
    steps: int = 400
    groups: int = 8
    views: int = 2
    accumulate: int = 1
    lr: float = 4e-3
    slower: tuple[tuple[str, float], ...] = ()
    weight_decay: float = 1e-3
    warmup: int = 40
    clip: float = 5.0
    seed: int = 0
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    frozen_statistics: tuple[str, ...] = ("backbone",)
    workers: int = 0
    validate_every: int = 100
    checkpoint_every: int = 100
    best_by: str = ""
    patience: int = 0
    mine_every: int = 0
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    def __post_init__(self) -> None:
        counts = ("steps", "groups", "accumulate", "validate_every", "checkpoint_every")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if not (self.lr > 0 and self.clip > 0):
            raise ValueError(f"expected lr and clip > 0, got {self.lr} and {self.clip}")
        if self.precision not in ("auto", "no", "bf16", "fp16"):
            raise ValueError(f"expected precision auto, no, bf16 or fp16, got {self.precision!r}")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TrainConfig":
        """Read what ``asdict`` wrote, now or by version 0.1.0.

        Raises:
            ValueError: if a key is unknown or missing, or a value is of another type or range.
        """
        objective = ObjectiveConfig.up_to_date(value.get("objective", {}))
        return read_strictly(cls, {**value, "objective": objective}, "a training's config")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run gives back; the model itself holds the best weights.

    Attributes:
        history: one row a step ("step", "loss", "lr", "norm"), some with validation scores.
        best_step, best: where the score that chooses was highest, and that score (NaN: none).
        path: the saved model, or the best checkpoint of a module that cannot save itself.
        interrupted: whether it was stopped; the same call goes on.
        seconds: of training and validation, over all resumed parts.
    """

    history: list[dict[str, float]]
    best_step: int
    best: float
    path: Path
    interrupted: bool
    seconds: float
