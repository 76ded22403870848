import os
from pathlib import Path

import pytest

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data: real photographs and values of reference implementations."""
    folder = os.environ.get("SPATIAL_RETRIEVAL_SHARED")
    if not folder:
        pytest.skip("reference data: set SPATIAL_RETRIEVAL_SHARED to its folder")
    return Path(folder).resolve()
