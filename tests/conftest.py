import os
from pathlib import Path

import pytest
from hypothesis import settings
from pictures import draw

# a busy machine is slow, which is no fault of the code; and the same examples on every run
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("steady")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# small pictures: a second thread waits more than it works, above all on a busy machine
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data: real photographs and values of reference implementations."""
    folder = os.environ.get("SPATIAL_RETRIEVAL_SHARED")
    if not folder:
        pytest.skip("reference data: set SPATIAL_RETRIEVAL_SHARED to its folder")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def gem_model():
    """The embedded model that every machine has."""
    from spatial_retrieval import load_model

    return load_model("lite0-gem", device="cpu")


@pytest.fixture
def photographs(tmp_path) -> Path:
    """A folder of six small pictures in two sub-folders."""
    for i in range(6):
        path = tmp_path / "photographs" / f"place{i % 2}" / f"view {i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(i).save(path, quality=95)
    return tmp_path / "photographs"
