import pytest
from demo_site import soft


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The page over six photographs: its address and its service."""
    from spatial_retrieval.demo.gallery import from_folder
    from spatial_retrieval.demo.server import build_app, running
    from spatial_retrieval.demo.service import Service

    folder = tmp_path_factory.mktemp("gallery")
    for i in range(6):
        soft(i).save(folder / f"view {i}.jpg", quality=95)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("GRADIO_TEMP_DIR", "/nowhere")  # the page has a folder of its own
        names = ["lite0-gem", "lite0-spatial", "lite0-spatial-v1"]
        service = Service(from_folder(folder), names, "lite0-gem")
        service.warm()
        with running(build_app(service)) as address:
            yield address, service


@pytest.fixture(scope="session")
def url(site):
    return site[0]
