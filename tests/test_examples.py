"""The examples in docstrings are run as they stand."""

import doctest
import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

PACKAGE = Path(__file__).parents[1] / "spatial_retrieval"
WITH_EXAMPLES = sorted(
    str(path.relative_to(PACKAGE.parent))
    for path in PACKAGE.rglob("*.py")
    if ">>>" in path.read_text()
)


@pytest.mark.parametrize("path", WITH_EXAMPLES)
def test_docstring_examples(path, tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path))
    monkeypatch.setenv("SPATIAL_RETRIEVAL_FAST", "1")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = doctest.testmod(module, extraglobs={"torch": torch, "np": np})
    assert result.attempted and not result.failed
