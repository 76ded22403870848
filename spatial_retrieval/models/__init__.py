"""``RetrievalModel``: what it is made of, how it is built, where it is kept."""

from spatial_retrieval.models.build import build_model
from spatial_retrieval.models.config import ModelConfig
from spatial_retrieval.models.load import choose_device, embedded_models, load_model
from spatial_retrieval.models.model import PlainPart, RetrievalModel

__all__ = [
    "ModelConfig",
    "PlainPart",
    "RetrievalModel",
    "build_model",
    "choose_device",
    "embedded_models",
    "load_model",
]
