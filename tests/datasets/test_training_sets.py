import os
import pickle

import numpy as np
import pytest
from PIL import Image

from spatial_retrieval.datasets.folders import labels_of
from spatial_retrieval.datasets.landmarks import (
    load_gldv2_clean,
    load_sfm120k,
    load_sfm120k_whitening,
)
from spatial_retrieval.datasets.revisited import DatasetMissingError
from spatial_retrieval.evaluate.folder import split_folder
from spatial_retrieval.train.photographs import photo_folder

CIDS = ["00000000000000000000000000abcdef", "1111111111111111111111111112f45e"]


def _sfm(root, name="retrieval-SfM-120k", **changes):
    root.mkdir(parents=True, exist_ok=True)
    part = {
        "cids": [*CIDS, CIDS[0][::-1]],
        "cluster": [70, 3, 70],
        "qidxs": [0, 2],
        "pidxs": [2, 0],
        **changes,
    }
    value = (
        part if name.endswith("whiten") else {"train": part, "val": {**part, "cluster": [1] * 3}}
    )
    (root / f"{name}.pkl").write_bytes(pickle.dumps(value, 2))


@pytest.mark.parametrize(
    "where", [".", "sfm120k", "retrieval-SfM-120k", "train/retrieval-SfM-120k"]
)
def test_sfm120k_is_read(tmp_path, where):
    _sfm(tmp_path / where)
    images = load_sfm120k(tmp_path)
    assert len(images) == 3
    assert images.paths[0] == tmp_path / where / "ims" / "ef" / "cd" / "ab" / CIDS[0]
    assert images.labels.tolist() == [1, 0, 1]
    assert images.label_names == ("3", "70")
    assert (images.query_ids.tolist(), images.positive_ids.tolist()) == ([0, 2], [2, 0])
    assert load_sfm120k(tmp_path, "val").label_names == ("1",)


def test_the_whitening_part_of_sfm120k_has_pairs_and_no_labels(tmp_path):
    _sfm(tmp_path, "retrieval-SfM-120k-whiten")
    images = load_sfm120k_whitening(tmp_path)
    assert images.labels.tolist() == [-1, -1, -1]
    assert images.label_names == ()
    assert images.query_ids.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cids": ["../../../etc/passwd"] * 3}, "names of images in cids"),
        ({"cids": ["ab..cdefgh"] * 3}, "names of images in cids"),
        ({"cids": [1, 2, 3]}, "names of images in cids"),
        ({"cids": None}, "cids is none"),
        ({"cluster": [1, 2]}, "3 clusters, got 2"),
        ({"cluster": [1, 2, "3"]}, "cluster: expected whole numbers"),
        ({"qidxs": [0, 3]}, "qidxs: expected whole numbers from 0 to 2"),
        ({"pidxs": [0, -1]}, "pidxs: expected whole numbers"),
        ({"pidxs": [0, True]}, "pidxs: expected whole numbers"),
        ({"qidxs": [0]}, "as many qidxs as pidxs"),
    ],
)
def test_other_sfm120k_files_are_refused(tmp_path, changes, message):
    _sfm(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load_sfm120k(tmp_path)


def test_sfm120k_that_calls_something_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    _sfm(tmp_path, cluster=[Attack()])
    _sfm(tmp_path, "retrieval-SfM-120k-whiten", qidxs=Attack())
    for load in (load_sfm120k, load_sfm120k_whitening):
        with pytest.raises(ValueError, match="nothing was executed"):
            load(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_sfm120k_says_what_is_missing_or_wrong(tmp_path):
    with pytest.raises(DatasetMissingError, match="data download sfm120k"):
        load_sfm120k(tmp_path)
    with pytest.raises(ValueError, match="got 'test'"):
        load_sfm120k(tmp_path, "test")
    for value in ([1], {"val": {}}):
        (tmp_path / "retrieval-SfM-120k.pkl").write_bytes(pickle.dumps(value))
        with pytest.raises(ValueError, match="expected a dictionary with 'train'"):
            load_sfm120k(tmp_path)
    (tmp_path / "retrieval-SfM-120k-whiten.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="got list"):
        load_sfm120k_whitening(tmp_path)


def _gldv2(root, lines, images=()):
    (root / "train_clean.csv").write_text("\n".join(["landmark_id,images", *lines]) + "\n")
    for image in images:
        file = root / "train" / image[0] / image[1] / image[2] / f"{image}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_gldv2_clean_is_read(tmp_path):
    a, b, c = "00a1" * 4, "17f0" * 4, "ffff" * 4
    _gldv2(tmp_path, [f"1,{a} {b}", f"203092,{c}"], [a, b, c])
    images = load_gldv2_clean(tmp_path)
    assert images.paths[1] == tmp_path / "train" / "1" / "7" / "f" / f"{b}.jpg"
    assert images.labels.tolist() == [0, 0, 1]
    assert images.label_names == ("1", "203092")
    assert len(images.query_ids) == 0


def test_gldv2_clean_may_be_there_in_part(tmp_path):
    a, b = "00a1" * 4, "17f0" * 4
    _gldv2(tmp_path, [f"1,{a}", f"2,{b} {a}", f"3,{b}"], [b])
    with pytest.raises(DatasetMissingError, match=f"{a}.jpg is not there"):
        load_gldv2_clean(tmp_path)
    images = load_gldv2_clean(tmp_path, partial=True)
    assert [p.stem for p in images.paths] == [b, b]
    assert images.label_names == ("2", "3")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1,../../x"], "line 2: expected image ids of 16 hex"),
        (["1," + "00a1" * 4, "x," + "00a1" * 4], "line 3: expected a landmark"),
        (["1,"], "line 2"),
        (["1"], "line 2"),
    ],
)
def test_other_gldv2_lists_are_refused(tmp_path, lines, message):
    _gldv2(tmp_path, lines)
    with pytest.raises(ValueError, match=message):
        load_gldv2_clean(tmp_path, partial=True)


def test_gldv2_says_what_is_missing(tmp_path):
    with pytest.raises(DatasetMissingError, match="data download gldv2-clean"):
        load_gldv2_clean(tmp_path)
    (tmp_path / "train_clean.csv").write_text("id,url\n")
    with pytest.raises(ValueError, match="the header landmark_id,images"):
        load_gldv2_clean(tmp_path)


def test_gldv2_is_found_where_the_download_puts_it(tmp_path):
    a = "00a1" * 4
    (tmp_path / "gldv2-clean").mkdir()
    _gldv2(tmp_path / "gldv2-clean", [f"1,{a}"], [a])
    assert [p.stem for p in load_gldv2_clean(tmp_path).paths] == [a]


@pytest.mark.parametrize("read", [photo_folder, None])
def test_the_first_sub_folder_is_the_label_everywhere(tmp_path, read):
    names = ("place0/sub0/1.png", "place0/sub1/1.png", "place1/1.png")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    labels = photo_folder(tmp_path).labels if read else split_folder(names).labels
    assert labels.tolist() == [0, 0, 1] and labels.dtype == np.int64


def test_a_photograph_outside_the_sub_folders_is_named():
    assert labels_of(["b/1.jpg", "a/x/1.jpg"])[1] == ("a", "b")
    with pytest.raises(ValueError, match=r"got 'x\.jpg' and 0 others"):
        labels_of(["a/1.jpg", "x.jpg"])
