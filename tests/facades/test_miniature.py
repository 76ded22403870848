import pytest
from PIL import Image

from spatial_retrieval.datasets.revisited import load_ground_truth
from spatial_retrieval.facades.miniature import miniature_roxford


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("miniature")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATIAL_RETRIEVAL_CACHE", str(root / "cache"))
        yield root, miniature_roxford(root, landmarks=4, views=4, size=64)


def test_the_miniature_is_official_in_layout_and_format(small):
    root, images = small
    truth = load_ground_truth(root / "roxford5k" / "gnd_roxford5k.pkl")
    assert truth.names == images.ground_truth.names
    assert len(truth) == 4 and len(truth.names) == 4 * 4
    for q in range(4):
        assert len(truth.easy[q]) + len(truth.hard[q]) == 3 and len(truth.junk[q]) == 1
        assert all(truth.names[i].startswith(f"house_{q:03d}") for i in truth.junk[q])
        with Image.open(images.queries[q]) as query:
            assert query.size == (128, 64)
        x0, y0, x1, y1 = truth.boxes[q]
        assert 64 <= x0 < x1 <= 128 and 0 <= y0 < y1 <= 64


def test_junk_shows_a_small_part_only(small):
    _, images = small
    for q, (junk,) in enumerate(images.ground_truth.junk):
        with Image.open(images.database[junk]) as image:
            assert image.width < 48, q


def test_making_it_again_is_the_same_and_a_real_one_is_left_alone(small):
    root, images = small
    before = images.database[0].read_bytes()
    assert miniature_roxford(root, landmarks=4, views=4, size=64).database == images.database
    assert images.database[0].read_bytes() == before
    (root / "roxford5k" / "miniature").unlink()
    with pytest.raises(ValueError, match="holds another data set"):
        miniature_roxford(root, landmarks=4, views=4, size=64)


def test_too_little_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 4 landmarks and 3 views, got 2, 3"):
        miniature_roxford(tmp_path, landmarks=2, views=3)
