"""Descriptors with their names: search, save, load."""

from spatial_retrieval.index.database import DescriptorIndex
from spatial_retrieval.index.protocol import Index

__all__ = ["DescriptorIndex", "Index"]
