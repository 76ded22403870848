"""Models that were saved: the embedded ones, a folder's, the Hugging Face Hub's."""

import json
from pathlib import Path

import torch

from spatial_retrieval.models.build import build_model
from spatial_retrieval.models.config import ModelConfig
from spatial_retrieval.models.model import RetrievalModel

__all__ = ["choose_device", "embedded_models", "load_model", "read_model"]

_WEIGHTS = Path(__file__).parents[1] / "weights"


def embedded_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in _WEIGHTS.glob("*/config.json"))


def load_model(name_or_path: str | Path, *, device: str = "auto") -> RetrievalModel:
    """Load an embedded model by name, a saved one by folder, or one of the Hugging Face Hub by id.

    Raises:
        ValueError: if there is no such model, or its files are damaged.
    """
    name = str(name_or_path)
    if name in embedded_models():
        folder = _WEIGHTS / name
    elif Path(name).is_dir():
        folder = Path(name)
    elif name.count("/") == 1 and not name.startswith((".", "/")):
        folder = _from_hub(name)
    else:
        raise ValueError(
            f"expected one of {', '.join(embedded_models())}, a folder with config.json and "
            f"model.safetensors, or a Hub id like owner/name; got {name!r}"
        )
    return read_model(folder).to(choose_device(device))


def choose_device(device: str = "auto") -> torch.device:
    """ "auto" is cuda, else mps, else cpu; any other name is taken as it is."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def read_model(folder: str | Path) -> RetrievalModel:
    """Read what :meth:`RetrievalModel.save_pretrained` wrote.

    A backbone that isn't in it comes from its own package, or from timm.

    Raises:
        ValueError: if a file is missing or damaged, or the weights don't fit the configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = ModelConfig.from_json(json.loads((folder / "config.json").read_text()))
        weights = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError, json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{folder}: no readable model ({error})") from error
    whole = any(name.startswith("backbone.") for name in weights)
    model = build_model(config, pretrained=not whole)
    expected = {
        name: value.shape
        for name, value in model.state_dict().items()
        if whole or not name.startswith("backbone.")
    }
    found = {name: value.shape for name, value in weights.items()}
    if different := sorted(expected.items() ^ found.items()):
        raise ValueError(
            f"{folder}: the weights are not of this configuration ({different[0][0]} differs)"
        )
    model.load_state_dict(weights, strict=False)
    return model


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["config.json", "model.safetensors"]))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{name!r} is neither a folder here nor can it be fetched from the Hugging Face Hub "
            f"({type(error).__name__}); embedded models: {', '.join(embedded_models())}"
        ) from error
