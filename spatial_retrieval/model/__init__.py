"""``RetrievalModel``: what it is made of, how it is built, where it is kept."""

from spatial_retrieval.model.build import build_model
from spatial_retrieval.model.config import ModelConfig
from spatial_retrieval.model.pretrained import choose_device, embedded_models, load_model
from spatial_retrieval.model.retrieval import PlainPart, RetrievalModel

__all__ = [
    "ModelConfig",
    "PlainPart",
    "RetrievalModel",
    "build_model",
    "choose_device",
    "embedded_models",
    "load_model",
]
