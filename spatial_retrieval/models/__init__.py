"""``RetrievalModel``: what it is made of, how it is built, where it is kept."""

from spatial_retrieval.models.build import build_model
from spatial_retrieval.models.compose import fuse
from spatial_retrieval.models.config import ModelConfig
from spatial_retrieval.models.head import Branch, Head
from spatial_retrieval.models.load import choose_device, embedded_models, load_model
from spatial_retrieval.models.model import RetrievalModel

__all__ = [
    "Branch",
    "Head",
    "ModelConfig",
    "RetrievalModel",
    "build_model",
    "choose_device",
    "embedded_models",
    "fuse",
    "load_model",
]
