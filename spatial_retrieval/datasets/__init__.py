"""Where photographs come from: folders, the rendered benchmark, the field's data sets."""

import os
from typing import TypeVar

__all__ = ["fast_mode", "scale"]

T = TypeVar("T")


def fast_mode() -> bool:
    """Whether ``SPATIAL_RETRIEVAL_FAST=1`` asks for small data (the tests' setting)."""
    return os.environ.get("SPATIAL_RETRIEVAL_FAST", "") not in ("", "0")


def scale(full: T, fast: T) -> T:
    """Return ``full``, or ``fast`` when ``SPATIAL_RETRIEVAL_FAST=1`` is set."""
    return fast if fast_mode() else full
