"""Models on disk: what a model is made of in ``config.json``, weights in ``model.safetensors``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from spatial_retrieval.files import atomic_writer, write_json

__all__ = ["save_model"]


def save_model(
    folder: str | Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], *, half: bool
) -> None:
    """Write both files, each atomically, the configuration last.

    Args:
        folder: made if it isn't there.
        config: what the model is made of.
        weights: by name.
        half: keep floats in half precision.
    """
    from safetensors.torch import save

    stored = {name: _stored(value, half) for name, value in weights.items()}
    with atomic_writer(Path(folder) / "model.safetensors") as file:
        file.write(save(stored))
    write_json(Path(folder) / "config.json", config)


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if half and value.is_floating_point() else value
