import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_retrieval import DescriptorIndex


def rows(m, d=8, seed=0):
    x = np.random.default_rng(seed).standard_normal((m, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def index(m=20, **info):
    return DescriptorIndex.build(rows(m), [f"{i}.jpg" for i in range(m)], info)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 5))
def test_search_equals_sorting_all_inner_products(m, k, seed):
    database, queries = rows(m, seed=seed), rows(3, seed=seed + 100)
    found = DescriptorIndex.build(database, [str(i) for i in range(m)]).search(queries, k)
    scores = queries @ database.T
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert found.ids.shape == (3, min(k, m))
    assert np.array_equal(found.ids, expected)
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, expected, 1), atol=1e-6)


def test_equal_scores_come_in_database_order():
    same = np.repeat(rows(1), 6, axis=0)
    assert DescriptorIndex.build(same, list("abcdef")).search(rows(1), 6).ids[0].tolist() == [
        0, 1, 2, 3, 4, 5,
    ]  # fmt: skip


def test_reconstruct_gives_the_rows_back():
    found = index()
    assert np.array_equal(found.reconstruct([3, 1]), rows(20)[[3, 1]])


def test_what_is_saved_is_loaded(tmp_path):
    index(model="m", size=480).save(tmp_path / "a")
    again = DescriptorIndex.load(tmp_path / "a")
    assert again.names == index().names and again.info == {"model": "m", "size": 480}
    assert np.array_equal(again.descriptors, rows(20))


def test_saving_again_leaves_no_old_files(tmp_path):
    index(20).save(tmp_path)
    index(5).save(tmp_path)
    assert len(DescriptorIndex.load(tmp_path)) == 5
    assert len(list(tmp_path.iterdir())) == 3


def test_every_flipped_byte_is_noticed(tmp_path):
    index().save(tmp_path)
    for path in [*tmp_path.glob("*.npy"), *tmp_path.glob("names-*.json")]:
        whole = path.read_bytes()
        for position in (0, len(whole) // 2, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="damaged index"):
                DescriptorIndex.load(tmp_path)
        path.write_bytes(whole)
    assert len(DescriptorIndex.load(tmp_path)) == 20


def test_a_missing_or_foreign_index_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ValueError, match="no index here"):
        DescriptorIndex.load(tmp_path)
    index().save(tmp_path)
    manifest = tmp_path / "manifest.json"
    whole = json.loads(manifest.read_text())
    manifest.write_text("{")
    with pytest.raises(ValueError, match="damaged index"):
        DescriptorIndex.load(tmp_path)
    manifest.write_text(json.dumps(whole | {"format": 99}))
    with pytest.raises(ValueError, match="another version"):
        DescriptorIndex.load(tmp_path)
    manifest.write_text(json.dumps(whole | {"files": {}}))
    with pytest.raises(ValueError, match="descriptors is missing"):
        DescriptorIndex.load(tmp_path)


def test_a_manifest_cannot_point_outside_its_folder(tmp_path):
    index().save(tmp_path / "a")
    secret = tmp_path / "secret.json"
    secret.write_text("[]")
    manifest = tmp_path / "a" / "manifest.json"
    whole = json.loads(manifest.read_text())
    whole["files"]["names"]["file"] = "../secret.json"
    manifest.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="names is missing"):
        DescriptorIndex.load(tmp_path / "a")


def test_a_save_that_fails_leaves_the_old_index_whole(tmp_path, monkeypatch):
    index(20).save(tmp_path)

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        index(5).save(tmp_path)
    monkeypatch.undo()
    assert len(DescriptorIndex.load(tmp_path)) == 20
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("descriptors", "names", "message"),
    [
        (rows(3), ["a", "b"], "for 2"),
        (np.zeros((0, 4)), [], "M ≥ 1"),
        (rows(2) * 2, ["a", "b"], "expected unit rows"),
        (rows(2) * np.nan, ["a", "b"], "expected unit rows"),
        (rows(2), ["a", "a"], "each name once"),
    ],
)
def test_what_cannot_be_indexed_is_refused(descriptors, names, message):
    with pytest.raises(ValueError, match=message):
        DescriptorIndex.build(descriptors, names)


def test_a_query_of_another_model_is_refused():
    with pytest.raises(ValueError, match=r"expected queries \(Q, 8\).*another model"):
        index().search(rows(1, d=4))
    with pytest.raises(ValueError, match="k of at least 1"):
        index().search(rows(1), k=0)
