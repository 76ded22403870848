"""Descriptors to search among: exact search by FAISS."""

from spatial_retrieval.index.exact import DescriptorIndex

__all__ = ["DescriptorIndex"]
