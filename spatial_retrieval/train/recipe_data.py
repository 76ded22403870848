"""The data that a recipe names: folders are looked up first, then maps and rows are computed."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from spatial_retrieval.datasets.folders import list_images
from spatial_retrieval.facades.data import TwinFacades, twin_facades
from spatial_retrieval.models import load_model
from spatial_retrieval.models.backbone import Backbone
from spatial_retrieval.train.augment import Augmented, HideCells, strong_augmentation
from spatial_retrieval.train.chunks import Instances
from spatial_retrieval.train.config import TrainConfig
from spatial_retrieval.train.data import ConcatSet, LabelledSet, TrainingData
from spatial_retrieval.train.maps import EncodedSet, cached_maps, cached_rows
from spatial_retrieval.train.photographs import photo_folder
from spatial_retrieval.train.recipe_config import DataConfig
from spatial_retrieval.train.samplers import Batches, MixedBatches

__all__ = ["cached_data", "folders_found", "photograph_data", "teacher_rows"]

log = logging.getLogger(__name__)


def folders_found(data: DataConfig) -> DataConfig:
    """The same data by folders that are there, as paths.

    A folder that begins with an environment variable which is not set is left out with a warning.

    Raises:
        ValueError: if another folder is not there, or holds fewer photographs than a batch needs.
    """
    photographs, folder = _found(data.photographs), _found(data.folder)
    if data.folder and not folder:
        raise ValueError(
            f"{data.folder}: its environment variable is not set, so there is no folder"
        )
    held_out = {name: _found(text) for name, text in data.validation_folders.items()}
    held_out = {name: path for name, path in held_out.items() if path}
    data = replace(data, folder=folder, validation_folders=held_out)
    if not photographs:
        return data.without_photographs()
    count = min(data.instances, len(list_images(photographs)))
    if count < data.instance_groups:
        raise ValueError(
            f"{photographs}: expected at least {data.instance_groups} photographs for a batch, got "
            f"{count}; name a larger folder, or none with --photographs none"
        )
    return replace(data, photographs=photographs, instances=count)


def photograph_data(data: DataConfig) -> TrainingData:
    """Photographs of a folder of folders, strongly augmented, and held-out folders as they are."""
    photos = photo_folder(data.folder, augment=strong_augmentation(data.size))
    return TrainingData(photos, {n: photo_folder(f) for n, f in data.validation_folders.items()})


def cached_data(
    data: DataConfig, numbers: TrainConfig, backbone: Backbone, *, progress: bool = False
) -> TrainingData:
    """Maps of rendered twins, then of instances, each set with its sampler; rows of other models.

    Args:
        data: with folders that are there (:func:`folders_found`).
        numbers: of the training, for its batches.
        backbone: whose maps; all is computed on its device.
        progress: show bars.
    """
    device = str(backbone.mean.device)
    teacher, base = (load_model(m, device=device) if m else None for m in (data.teacher, data.base))
    sources = _sources(data)
    parts = [cached_maps(source, backbone, progress=progress) for source in sources]
    whole = ConcatSet(parts)
    groups = (numbers.groups, data.instance_groups)
    samplers = [
        Batches(part, groups=n, views=numbers.views, seed=numbers.seed)
        for part, n in zip(parts, groups, strict=False)
    ]
    rows = [cached_rows(source, base, progress=progress) for source in sources if base is not None]
    return TrainingData(
        Augmented(whole, HideCells(data.hide)) if data.hide else whole,
        _held_out(data, backbone, progress),
        MixedBatches(samplers, whole.starts),
        teacher_rows(len(parts[0]), cached_rows(sources[1], teacher)) if teacher else None,
        torch.cat(rows) if rows else None,
    )


def teacher_rows(before: int, rows: Tensor) -> Tensor:
    """(M, D) rows of the instances → (before + M, D): NaN for the twins that come before them."""
    return torch.cat([torch.full((before, rows.shape[1]), torch.nan), rows])


def _sources(data: DataConfig) -> list[TwinFacades | Instances]:
    twins = twin_facades("train", data.landmarks, data.views, size=data.size)
    if not data.photographs:
        return [twins]
    folder = Path(data.photographs)
    return [twins, Instances(folder, data.instances, data.instance_views, data.size)]


def _held_out(data: DataConfig, backbone: Backbone, progress: bool) -> dict[str, LabelledSet]:
    held_out: dict[str, LabelledSet] = {}
    if data.validation_landmarks:
        twins = twin_facades("val", data.validation_landmarks, 6, size=data.size)
        held_out["twins"] = cached_maps(twins, backbone, progress=progress)
    for name, folder in data.validation_folders.items():
        held_out[name] = EncodedSet(photo_folder(folder), backbone)
    return held_out


def _found(text: str) -> str:
    """A folder as a recipe names it, as a path; "" for none, or if its variable is not set."""
    expanded = os.path.expandvars(text)
    if expanded.startswith("$"):
        log.warning(
            "%s is not there (the variable is not set): training without it, so the weights will "
            "not be the recorded ones; name a folder of your own with --photographs FOLDER",
            text,
        )
        return ""
    path = Path(expanded).expanduser()
    if text and not path.is_dir():
        raise ValueError(f"{path}: no such folder; name another one with --photographs FOLDER")
    return str(path) if text else ""
