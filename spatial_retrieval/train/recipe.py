"""A recorded training: model, data and numbers in one JSON file, so that one command repeats it.

With ``landmarks`` the backbone is frozen and the layers behind it train on cached feature maps.
With ``folder`` photographs of a folder of folders train the whole model, end to end.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from spatial_retrieval.files import write_json
from spatial_retrieval.models import ModelConfig, RetrievalModel, build_model
from spatial_retrieval.train.config import TrainConfig, TrainResult
from spatial_retrieval.train.data import TrainingData
from spatial_retrieval.train.heads import HeadsOnMaps
from spatial_retrieval.train.loop import train
from spatial_retrieval.train.processes import processes
from spatial_retrieval.train.reading import read_strictly, renamed
from spatial_retrieval.train.recipe_config import DataConfig
from spatial_retrieval.train.recipe_data import cached_data, folders_found, photograph_data

__all__ = ["Recipe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that one training depends on.

    Attributes:
        whitening: power of the PCA that the last layer starts from, fitted on the training maps.
    """

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    whitening: float = 0.375

    def __post_init__(self) -> None:
        data, numbers = self.data, self.train
        if data.landmarks and numbers.groups > data.landmarks // 2:
            raise ValueError(
                f"expected at most {data.landmarks // 2} groups of twins in a batch (there are "
                f"{data.landmarks} landmarks), got {numbers.groups}"
            )
        if data.landmarks and numbers.mine_every:
            raise ValueError("mine_every needs batches of one set; set it to 0 in a recipe of maps")
        if numbers.objective.fused and not data.base:
            raise ValueError("the objective's fused needs a base model in data; name one, or set 0")

    @classmethod
    def load(cls, path: str | os.PathLike[str], **changes: Any) -> "Recipe":
        """Read a recipe; ``changes`` replace numbers of its training ("steps", "seed", "output").

        Raises:
            ValueError: if it is no JSON, or a key or number in it is wrong.
        """
        try:
            value = json.loads(Path(path).read_text())
            model, data, numbers = (dict(value[key]) for key in ("model", "data", "train"))
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f'{path}: expected JSON with "model", "data", "train" ({error})'
            ) from error
        if unknown := set(value) - {f.name for f in fields(cls)}:
            raise ValueError(f"{path}: unknown key {', '.join(sorted(unknown))}")
        data = renamed(data, {"beside": "base"}, {"mirrored": False})
        return cls(
            model=ModelConfig.from_json(model),
            data=read_strictly(DataConfig, data, f"{path}: data"),
            train=TrainConfig.from_json({**numbers, **changes}),
            whitening=float(value.get("whitening", 0.375)),
        )

    def with_photographs(self, folder: str) -> "Recipe":
        """The same training with another folder of photographs as instances, or "none".

        Raises:
            ValueError: if the recipe takes no photographs.
        """
        if not self.data.photographs:
            raise ValueError(
                "expected a recipe that takes photographs as instances, got one without"
            )
        if folder == "none":
            return replace(self, data=self.data.without_photographs())
        return replace(self, data=replace(self.data, photographs=folder))

    def run(
        self,
        *,
        callback: Callable[[list[dict[str, float]]], None] | None = None,
        resume: bool = True,
        progress: bool = False,
    ) -> TrainResult:
        """Make the data, train, and save the model with ``recipe.json`` in its folder.

        On several processes one of each machine renders and fills the caches for the others.

        Raises:
            ValueError: before anything is rendered, if a folder or a model is not there; and as
                :func:`~spatial_retrieval.train.loop.train`.
        """
        given = folders_found(self.data)
        if self.train.best_by not in ("", *given.score_names()):
            offered = ", ".join(given.score_names()) or "nothing, for no set is held out"
            raise ValueError(f"expected best_by among {offered}; got {self.train.best_by!r}")
        state = processes()
        with torch.random.fork_rng():  # the seed decides the start, too
            torch.manual_seed(self.train.seed)
            model = build_model(self.model).to(state.device)
        if given.folder:
            data = photograph_data(given)
        else:
            with state.local_main_process_first():
                data = cached_data(given, self.train, model.backbone, progress=progress)
            model = self._heads(model, data)
        result = train(model, data, self.train, callback=callback, resume=resume)
        if state.is_main_process:
            write_json(result.path / "recipe.json", asdict(replace(self, data=given)))
        return result

    def _heads(self, model: RetrievalModel, data: TrainingData) -> HeadsOnMaps:
        heads = HeadsOnMaps(model)
        if self.model.dim is None:
            return heads
        return heads.whiten(data.train, power=self.whitening, seed=self.train.seed)
