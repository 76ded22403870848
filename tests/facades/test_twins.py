import json
import multiprocessing
import subprocess
import sys

import cv2
import numpy as np
import pytest

from spatial_retrieval.cli import main
from spatial_retrieval.facades import data as twins
from spatial_retrieval.facades.data import twin_facades
from spatial_retrieval.facades.renderer.camera import photograph
from spatial_retrieval.facades.renderer.canvas import draw
from spatial_retrieval.facades.renderer.design import KINDS, MIN_CHANGE, change, design_pair
from spatial_retrieval.facades.renderer.levels import LEVELS
from spatial_retrieval.facades.renderer.pen import arc
from spatial_retrieval.facades.renderer.render import Job, landmark_design, view_of
from spatial_retrieval.facades.renderer.scene import photograph_house
from spatial_retrieval.facades.renderer.styles import STYLES
from spatial_retrieval.facades.showcase import embedded_gallery
from spatial_retrieval.leftovers import temporary_name


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("twins")


@pytest.fixture(scope="module")
def data(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twins, "_cores", lambda: 2)
        return twin_facades("test", landmarks=6, views=3, size=96, root=root)


def _parts(design):
    return sorted((p.kind, p.accent) for row in design.cells for p in row), sorted(design.roof)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", KINDS)
def test_twins_have_the_same_parts_in_another_arrangement(kind, split):
    for k in range(30):
        a, b = design_pair((7, k), kind, split)
        assert _parts(a) == _parts(b)
        assert change(a, b) >= MIN_CHANGE
        assert a.cells != b.cells and a.cells != tuple(row[::-1] for row in b.cells)
        same = ("texture", "wall", "trim", "roof_color", "roof_accent", "pilasters", "courses")
        assert all(getattr(a, n) == getattr(b, n) for n in (*same, "seed"))


def test_rows_stay_whole_rows_and_columns_whole_columns():
    for k in range(10):
        a, b = design_pair((7, k), "rows", "test")
        assert sorted(map(str, a.cells)) == sorted(map(str, b.cells)) and a.roof == b.roof
        a, b = design_pair((7, k), "columns", "test")
        stacks = [sorted(zip(d.roof, *map(str_row, d.cells), strict=True)) for d in (a, b)]
        assert stacks[0] == stacks[1]


def str_row(row):
    return [str(part) for part in row]


def test_change_sees_a_mirror_image_as_no_change():
    from dataclasses import replace

    a, _ = design_pair((7, 1), "columns", "test")
    assert change(a, replace(a, cells=tuple(row[::-1] for row in a.cells))) == 0


def test_drawn_twins_have_the_same_colours_and_are_no_mirror_images():
    for kind in KINDS:
        a, b = (draw(d).rgb.astype(int) for d in design_pair((3, 4), kind, "test"))
        assert a.shape == b.shape
        assert np.abs(a.mean(axis=(0, 1)) - b.mean(axis=(0, 1))).max() < 1.5
        for other in (b, b[:, ::-1]):
            assert np.abs(a - other).mean() > 6


def test_every_part_of_every_style_is_drawn():
    from spatial_retrieval.facades.renderer.canvas import _PARTS, ROOFS
    from spatial_retrieval.facades.renderer.walls import _TEXTURES

    for style in STYLES.values():
        assert {*style.upper, *style.ground} <= set(_PARTS)
        assert set(style.roofs) <= set(ROOFS) and set(style.textures) <= set(_TEXTURES)


def test_the_test_split_has_a_style_of_its_own():
    train, test = STYLES["train"], STYLES["test"]
    assert len(set(test.upper) - set(train.upper)) >= 5
    assert set(test.textures) - set(train.textures) and set(test.roofs) - set(train.roofs)
    assert not set(test.colors) & set(train.colors)


def test_splits_and_seeds_are_disjoint():
    designs = [
        landmark_design(split, seed, k)
        for split in ("train", "val", "test")
        for seed in (0, 1)
        for k in range(20)
    ]
    assert len({(d.cells, d.roof, d.wall) for d in designs}) == len(designs)


def test_what_the_data_set_says(data):
    assert len(data) == 18 == len(data.names) == len(set(data.names))
    assert data.labels.tolist() == np.repeat(np.arange(6), 3).tolist()
    assert data.twin_of.tolist() == [1, 0, 3, 2, 5, 4]
    assert data.kind.tolist() == [k for k in KINDS for _ in range(2)]
    assert "".join(data.difficulty) == "EMH" * 6
    assert data.image(4).size == (96, 96) and data.image(4).mode == "RGB"
    assert data.mask(4).shape == (96, 96) and data.mask(4).dtype == bool
    assert data.frontal(2).shape[1::-1] == tuple(data.canvas_sizes[2])
    assert data.names[0] == "00000/000_E.jpg"


def test_an_odd_house_has_no_twin(root, data):
    odd = twin_facades("test", landmarks=5, views=3, size=96, root=root)
    assert odd.twin_of.tolist() == [1, 0, 3, 2, -1]
    assert odd.names == data.names[:15]


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(
    tmp_path, data, monkeypatch
):
    monkeypatch.setattr(twins, "_cores", lambda: 1)
    again = twin_facades("test", landmarks=6, views=3, size=96, root=tmp_path)
    assert again.names == data.names
    for a, b in zip(data.paths, again.paths, strict=True):
        assert a.read_bytes() == b.read_bytes()
    np.testing.assert_array_equal(data.homographies, again.homographies)
    other = twin_facades("test", landmarks=1, views=1, seed=1, size=96, root=tmp_path)
    assert other.paths[0].read_bytes() != data.paths[0].read_bytes()


def test_a_mask_is_the_façade_seen_through_the_homography():
    """With nothing in front, the mask is the warped silhouette; what stands in front cuts it."""
    for landmark in range(2):
        job = Job("", "test", 0, 160, 3, "EMH")
        for view in range(3):
            found = view_of(job, landmark, view)
            canvas = draw(landmark_design("test", 0, landmark))
            sampled = _silhouette(canvas.alpha, found.homography, 160)
            inside = found.mask > 0
            assert (inside & ~cv2.dilate(sampled, np.ones((3, 3))).astype(bool)).sum() == 0
            least = LEVELS["EMH"[view]].visible
            assert inside.sum() >= 0.98 * least * sampled.sum()


def _silhouette(alpha, homography, size):
    """Ask for each pixel's centre where on the canvas it lies."""
    y, x = np.mgrid[:size, :size] + 0.5
    u, v, w = np.linalg.inv(homography) @ np.stack([x.ravel(), y.ravel(), np.ones(size * size)])
    column, row = np.floor(u / w).astype(int), np.floor(v / w).astype(int)
    h, width = alpha.shape
    ok = (column >= 0) & (column < width) & (row >= 0) & (row < h)
    found = np.zeros(size * size, np.uint8)
    found[ok] = alpha[row[ok], column[ok]] > 127
    return found.reshape(size, size)


def test_a_view_with_nothing_in_front_has_the_whole_silhouette(monkeypatch):
    from dataclasses import replace

    from spatial_retrieval.facades.renderer import scene

    alone = replace(LEVELS["E"], occluders=(0, 0), neighbours=0.0, weather=0.0)
    monkeypatch.setitem(scene.LEVELS, "E", alone)
    canvas = draw(landmark_design("test", 0, 0))
    view = photograph_house(np.random.default_rng(3), canvas, lambda rng: canvas, "E", 200)
    sampled = _silhouette(canvas.alpha, view.homography, 200).astype(bool)
    both = (view.mask > 0) & sampled
    assert both.sum() / ((view.mask > 0) | sampled).sum() > 0.97


def test_the_camera_projects_and_frames():
    rng = np.random.default_rng(0)
    for level in LEVELS.values():
        camera = photograph(rng, level, 12.0, 16.0, 448)
        corners = np.array([[0, 0, 0], [12, 0, 0], [12, -16, 0], [0, -16, 0]], dtype=float)
        seen = camera.project(corners)
        extent = (seen.max(axis=0) - seen.min(axis=0)).max() / 448
        assert level.fill[0] - 1e-6 <= extent <= level.fill[1] + 1e-6
        plane = camera.plane(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, -1.0, 0]))
        u, v, w = plane @ [12.0, 16.0, 1.0]
        np.testing.assert_allclose([u / w, v / w], seen[2])
        np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-12)
        left, right = camera.horizon(448)
        far = camera.project(camera.centre + 1e7 * np.array([0.1, 0.0, 1.0]))
        assert left + (right - left) * far[0] / 448 == pytest.approx(far[1], abs=0.5)


def test_an_arc_goes_clockwise_from_the_right():
    np.testing.assert_allclose(arc(0, 0, 2, 1, 0, 90)[[0, -1]], [[2, 0], [0, 1]], atol=1e-12)


def test_a_broken_cache_is_mended(tmp_path):
    first = twin_facades("test", landmarks=2, views=2, size=64, root=tmp_path)
    before = [path.read_bytes() for path in first.paths]
    first.paths[1].unlink()  # a lost file
    (first.root / "landmarks" / "00001.json").unlink()  # a killed run
    (first.root / "manifest.json").unlink()
    kept = first.paths[2].stat().st_mtime_ns
    again = twin_facades("test", landmarks=2, views=2, size=64, root=tmp_path)
    assert [path.read_bytes() for path in again.paths] == before
    assert again.paths[2].stat().st_mtime_ns > kept
    again.paths[0].unlink()
    whole = twin_facades("test", landmarks=2, views=2, size=64, root=tmp_path)
    assert [path.read_bytes() for path in whole.paths] == before


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_file_cut_short_is_drawn_again(tmp_path, kind):
    first = twin_facades("test", landmarks=1, views=1, size=64, root=tmp_path)
    path = first.paths[0] if kind == "image" else next(first.root.glob("masks/*/*.png"))
    whole = path.read_bytes()
    for damaged in (whole[:-1], b"", whole[:-9] + bytes(9)):
        path.write_bytes(damaged)
        twin_facades("test", landmarks=1, views=1, size=64, root=tmp_path)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("text", ["[]", "{", '{"landmarks": [3]}', '{"landmarks": 3}'])
def test_a_wrong_manifest_is_written_anew_and_leftovers_go(tmp_path, text):
    first = twin_facades("test", landmarks=1, views=1, size=64, root=tmp_path)
    (first.root / "manifest.json").write_text(text)
    (first.root / "landmarks" / "00000.json").write_text(text)
    dead = temporary_name("x").split("-")
    dead[1] = "999999999"
    (first.paths[0].parent / "-".join(dead)).touch()
    again = twin_facades("test", landmarks=1, views=1, size=64, root=tmp_path)
    assert len(again) == 1 and len(list(first.paths[0].parent.iterdir())) == 1


def test_more_landmarks_add_to_the_cache(tmp_path):
    first = twin_facades("val", landmarks=2, views=1, size=64, root=tmp_path)
    stamp = first.paths[0].stat().st_mtime_ns
    more = twin_facades("val", landmarks=3, views=1, size=64, root=tmp_path)
    assert more.paths[:2] == first.paths and more.paths[0].stat().st_mtime_ns == stamp
    manifest = json.loads((more.root / "manifest.json").read_text())
    assert len(manifest["landmarks"]) == 3 and manifest["split"] == "val"
    fewer = twin_facades("val", landmarks=1, views=1, size=64, root=tmp_path)
    assert len(fewer) == 1 and fewer.twin_of.tolist() == [-1]


def test_more_views_change_none(tmp_path, data):
    more = twin_facades("test", landmarks=1, views=4, size=96, root=tmp_path)
    assert [p.read_bytes() for p in more.paths[:3]] == [p.read_bytes() for p in data.paths[:3]]


def test_rendering_works_in_a_daemonic_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_render_some, args=(str(tmp_path),), daemon=True)
    process.start()
    process.join(120)
    assert process.exitcode == 0


def _render_some(root):
    twins._cores = lambda: 2  # in a process of its own
    data = twin_facades("test", landmarks=4, views=3, size=64, root=root)
    assert len(data) == 12


def test_a_failing_worker_is_an_error_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(twins, "_cores", lambda: 2)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(OSError, match="nothing"):
        twin_facades("test", landmarks=4, views=3, size=64, root=tmp_path)
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho worse >&2\necho disk full >&2\nexit 3\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    with pytest.raises(OSError, match="disk full"):
        twin_facades("test", landmarks=4, views=3, size=64, root=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "all"}, "expected a split in .*got 'all'"),
        ({"landmarks": 0}, "landmarks >= 1, got 0"),
        ({"views": 0}, "views >= 1, got 0"),
        ({"seed": -1}, "seed >= 0, got -1"),
        ({"size": 8}, "size >= 64, got 8"),
        ({"views": "EX"}, "letters E, M, H, got 'EX'"),
        ({"views": ""}, "views >= 1, got 0"),
    ],
)
def test_bad_requests_are_named(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        twin_facades(**{"landmarks": 1, "views": 1, "size": 64, "root": tmp_path, **options})
    assert not list(tmp_path.iterdir())


def test_designs_refuse_unknown_kinds_and_splits():
    with pytest.raises(ValueError, match="kind of re-arrangement"):
        design_pair((1,), "diagonal", "test")
    with pytest.raises(ValueError, match="expected a split"):
        design_pair((1,), "rows", "city")


def test_the_command_makes_a_folder_of_folders(tmp_path, capsys):
    call = ["data", "make", "twins", "--root", str(tmp_path), "--landmarks", "2", "--views", "1"]
    assert main([*call, "--size", "64", "--difficulty", "H"]) == 0
    assert "2 photographs of 2 houses" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*/images/*/*_H.jpg"))) == 2
    assert main([*call, "--size", "12"]) == 2
    assert "size >= 64, got 12" in capsys.readouterr().err


def test_the_embedded_gallery(tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_FAST", "1")
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path))
    gallery = embedded_gallery()
    assert gallery.folder.is_relative_to(tmp_path)
    names = {p.relative_to(gallery.folder).as_posix() for p in gallery.folder.rglob("*.jpg")}
    assert len(names) == 4 * 3
    for example in gallery.examples:
        assert example.query.is_file() and not example.query.is_relative_to(gallery.folder)
        assert len(example.hits) == len(example.twins) == 3
        assert {*example.hits, *example.twins} <= names
        assert not set(example.hits) & set(example.twins)
    assert [e.kind for e in gallery.examples] == ["shuffle", "rows"]
    assert embedded_gallery() == gallery


def test_a_gallery_that_another_process_finished_first_is_taken(tmp_path, monkeypatch):
    from spatial_retrieval.facades import showcase as module

    monkeypatch.setenv("SPATIAL_RETRIEVAL_FAST", "1")
    first = embedded_gallery(tmp_path)
    data = twins.twin_facades("test", 4, 4, size=128, root=tmp_path)
    module._lay_out(data, first.folder.parent, 4)
    assert embedded_gallery(tmp_path) == first
    assert not list(data.root.glob(".gallery.*"))


def test_the_renderer_needs_no_torch():
    code = (
        "import sys, spatial_retrieval.facades.renderer.worker, spatial_retrieval.facades.data; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_views_are_letters_or_a_number(tmp_path):
    few = twin_facades("test", 1, "EM", size=64, root=tmp_path)
    assert "".join(few.difficulty) == "EM" and len(few) == 2
    with pytest.raises(ValueError, match="letters E, M, H"):
        twin_facades("test", 1, "EX", size=64, root=tmp_path)
