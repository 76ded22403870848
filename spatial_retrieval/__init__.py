"""Find the photographs that show the same place or object, and show where it is in each of them.

Everything a user needs is a name of this package; it is loaded when it is first used, so
``import spatial_retrieval`` itself is instant and silent.
"""

import importlib

__version__ = "0.1.0"

# public name -> module that holds it
_HOMES: dict[str, str] = {
    "BoxError": "images",
    "DescriptorIndex": "index",
    "ImageError": "images",
    "ModelConfig": "models",
    "Ranking": "ranking",
    "RetrievalModel": "models",
    "Searcher": "searcher",
    "build_model": "models",
    "describe": "features.extraction",
    "embedded_models": "models",
    "feature_maps": "features.extraction",
    "IndexOptions": "indexing",
    "index_folder": "indexing",
    "list_images": "datasets.folders",
    "load_ground_truth": "datasets.revisited",
    "load_image": "images",
    "load_model": "models",
    "open_index": "searcher",
    "revisited_scores": "metrics.revisited",
    "twin_facades": "facades.data",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
