"""A recorded training: model, data and numbers in one JSON file, so that one command repeats it.

With ``heads`` the backbone is frozen and the layers behind it train on cached feature maps. With
``folder`` photographs of a folder of folders train the whole model, end to end.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spatial_retrieval.files import write_json
from spatial_retrieval.models import ModelConfig, RetrievalModel, build_model, load_model
from spatial_retrieval.train.augment import (
    Augmented,
    HideCells,
    Mirrored,
    strong_augmentation,
)
from spatial_retrieval.train.config import TrainConfig, TrainResult
from spatial_retrieval.train.data import ConcatSet, LabelledSet, PhotoSet, TrainingData
from spatial_retrieval.train.heads import HeadsOnMaps
from spatial_retrieval.train.loop import train
from spatial_retrieval.train.maps import (
    folder_maps,
    instance_maps,
    instance_rows,
    twin_maps,
    twin_rows,
)
from spatial_retrieval.train.samplers import Batches, MixedBatches

__all__ = ["DataConfig", "Recipe", "photo_folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What is trained on, and what chooses the best step.

    Attributes:
        folder: folder of folders of photographs, one landmark each: trains end to end.
        landmarks: rendered Twin Façades (train), an even number; trains heads on their maps.
        views: of each rendered landmark.
        mirrored: whether mirrored maps count as more landmarks.
        hide: largest share of cells hidden in a map.
        photographs: folder whose photographs join as instances, each a label of its own.
        instances: how many of them; ``instance_views`` augmented views of each.
        instance_groups: of them in a batch, beside the config's ``groups`` of twins.
        teacher: model whose similarities are kept on the instances (the objective's ``keep``).
        beside: model that will stand beside the trained one (the objective's ``beside``).
        validation_landmarks: rendered Twin Façades (val), six views each.
        validation_folders: name → folder of folders, scored by leave-one-out mAP.
            Folders may begin with an environment variable, as in "$PHOTOS/train".
        size: side of rendered and augmented pictures, pixels.
    """

    folder: str = ""
    landmarks: int = 0
    views: int = 4
    mirrored: bool = False
    hide: float = 0.0
    photographs: str = ""
    instances: int = 0
    instance_views: int = 3
    instance_groups: int = 8
    teacher: str = ""
    beside: str = ""
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
        if self.beside and (self.mirrored or not self.landmarks):
            raise ValueError("expected rendered landmarks, not mirrored, for a model beside")


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

    @classmethod
    def load(cls, path: str | os.PathLike[str], **changes: Any) -> "Recipe":
        """Read a recipe; ``changes`` replace numbers of its training ("steps", "seed", "output").

        Raises:
            ValueError: if it is no JSON, or a key or number in it is wrong.
        """
        try:
            value = json.loads(Path(path).read_text())
            training = {**value["train"], **changes}
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f'{path}: expected JSON with "model", "data", "train" ({error})'
            ) from error
        unknown = set(value) - {f.name for f in fields(cls)}
        unknown |= set(value["data"]) - {f.name for f in fields(DataConfig)}
        if unknown:
            raise ValueError(f"{path}: unknown keys {sorted(unknown)}")
        return cls(
            model=ModelConfig.from_json(value["model"]),
            data=DataConfig(**value["data"]),
            train=TrainConfig.from_json(training),
            whitening=value.get("whitening", 0.375),
        )

    def run(
        self,
        *,
        callback: Callable[[list[dict[str, float]]], None] | None = None,
        resume: bool = True,
        progress: bool = False,
    ) -> TrainResult:
        """Make the data, train, and save the model with ``recipe.json`` beside it."""
        with torch.random.fork_rng():  # the seed decides the start, too
            torch.manual_seed(self.train.seed)
            model = build_model(self.model)
        if self.data.folder:
            data = self._photographs()
        else:
            data = self._maps(progress)
            model = self._heads(model, data)
        result = train(model, data, self.train, callback=callback, resume=resume)
        write_json(result.path / "recipe.json", asdict(self))
        return result

    def _photographs(self) -> TrainingData:
        change = strong_augmentation(self.data.size)
        photos = photo_folder(_folder(self.data.folder), augment=change)
        held_out = {n: photo_folder(_folder(f)) for n, f in self.data.validation_folders.items()}
        return TrainingData(photos, held_out)

    def _maps(self, progress: bool) -> TrainingData:
        """Twins, mirrored twins and instances, each with its sampler; twins first."""
        given, layer, numbers = self.data, self.model.layer, self.train
        where = {"layer": layer, "size": given.size, "progress": progress}
        twins = twin_maps("train", given.landmarks, given.views, **where)
        twins = ConcatSet([twins, Mirrored(twins)]) if given.mirrored else twins
        parts, samplers = [twins], [_batches(twins, numbers.groups, numbers)]
        if given.photographs:
            folder = _folder(given.photographs)
            parts.append(instance_maps(folder, given.instances, given.instance_views, **where))
            samplers.append(_batches(parts[1], given.instance_groups, numbers))
        whole = ConcatSet(parts)
        teacher = self._teacher(len(twins), len(whole)) if given.teacher else None
        plain = self._plain(progress) if given.beside else None
        held_out: dict[str, LabelledSet] = {}
        if given.validation_landmarks:
            held_out["twins"] = twin_maps("val", given.validation_landmarks, 6, **where)
        for name, folder in given.validation_folders.items():
            held_out[name] = folder_maps(_folder(folder), layer=layer)
        changed = Augmented(whole, HideCells(given.hide)) if given.hide else whole
        batches = MixedBatches(samplers, whole.starts)
        return TrainingData(changed, held_out, batches, teacher, plain)

    def _teacher(self, start: int, count: int) -> Tensor:
        """The teacher's rows for the instances, which begin at ``start``; NaN for the twins."""
        rows = self._instance_rows(load_model(self.data.teacher, device="cpu"))
        teacher = torch.full((count, rows.shape[1]), float("nan"))
        teacher[start:] = rows
        return teacher

    def _plain(self, progress: bool) -> Tensor:
        """The rows of the model beside, for twins and instances."""
        given = self.data
        model = load_model(given.beside, device="cpu")
        rows = twin_rows(
            model, "train", given.landmarks, given.views, size=given.size, progress=progress
        )
        return torch.cat([rows, self._instance_rows(model)]) if given.photographs else rows

    def _instance_rows(self, model: RetrievalModel) -> Tensor:
        given = self.data
        return instance_rows(
            model, _folder(given.photographs), given.instances, given.instance_views,
            size=given.size,
        )  # fmt: skip

    def _heads(self, model: RetrievalModel, data: TrainingData) -> HeadsOnMaps:
        heads = HeadsOnMaps(model)
        if self.model.dim is None:
            return heads
        return heads.whiten(data.train, power=self.whitening, seed=self.train.seed)


def photo_folder(
    folder: str | os.PathLike[str],
    *,
    size: int = 480,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> PhotoSet:
    """The photographs of a folder of folders, one label for each sub-folder."""
    from spatial_retrieval.datasets.folders import list_images

    folder = Path(folder)
    files = list_images(folder)
    parents = [Path(name).parent.as_posix() for name in files]
    sites = sorted(set(parents))
    labels = np.array([sites.index(parent) for parent in parents])
    return PhotoSet([folder / name for name in files], labels, size, augment, names=files)


def _folder(text: str) -> Path:
    """A folder as a recipe names it; $NAME is taken from the environment, ~ is the home."""
    return Path(os.path.expandvars(text)).expanduser()


def _batches(data: LabelledSet, groups: int, numbers: TrainConfig) -> Batches:
    return Batches(
        data.labels, twin_of=data.twin_of, groups=groups, views=numbers.views, seed=numbers.seed,
        repeats=data.repeats, names=data.names,
    )  # fmt: skip
