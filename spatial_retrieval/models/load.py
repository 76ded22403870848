"""Models by name: embedded ones, folders, the Hugging Face Hub, timm's networks.

========================  =====================================================================
``lite0-spatial``         embedded in the package, see :func:`embedded_models`
``path/to/folder``        what ``save_pretrained`` or ``spatial-retrieval adopt`` wrote
``hub:owner/name``        such a folder on the Hugging Face Hub; fetched once
``timm:NAME[@layer]``     a timm network under GeM, with its weights from the Hub
``timm-random:NAME``      the same with random weights, to try a path offline
========================  =====================================================================
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spatial_retrieval.models.backbone import Backbone, build_backbone
from spatial_retrieval.models.build import build_model
from spatial_retrieval.models.config import ModelConfig
from spatial_retrieval.models.head import Head
from spatial_retrieval.models.model import RetrievalModel
from spatial_retrieval.models.modules import TRUSTED, build_module
from spatial_retrieval.models.network_backbone import NetworkBackbone
from spatial_retrieval.models.official import adopt_file

__all__ = [
    "choose_device",
    "embedded_folder",
    "embedded_models",
    "load_model",
    "model_name",
    "read_model",
]

_WEIGHTS = Path(__file__).parents[1] / "weights"


def embedded_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in _WEIGHTS.glob("*/config.json"))


def embedded_folder(name: str) -> Path:
    """Where an embedded model is kept."""
    return _WEIGHTS / name


def load_model(
    name_or_path: str | Path, *, device: str = "auto", trusted: Sequence[str] = TRUSTED
) -> RetrievalModel:
    """Load a model by name, see the table above; nothing is fetched without ``hub:`` or ``timm:``.

    Args:
        name_or_path: e.g. ``lite0-spatial``, ``./mine``, ``hub:me/mine``, ``timm:resnet50@stage3``.
        device: "auto" is cuda, else mps, else cpu.
        trusted: packages whose modules the model's folder may name.

    Raises:
        ValueError: if there is no such model, its files are damaged, or it cannot be fetched.
    """
    name = str(name_or_path)
    kind, _, rest = name.partition(":")
    if name in embedded_models():
        model = read_model(embedded_folder(name))
    elif kind == "hub" and rest:
        model = _from_hub(rest, trusted)
    elif kind in ("timm", "timm-random") and rest:
        model = _from_timm(rest, pretrained=kind == "timm")
    elif Path(name).expanduser().is_dir():
        model = read_model(Path(name).expanduser(), trusted=trusted)
    else:
        raise ValueError(
            f"expected one of {', '.join(embedded_models())}, a folder with config.json and "
            f"model.safetensors, hub:owner/name or timm:NAME[@layer]; got {name!r}"
        )
    return model.to(choose_device(device))


def model_name(name_or_path: str | Path) -> str:
    """The name under which a model is found again from anywhere: folders become absolute."""
    name = str(name_or_path)
    is_folder = name not in embedded_models() and Path(name).expanduser().is_dir()
    return str(Path(name).expanduser().resolve()) if is_folder else name


def choose_device(device: str = "auto") -> torch.device:
    """ "auto" is cuda, else mps, else cpu; any other name is taken as it is."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def read_model(folder: str | Path, *, trusted: Sequence[str] = TRUSTED) -> RetrievalModel:
    """Read what :meth:`RetrievalModel.save_pretrained` wrote.

    A backbone that isn't in it comes from its own package, or from timm.

    Raises:
        ValueError: if a file is missing or damaged, or the weights don't fit the configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
        whole = any(name.startswith("backbone.") for name in weights)
        model = rebuild(config, pretrained=not whole, trusted=trusted)
    except (OSError, SafetensorError, json.JSONDecodeError, TypeError, KeyError) as error:
        raise ValueError(f"{folder}: no readable model ({error})") from error
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    weights = _without_classifier({_renamed(name): value for name, value in weights.items()}, model)
    _check_weights(folder, model, weights, whole)
    model.load_state_dict(weights, strict=False)
    model.owns_backbone = whole
    model.card = _card(folder / "card.json")
    return model


def _card(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: no readable card ({error}); delete it or write it anew"
        ) from error
    if not isinstance(card, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(card).__name__}")
    return card


def rebuild(
    config: Mapping[str, Any], *, pretrained: bool, trusted: Sequence[str] = TRUSTED
) -> RetrievalModel:
    """A model with new weights from what ``config.json`` holds, of this format or the one before.

    ``backbone`` is {"name": timm's, "layer": …} or {"network": a module}.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"expected a configuration, got {config!r:.60}")
    if "format" not in config:
        return build_model(ModelConfig.from_json(config), pretrained=pretrained)
    if config["format"] != 2:
        raise ValueError(f"format {config['format']!r} is newer than this version; upgrade it")
    source = config["backbone"]
    base = None if config["base"] is None else Head.build(config["base"], trusted)
    return RetrievalModel(
        _backbone(source, pretrained, trusted),
        Head.build(config["head"], trusted),
        base=base,
        base_weight=float(config["base_weight"]),
        source=source,
        multiscale=build_module(config["multiscale"], trusted=trusted),
    ).eval()


def _backbone(
    source: Mapping[str, Any], pretrained: bool, trusted: Sequence[str]
) -> Backbone | NetworkBackbone:
    if "network" in source:
        return NetworkBackbone(build_module(source["network"], trusted=trusted)).eval()
    return build_backbone(source["name"], layer=source["layer"], pretrained=pretrained)


def _renamed(name: str) -> str:
    """The name of a weight as it was before format 2 → as it is."""
    for old, new in (("plain.", "base."), ("context.", "head."), ("pooling.", "head.")):
        if name.startswith(old):
            part = name if new == "head." else name.removeprefix(old)
            inner = part if part.startswith("whitening.") else f"branches.0.{part}"
            return new + inner
    return f"head.{name}" if name.startswith("whitening.") else name


def _without_classifier(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Older files of whole models hold the backbone's ImageNet classifier; nothing reads it."""
    known = set(model.state_dict())
    dead = {k for k in weights if k.startswith("backbone.network.classifier.") and k not in known}
    return {name: value for name, value in weights.items() if name not in dead}


def _check_weights(
    folder: Path, model: nn.Module, weights: Mapping[str, Tensor], whole: bool
) -> None:
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
    for name, value in weights.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"{folder}: {name} holds values that are no finite numbers")


def _from_timm(name: str, *, pretrained: bool) -> RetrievalModel:
    network, _, layer = name.partition("@")
    config = ModelConfig(backbone=network, layer=layer or "head")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights are the same whenever a model is loaded by its name
        return build_model(config, pretrained=pretrained)


def _from_hub(name: str, trusted: Sequence[str]) -> RetrievalModel:
    """A folder of ours, or the weights alone of a project that publishes there (MegaLoc)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["config.json", "card.json", "model.safetensors"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"hub:{name} cannot be fetched from the Hugging Face Hub ({type(error).__name__}); go "
            "online once, or take one of the embedded models: " + ", ".join(embedded_models())
        ) from error
    if _is_ours(folder / "config.json"):
        return read_model(folder, trusted=trusted)
    return adopt_file(folder / "model.safetensors")


def _is_ours(config: Path) -> bool:
    try:
        value = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and bool({"format", "context"} & set(value))
