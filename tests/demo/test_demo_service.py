"""The demo without its page: search, private galleries, localization, and what visitors may ask."""

import io
import json
import shutil
import time

import numpy as np
import pytest
import torch
from pictures import draw as boxes
from PIL import Image

from spatial_retrieval.cli import main
from spatial_retrieval.demo import html, limits
from spatial_retrieval.demo.gallery import frame, from_folder, from_index
from spatial_retrieval.demo.inside import contributions, look_inside
from spatial_retrieval.demo.line import Line
from spatial_retrieval.demo.models import _agrees
from spatial_retrieval.demo.results import Hit, Results, moves
from spatial_retrieval.demo.service import Service
from spatial_retrieval.demo.sessions import Sessions
from spatial_retrieval.demo.store import Store
from spatial_retrieval.demo.uploads import Upload
from spatial_retrieval.demo.visitor import visiting
from spatial_retrieval.features.extraction import describe
from spatial_retrieval.images import ImageError
from spatial_retrieval.index import DescriptorIndex
from spatial_retrieval.indexing import index_folder
from spatial_retrieval.models import ModelConfig, build_model, fuse
from spatial_retrieval.rerank import BASIC_NAMES


def draw(seed, width, height):
    """A soft picture, which JPEG hardly changes."""
    return boxes(seed, 32, 24).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    for i in range(8):
        path = folder / f"place{i % 2}" / f"view {i}.jpg"
        path.parent.mkdir(exist_ok=True)
        draw(i, 160, 128).save(path, quality=95)
    return folder


@pytest.fixture(scope="module")
def service(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = Service(from_folder(folder), ["lite0-gem"], "lite0-gem")
        made.warm()
        yield made


def photograph(seed=0, kind="JPEG", **options):
    buffer = io.BytesIO()
    draw(seed, 160, 128).save(buffer, kind, **options)
    return buffer.getvalue()


# -- search


def test_a_query_from_the_gallery_is_left_out_of_its_own_hits(service):
    query = service.queries.open_example(0)
    results = service.search(query.key, k=48)
    assert query.name not in [hit.name for hit in results.hits]
    assert [hit.rank for hit in results.hits] == list(range(1, 8))
    assert list(results.milliseconds) == ["decode", "describe", "search"]


@pytest.mark.parametrize("rerank", ["aqe", "dba+aqe", "superglobal", "hypergraph"])
def test_a_query_from_the_gallery_ranks_as_in_a_gallery_without_it(
    folder, tmp_path, monkeypatch, rerank
):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path / "cache"))
    shutil.copytree(folder, tmp_path / "whole")
    whole = Service(from_folder(tmp_path / "whole"), [], "lite0-gem")
    query = whole.queries.open_example(2)
    found = whole.search(query.key, rerank=rerank, k=7).hits
    shutil.copytree(folder, tmp_path / "less")
    (tmp_path / "less" / query.name).unlink()
    less = Service(from_folder(tmp_path / "less"), [], "lite0-gem")
    wanted = less.search(less.queries.open(query.image).key, rerank=rerank, k=7).hits
    assert [hit.name for hit in found] == [hit.name for hit in wanted]
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], abs=1e-5)


def test_local_features_are_extracted_once_a_photograph(service):
    query = service.queries.open_example(0)
    results = service.search(query.key, k=7)
    service.verified(results)
    features = service.shelf.searcher(service.gallery, "lite0-gem").features
    spent = features.seconds
    service.verified(results)
    service.search(query.key, rerank="verify")
    assert features.seconds == spent > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU")
def test_looking_inside_keeps_to_one_device(folder):
    layers = (("smoothing", {"kernel_size": 3}), ("refinement", {"nodes": 8, "width": 16}))
    model = build_model(ModelConfig(context=layers)).cuda()
    found = look_inside(model, draw(0, 160, 128), folder / "place0" / "view 0.jpg", (9, 9))
    assert found.node is not None
    assert found.smoothing.kernel(found.inputs["smoothing"]).a.device.type == "cpu"


def test_an_uploaded_copy_is_found_first_however_it_is_rotated(service):
    upright = draw(3, 160, 128)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", quality=95, exif=exif)
    query = service.queries.open(Upload("phone.jpg", buffer.getvalue()))
    assert query.image.size == (160, 128)
    best = service.search(query.key).hits[0]
    assert (best.name, best.label) == ("place1/view 3.jpg", "place1/view 3")


def test_a_box_asks_for_that_part(service):
    query = service.queries.open(Upload("a.jpg", photograph(2)))
    whole, part = service.search(query.key), service.search(query.key, box=[0, 0, 80, 64])
    assert part.box == (0, 0, 80, 64)
    assert part.hits[0].score != whole.hits[0].score


@pytest.mark.parametrize("name", [n for n in BASIC_NAMES if n != "verify-cells"])
def test_every_reranker_answers_with_the_same_photographs(service, name):
    query = service.queries.open(Upload("a.jpg", photograph(2)))
    results = service.search(query.key, rerank=name, k=8)
    assert {hit.id for hit in results.hits} == set(range(8))


def test_results_can_be_read_by_programs(service):
    query = service.queries.open_example(1)
    results = service.search(query.key, k=3)
    read = json.loads(json.dumps(results.to_json()))
    assert [a["rank"] for a in read["hits"]] == [1, 2, 3]
    assert results.to_csv().splitlines()[0] == "rank,name,label,score"


def test_a_table_does_not_run_what_a_file_name_says():
    hit = Hit(1, "=cmd()", "@x", 0.5, 0)
    line = Results("q", "g", "m", "none", None, (hit,), {}).to_csv().splitlines()[1]
    assert line == "1,'=cmd(),'@x,0.500000"


def test_moves_between_two_lists():
    a, b, c, d = (Hit(i, name, name, 0, i) for i, name in enumerate("abcd", start=1))
    second = [Hit(1, "b", "", 0, 2), Hit(2, "a", "", 0, 1), Hit(3, "x", "", 0, 9), d]
    assert moves([a, b, c, d], second) == [1, -1, None, 0]


def test_an_index_made_beforehand_is_a_gallery(folder, tmp_path, gem_model):
    index_folder(folder, tmp_path / "index", gem_model, model_name="lite0-gem", progress=False)
    gallery = from_index(tmp_path / "index")
    made = Service(gallery, [], "lite0-gem")
    query = made.queries.open_example(0)
    assert len(made.search(query.key, k=20).hits) == 7
    with pytest.raises(ValueError, match="no such index"):
        from_index(tmp_path / "nowhere")


def test_a_kept_index_that_cannot_be_trusted_is_made_anew(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path))
    gallery = from_folder(folder)
    Service(gallery, [], "lite0-gem").warm()
    (manifest,) = tmp_path.glob("demo/*/manifest.json")
    manifest.write_text("{}")
    made = Service(gallery, [], "lite0-gem")
    made.warm()
    assert "describing the photographs again" in caplog.text
    best = made.search(made.queries.open(Image.open(folder / gallery.names[3])).key).hits[0]
    assert best.name == gallery.names[3] and best.score > 0.99


def test_other_rows_than_the_model_gives_are_noticed(service, folder):
    searcher = service.shelf.searcher(service.gallery, "lite0-gem")
    assert _agrees(searcher.index, folder, searcher.model)
    other = DescriptorIndex.build(-np.asarray(searcher.index.descriptors), searcher.index.names)
    assert not _agrees(other, folder, searcher.model)


def test_without_a_gallery_the_service_says_what_to_do():
    made = Service(None, ["lite0-gem"], "lite0-gem")
    query = made.queries.open(Upload("a.jpg", photograph()))
    with pytest.raises(ValueError, match="add photographs of yours first"):
        made.search(query.key)


# -- what a visitor may ask for


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"k": 200_000}, "whole number from 1 to 48"),
        ({"k": True}, "whole number"),
        ({"k": 2.5}, "whole number"),
        ({"k": "12"}, "whole number"),
        ({"rerank": "../x"}, "re-ranker"),
        ({"model": "/etc/passwd"}, "the model"),
        ({"gallery": "own-guess"}, "no such photographs"),
        ({"gallery": ["x"]}, "no such photographs"),
        ({"box": [0, 0, 1]}, "four numbers"),
        ({"box": [float("nan"), 0, 9, 9]}, "four numbers"),
        ({"box": [0, 0, 10**400, 9]}, "four numbers"),
        ({"box": [500, 500, 600, 600]}, "inside the 160×128 query"),
        ({"box": "0,0,9,9"}, "four numbers"),
    ],
)
def test_values_out_of_bounds_are_refused(service, asked, message):
    query = service.queries.open_example(0)
    with pytest.raises(ValueError, match=message):
        service.search(query.key, **asked)


@pytest.mark.parametrize("key", [None, 7, "nothing", ["a"], {"path": "/etc/passwd"}])
def test_unknown_queries_are_refused(service, key):
    with pytest.raises(ValueError, match="choose a query first"):
        service.search(key)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[1, 1, 1]] * 25, "at most 24 points"),
        ([[-1, 5, 1]], "inside the 160×128 query"),
        ([[160, 5, 1]], "inside"),
        ([["1", 5, 1]], "x, y, wanted"),
        ([[float("inf"), 5, 1]], "x, y, wanted"),
        ("points", "at most 24"),
        ([[1, 2, 3, 4]], "x, y, wanted"),
    ],
)
def test_forged_points_are_refused(service, points, message):
    results = service.search(service.queries.open_example(0).key)
    with pytest.raises(ValueError, match=message):
        service.localize(results, points=points)


def test_uploads_are_checked(service):
    with pytest.raises(ImageError, match=r"notes\.jpg: expected a JPEG, PNG or WebP"):
        service.queries.open(Upload("notes.jpg", b"hello"))
    with pytest.raises(ImageError, match=r"big\.jpg: more than the limit of 15 MB"):
        service.queries.open(Upload("big.jpg", b"\xff\xd8\xff" + bytes(16_000_000)))
    with pytest.raises(ImageError, match=r"cut\.jpg: cannot be read"):
        service.queries.open(Upload("cut.jpg", photograph()[:400]))


# -- a visitor's own photographs


def test_own_photographs_are_searched_privately_and_deleted(service):
    uploads = [Upload(f"mine {i}.jpg", photograph(20 + i, quality=95)) for i in range(4)]
    gallery, failed = service.add_photographs([*uploads, Upload("bad.jpg", b"no")])
    assert failed == {"bad.jpg": "bad.jpg: expected a JPEG, PNG or WebP image"}
    query = service.queries.open(Upload("again.png", photograph(22, "PNG")))
    best = service.search(query.key, gallery=gallery.key).hits[0]
    assert best.label == "mine 2.jpg"
    assert len(service.search(query.key).hits) == 8  # the main gallery knows nothing of them
    assert service.pictures.photograph(gallery, best.name)[:3] == b"\xff\xd8\xff"
    service.forget(gallery.key)
    assert not gallery.folder.exists()
    with pytest.raises(ValueError, match="deleted"):
        service.search(query.key, gallery=gallery.key)


def test_too_many_and_no_photographs_are_refused(service):
    with pytest.raises(ValueError, match="expected 1 to 60 photographs, got 61"):
        service.add_photographs([Upload("a.jpg", photograph())] * 61)
    with pytest.raises(ValueError, match="none of the files is a photograph"):
        service.add_photographs([Upload("a.jpg", b"x")])


def gallery_in(sessions, seed=0):
    with sessions.taking([Upload("a.jpg", photograph(seed))]) as (gallery, _):
        pass
    return gallery


def test_the_oldest_gallery_is_deleted_first(tmp_path):
    sessions = Sessions(tmp_path, Line(), capacity=2)
    made = [gallery_in(sessions, i) for i in range(3)]
    assert not made[0].folder.exists()
    with pytest.raises(ValueError, match="deleted to make room"):
        sessions[made[0].key]
    assert sessions[made[2].key] is made[2]


def test_galleries_are_deleted_after_their_time(tmp_path):
    sessions = Sessions(tmp_path, Line(), seconds=0.01)
    made = gallery_in(sessions)
    time.sleep(0.02)
    sessions.sweep()  # by the clock: nobody asks for it any more
    assert not made.folder.exists()
    with pytest.raises(ValueError, match="an hour after their last use"):
        sessions[made.key]


def test_a_store_stays_small():
    gone = []
    store = Store(2, dropped=gone.append)
    for key in "abc":
        store.put(key, key)
    store.get("b")
    store.put("d", "d")
    assert (len(store), gone, store.get("b")) == (2, ["a", "c"], "b")
    with pytest.raises(ValueError, match="capacity"):
        Store(0)


def test_queries_are_kept_once_and_bounded(service):
    with visiting("somebody"):
        first = service.queries.open(Upload("a.jpg", photograph(5)))
        assert service.queries.open(Upload("b.jpg", photograph(5))).key == first.key
    for visitor in range(12):
        with visiting(f"visitor {visitor}"):
            for i in range(6):
                service.queries.open(draw(100 + i, 16, 16))
    assert len(service.queries) == limits.MAX_QUERIES


# -- localization and what is inside


def test_what_is_boxed_is_found_in_the_same_photograph(service):
    query = service.queries.open(Upload("a.jpg", photograph(3, quality=95)))
    results = service.search(query.key, k=4)
    localized = service.localize(results, box=[0, 0, 160, 128], threshold=0)
    best = localized.found[0]
    assert best.label == "place1/view 3" and len(best.result) >= 1
    assert best.size == (160, 128) and localized.milliseconds["localize"] > 0
    read = json.loads(json.dumps(best.to_json()))
    assert all(0 <= v <= 1 for region in read["regions"] for v in region["box"])
    assert Image.open(io.BytesIO(best.heat_png())).mode == "RGBA"


def test_marks_change_what_is_found_and_maps_are_kept(service):
    query = service.queries.open(Upload("a.jpg", photograph(4, quality=95)))
    results = service.search(query.key, k=3)
    service.localizer.prefetch(results, service.gallery_of(None)).result(timeout=60)
    one = service.localize(results, points=[[20, 20, 1]])
    other = service.localize(results, points=[[140, 100, 1], [20, 20, 0]])
    assert one.milliseconds["maps"] < 50
    assert not torch.equal(one.found[0].result.heat, other.found[0].result.heat)


def test_what_is_made_ahead_stops_when_somebody_asks(service, monkeypatch):
    results = service.search(service.queries.open_example(0).key, k=7)
    made = []
    monkeypatch.setattr(service.localizer, "_maps_of", lambda *args: made.append(args))
    with service.line.turn():
        service.localizer.prefetch(results, service.gallery_of(None)).result(timeout=60)
    assert made == []
    service.localizer.prefetch(results, service.gallery_of(None)).result(timeout=60)
    assert len(made) == 4  # two photographs at a time


def test_the_seed_lies_on_the_query(service):
    query = service.queries.open_example(0)
    x, y = service.seed(query.key)
    assert 0 <= x < query.image.width and 0 <= y < query.image.height
    with pytest.raises(ValueError, match="layer"):
        service.seed(query.key, layer="../x")


def test_contributions_add_up_to_the_similarity():
    model = build_model(ModelConfig(), pretrained=False)
    x, d = torch.rand(1, 1280, 3, 4), torch.nn.functional.normalize(torch.rand(1, 1280), dim=1)
    shares = contributions(model.head, {"head": x}, d)
    assert shares.shape == (3, 4)
    assert float(shares.sum()) == pytest.approx(float(model.descriptor(x)[0] @ d[0]), abs=1e-5)


def test_looking_inside_finds_the_context_layers(folder):
    config = ModelConfig(
        context=(("smoothing", {"kernel_size": 3}), ("refinement", {"nodes": 8, "width": 16}))
    )
    model = build_model(config, pretrained=False)
    inside = look_inside(model, draw(0, 160, 128), folder / "place0" / "view 0.jpg", (159, 127))
    assert inside.cell == tuple(n - 1 for n in inside.shares[0].shape)
    assert list(inside.stages) == ["backbone", "smoothing", "refinement"]
    assert inside.smoothing is model.context.smoothing
    assert torch.equal(inside.inputs["refinement"], inside.stages["smoothing"])


def test_a_similarity_is_the_weighted_mean_of_its_parts(folder):
    base = build_model(ModelConfig(dim=None))
    context = build_model(ModelConfig(context=(("refinement", {"nodes": 8, "width": 16}),)))
    model = fuse(base, context, 0.25)
    place, other = draw(0, 160, 128), folder / "place0" / "view 0.jpg"
    found = look_inside(model, place, other, (0, 0))
    rows = describe(model, [place, other])
    assert [(part.name, part.weight) for part in found.parts] == [("base", 0.25), ("context", 0.75)]
    assert found.similarity == pytest.approx(float(rows[0] @ rows[1]), abs=1e-4)
    assert float(found.shares[0].sum()) == pytest.approx(found.similarity, abs=1e-4)


def test_whether_reranking_was_needed(service):
    results = service.search(service.queries.open_example(0).key, k=3)
    found = service.agreement(results)
    assert sorted(i for group in found.communities for i in group) == sorted(found.ranks)
    assert found.needed == (found.uncertainty > 1)
    checked = service.verified(results)
    assert {a.name for a in checked.after} == {a.name for a in checked.before}
    assert checked.changed == (checked.after[0].name != checked.before[0].name)
    assert checked.best.name == checked.after[0].name.rpartition("/")[2]


# -- pictures and HTML


def test_pairs_for_the_slider_have_one_size():
    a, b = frame(Image.new("RGB", (400, 200)), Image.new("RGB", (100, 300)), 300)
    assert a.size == b.size == (300, 300)


def test_names_are_escaped():
    name = '<img src=x onerror=alert(1)>"'
    drawn = html.cards([html.Card(b"", name, title=name, hint=name, badge=name)])
    drawn += html.note(name) + html.canvas(b"", (4, 3), label=name)
    drawn += html.downloads([(name, b"", "text/csv")])
    assert "<img src=x" not in drawn and "&lt;img src=x" in drawn


def test_overlays_are_drawn_in_the_pictures_pixels():
    drawn = html.outline_overlay((8, 6), [np.array([[0, 0], [4, 0], [4, 3]])], [(0, 0, 4, 3)])
    assert 'viewBox="0 0 8 6"' in drawn and "M0 0L4 0L4 3Z" in drawn and 'width="4"' in drawn


# -- the command


def test_a_wrong_call_is_one_line_that_says_what_to_do(folder, capsys):
    assert main(["demo", "--gallery", str(folder / "nowhere")]) == 2
    assert main(["demo", "--gallery", str(folder), "--model", "nope"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "no such folder" in said[0] and "lite0-gem" in said[1] and len(said) == 2


@pytest.mark.parametrize("option", [["--port", "99999"], ["--port", "x"]])
def test_a_wrong_option_is_refused(option, capsys):
    with pytest.raises(SystemExit) as refused:
        main(["demo", *option])
    assert refused.value.code == 2 and "expected" in capsys.readouterr().err
