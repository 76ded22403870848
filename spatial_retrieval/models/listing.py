"""What ``--model`` takes, as a table: embedded models, folders, and what others publish."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spatial_retrieval.models.load import embedded_folder, embedded_models

__all__ = ["known_models"]

# timm's names that people ask for; any other works too
_TIMM = (
    "resnet50.a1_in1k",
    "convnext_tiny.in12k_ft_in1k",
    "vit_small_patch14_dinov2.lvd142m",
    "vit_base_patch16_siglip_224.v2_webli",
)


def known_models(folders: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """One row for each model: its name, length, licence of the weights, size, source, whether here.

    Args:
        folders: own models to list, too.
    """
    rows = [_folder_row(name, embedded_folder(name), "this package") for name in embedded_models()]
    rows += [_folder_row(str(folder), folder, "a folder") for folder in folders]
    rows += [_timm_row(name) for name in _TIMM]
    return rows + [_official_row(card) for card in _official_cards()]


def _folder_row(name: str, folder: Path, source: str) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    card = folder / "card.json"
    card = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    embedded = "Apache-2.0" if source == "this package" else "not stated"
    return {
        "name": name,
        "numbers": _length(config) or "?",
        "licence": card.get("weights_licence", embedded),
        "megabytes": f"{(folder / 'model.safetensors').stat().st_size / 1e6:.1f}",
        "from": source,
        "here": "yes",
    }


def _length(config: dict[str, Any]) -> int | None:
    """The descriptor's length, as far as the configuration alone tells."""
    if "format" not in config:
        parts = (config, config.get("beside"))
        lengths = [part.get("dim") for part in parts if part]
    else:
        heads = [head for head in (config["head"], config["base"]) if head]
        lengths = [head["whitening"].get("out_features") for head in heads]
    return None if None in lengths else sum(lengths)


def _timm_row(name: str) -> dict[str, Any]:
    import timm
    from huggingface_hub import try_to_load_from_cache

    settings = timm.get_pretrained_cfg(name)
    repository = f"timm/{name}"
    files = ("model.safetensors", "open_clip_model.safetensors")
    here = any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)
    return {
        "name": f"timm:{name}",
        "numbers": "?",
        "licence": getattr(settings, "license", None) or "see its card",
        "megabytes": "?",
        "from": f"Hub, {repository}",
        "here": "yes" if here else "no",
    }


def _official_cards() -> list[dict[str, Any]]:
    from spatial_retrieval.models.checkpoints import PROJECTS

    return [dict(project.CARD) for project in PROJECTS]


def _official_row(card: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"{card['name']} (adopt FILE)",
        "numbers": "?",
        "licence": card["weights_licence"],
        "megabytes": "?",
        "from": card["repository"],
        "here": "no",
    }
