import os
from pathlib import Path

import pytest
from PIL import Image

from spatial_retrieval.datasets import folders
from spatial_retrieval.datasets.folders import list_images, scan_folder
from spatial_retrieval.decoding import formats


def make(root, *names):
    for name in names:
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_every_suffix_in_any_case_is_a_photograph(tmp_path):
    names = ["a.jfif", "b.JPE", "c.JPEG", "d.Tif", "e.gif", "f.bmp", "g.webp", "h.png", "i.jpg"]
    make(tmp_path, *names, "note.txt", "no suffix")
    assert list_images(tmp_path) == names
    assert scan_folder(tmp_path).notes() == []


def test_other_formats_are_counted_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    make(tmp_path, "a.jpg", "x/b.HEIC", "x/c.heif", "d.nef")
    scan = scan_folder(tmp_path)
    assert scan.names == ("a.jpg",) and scan.left_out == {"HEIC": 2, "camera raw": 1}
    assert any("2 HEIC files were left out: pip install" in note for note in scan.notes())
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ValueError, match="holds no photograph.*2 HEIC files were left out"):
        list_images(tmp_path)


def test_system_and_hidden_things_are_left_out_and_said(tmp_path):
    make(
        tmp_path,
        "a.jpg",
        "._a.jpg",
        "@eaDir/a.jpg",
        "#recycle/b.jpg",
        "$RECYCLE.BIN/c.jpg",
        ".thumbnails/d.jpg",
        ".hidden/e.jpg",
        "x/@eaDir/f.jpg",
    )
    scan = scan_folder(tmp_path)
    assert scan.names == ("a.jpg",)
    assert scan.system == {
        "._*": 1,
        "@eaDir": 2,
        "#recycle": 1,
        "$RECYCLE.BIN": 1,
        ".thumbnails": 1,
        ".*": 1,
    }
    assert "@eaDir (2)" in " ".join(scan.notes())


def test_linked_folders_are_followed_once_and_loops_do_no_harm(tmp_path):
    root = tmp_path / "root"
    make(root, "z/a.jpg", "b.jpg")
    make(tmp_path / "elsewhere", "c.jpg", "deep/d.jpg")
    (root / "a-link").symlink_to(root / "z")  # the same folder under a name that comes first
    (root / "away").symlink_to(tmp_path / "elsewhere")
    (root / "away again").symlink_to(tmp_path / "elsewhere")
    (root / "z" / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (tmp_path / "elsewhere" / "back").symlink_to(root / "z")
    (root / "gone").symlink_to(tmp_path / "nowhere")
    scan = scan_folder(root)
    assert scan.names == ("away/c.jpg", "away/deep/d.jpg", "b.jpg", "z/a.jpg")
    assert set(scan.loops) == {"a-link", "away again", "away/back", "up", "z/loop"}


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path, monkeypatch):
    make(tmp_path, "a.jpg", "locked/b.jpg")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(folders.os, "scandir", scandir)
    scan = scan_folder(tmp_path)
    assert scan.names == ("a.jpg",) and scan.unlistable == {"locked": "Permission denied"}
    assert scan.hides("locked/b.jpg") and not scan.hides("a.jpg")
    assert "the folder locked could not be listed (Permission denied)" in scan.notes()
    with pytest.raises(ValueError, match="cannot be listed"):
        scan_folder(tmp_path / "locked")


def test_any_file_name_is_kept(tmp_path):
    odd = [b"caf\xe9.jpg", b"line\nbreak.jpg", b"n" * 251 + b".jpg", b"-o.jpg", "ä.jpg".encode()]
    for name in odd:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            Image.new("RGB", (3, 3)).save(file, "JPEG")
    names = list_images(tmp_path)
    assert sorted(os.fsencode(name) for name in names) == sorted(odd)
    for name in names:
        assert (tmp_path / name).is_file()
