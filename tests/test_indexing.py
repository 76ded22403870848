import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from pictures import draw

from spatial_retrieval import DescriptorIndex, index_folder
from spatial_retrieval import indexing as module
from spatial_retrieval.features import described
from spatial_retrieval.index import disk
from spatial_retrieval.indexing import IndexOptions
from spatial_retrieval.leftovers import temporary_name
from spatial_retrieval.locks import BusyError, one_writer


@pytest.fixture
def run(gem_model, photographs, tmp_path):
    def run(folder=photographs, target="index", **options):
        return index_folder(
            folder,
            tmp_path / target,
            gem_model,
            model_name="lite0-gem",
            options=IndexOptions(**options),
            progress=False,
        )

    return run


def test_a_folder_becomes_an_index(run, tmp_path):
    report = run()
    assert report.described == 6 and not report.failed
    assert report.index.names[0] == "place0/view 0.jpg" and len(report.index) == 6
    again = DescriptorIndex.load(tmp_path / "index")
    assert np.array_equal(again.descriptors, report.index.descriptors)
    assert again.info["model"] == "lite0-gem" and again.info["size"] == 480
    assert not (tmp_path / "index" / ".partial").exists()


def test_only_new_and_changed_files_are_described_again(run, photographs, tmp_path):
    first = run()
    assert run().described == 0
    draw(50).save(photographs / "new.jpg")
    draw(51).save(photographs / "place0" / "view 2.jpg")
    (photographs / "place1" / "view 1.jpg").unlink()
    report = run()
    assert report.described == 2
    assert report.index.names == (
        "place0/view 0.jpg",
        "place0/view 4.jpg",
        "place1/view 3.jpg",
        "place1/view 5.jpg",
        "new.jpg",
        "place0/view 2.jpg",
    )  # those that stayed, then the new ones
    assert np.array_equal(report.index.descriptors[:4], first.index.descriptors[[0, 2, 4, 5]])
    assert not np.allclose(report.index.descriptors[5], first.index.descriptors[1], atol=1e-3)
    assert (
        len(DescriptorIndex.load(tmp_path / "index").search(first.index.descriptors, 9).ids[0]) == 6
    )


def test_bad_files_are_set_aside_and_stay_known(run, photographs):
    (photographs / "note.jpg").write_text("not a photograph")
    report = run()
    assert len(report.index) == 6 and list(report.failed) == ["note.jpg"]
    assert "another kind of file" in report.failed["note.jpg"]
    again = run()
    assert again.described == 0 and list(again.failed) == ["note.jpg"]


def test_a_folder_of_bad_files_is_an_error(gem_model, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_text("text")
    with pytest.raises(ValueError, match="none of 1 files could be read; the first: .*a.jpg"):
        index_folder(tmp_path / "in", tmp_path / "out", gem_model, model_name="m", progress=False)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_other_settings_are_refused_rather_than_mixed(run):
    run()
    with pytest.raises(ValueError, match="built with model 'lite0-gem' at size 480"):
        run(size=320)


def test_an_interrupted_run_goes_on_where_it_was(run, monkeypatch, gem_model):
    monkeypatch.setattr(module, "_CHUNK", 2)
    describe = described.describe_readable
    calls = []

    def fails_at_the_third_chunk(model, images, **options):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return describe(model, images, **options)

    monkeypatch.setattr(described, "describe_readable", fails_at_the_third_chunk)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(described, "describe_readable", describe)
    assert run().described == 2


def test_a_damaged_shard_is_described_again(run, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(module, "_CHUNK", 3)
    commit = module.commit
    monkeypatch.setattr(module, "commit", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        run()
    monkeypatch.setattr(module, "commit", commit)
    shard = next((tmp_path / "index" / ".partial").rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-40])
    assert run().described == 3
    assert "made again" in caplog.text


KILLED = """
import sys, time
from spatial_retrieval import indexing as folder_index, load_model
from spatial_retrieval.features.store import ShardStore
folder_index._CHUNK = 2
write = ShardStore.put
def slowly(*args):
    write(*args)
    print("shard", flush=True)
    time.sleep(float(sys.argv[3]))
ShardStore.put = slowly
model = load_model("lite0-gem", device="cpu")
folder_index.index_folder(sys.argv[1], sys.argv[2], model, model_name="lite0-gem", progress=False)
"""


def test_kill_9_and_again_gives_the_uninterrupted_result(photographs, tmp_path):
    def start(target, pause):
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, photographs, tmp_path / target, pause],
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    whole = start("whole", "0")
    killed = start("killed", "60")
    assert killed.stdout.readline() == b"shard\n"
    time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    resumed = start("killed", "0")
    lines = resumed.communicate()[0]
    assert whole.wait() == 0 and resumed.returncode == 0
    assert lines.count(b"shard") == 2  # of three: the first survived
    whole.stdout.close()
    killed.stdout.close()
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "killed").iterdir())
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_parts_run_alone_and_joined_equal_the_single_run(run, monkeypatch, tmp_path, photographs):
    monkeypatch.setattr(module, "_CHUNK", 2)
    (photographs / "note.jpg").write_text("not a photograph")
    whole = run(target="whole")
    first, second = (run(target="parts", part=(i, 2)) for i in (0, 1))
    assert first.index is None and first.described == second.described == 3
    assert not (tmp_path / "parts" / "manifest.json").exists()
    joined = run(target="parts")
    assert joined.described == 0 and joined.failed == whole.failed
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "parts").iterdir())
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    with pytest.raises(ValueError, match="0 ≤ i < n, got 2/2"):
        run(part=(2, 2))


def test_adding_leaves_old_segments_alone(run, photographs, tmp_path):
    run()
    (before,) = (tmp_path / "index").glob("segment-*")
    draw(50).save(photographs / "new.jpg")
    run()
    after = set((tmp_path / "index").glob("segment-*"))
    assert before in after and len(after) == 2


def test_many_small_additions_stay_few_files_and_in_order(run, photographs, tmp_path):
    run()
    for i in range(9):
        draw(60 + i).save(photographs / f"z{i}.jpg")
        names = run().index.names
    assert names[6:] == tuple(f"z{i}.jpg" for i in range(9))
    assert len(list((tmp_path / "index").glob("segment-*"))) <= 4
    assert np.allclose(np.linalg.norm(run().index.descriptors, axis=1), 1, atol=1e-5)


def test_dropped_rows_go_in_the_end(run, photographs, tmp_path):
    rows = run().index.descriptors
    (photographs / "place1/view 1.jpg").unlink()
    assert np.array_equal(run().index.descriptors, np.delete(rows, 3, axis=0))
    assert list((tmp_path / "index").glob("chosen-*"))
    (photographs / "place1/view 3.jpg").unlink()
    assert np.array_equal(run().index.descriptors, np.delete(rows, [3, 4], axis=0))
    assert not list((tmp_path / "index").glob("chosen-*"))  # a third was dropped: written anew
    (segment,) = (tmp_path / "index").glob("segment-*")
    assert len(disk.open_shard(segment).arrays["rows"]) == 4


def test_other_content_of_the_same_size_and_time_is_noticed(run, photographs):
    path = photographs / "a.jpg"
    draw(1).save(path, quality=95)
    run()
    status, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    report = run()
    assert report.described + len(report.failed) == 1


def test_a_reason_that_may_pass_is_tried_again(run, photographs, monkeypatch):
    from spatial_retrieval.features import extraction
    from spatial_retrieval.images import ImageError

    load = extraction.load_image

    def locked(source, **options):
        if str(source).endswith("view 0.jpg"):
            raise ImageError(f"{source}: Permission denied", transient=True)
        return load(source, **options)

    monkeypatch.setattr(extraction, "load_image", locked)
    assert list(run().failed) == ["place0/view 0.jpg"]
    monkeypatch.setattr(extraction, "load_image", load)
    again = run()
    assert again.described == 1 and not again.failed and len(again.index) == 6


def test_a_file_that_cannot_be_looked_at_is_tried_each_time(run, photographs, monkeypatch):
    (photographs / "loop.jpg").symlink_to(photographs / "nowhere.jpg")
    assert list(run().failed) == ["loop.jpg"]
    tried = []
    describe = described.describe_readable
    monkeypatch.setattr(
        described,
        "describe_readable",
        lambda model, images, **options: tried.extend(images) or describe(model, images, **options),
    )
    assert list(run().failed) == ["loop.jpg"] and [path.name for path in tried] == ["loop.jpg"]


def test_whatever_one_file_does_the_others_go_on(run, photographs, monkeypatch):
    from spatial_retrieval.features import extraction

    load = extraction.to_tensor

    def breaks(image):
        if image.size == (96, 65):
            raise ZeroDivisionError("odd")
        return load(image)

    draw(3, 96, 65).save(photographs / "odd.png")
    monkeypatch.setattr(extraction, "to_tensor", breaks)
    report = run()
    assert len(report.index) == 6 and "ZeroDivisionError: odd" in report.failed["odd.png"]


def test_a_folder_that_cannot_be_listed_keeps_what_is_known_of_it(run, monkeypatch):
    run()
    scan = module.scan_folder

    def one_is_locked(folder):
        found = scan(folder)
        names = tuple(name for name in found.names if not name.startswith("place1/"))
        return replace(found, names=names, unlistable={"place1": "Permission denied"})

    monkeypatch.setattr(module, "scan_folder", one_is_locked)
    report = run()
    assert len(report.index) == 6
    assert report.notes == ["the folder place1 could not be listed (Permission denied)"]


def test_the_index_of_another_folder_is_not_overwritten(run, photographs, tmp_path):
    run()
    (tmp_path / "other").mkdir()
    draw(9).save(tmp_path / "other" / "b.jpg")
    with pytest.raises(ValueError, match="is the index of .*photographs, not of .*--replace"):
        run(tmp_path / "other")
    assert run(tmp_path / "other", replace=True).index.names == ("b.jpg",)


def test_an_index_of_another_decoding_is_stale(run, monkeypatch):
    run()
    monkeypatch.setattr(module, "DECODING_VERSION", 99)
    with pytest.raises(ValueError, match="decoded by another version.*--replace"):
        run()
    assert run(replace=True).described == 6


def test_a_second_writer_is_told_of_the_first(run, tmp_path):
    with one_writer(tmp_path / "index" / ".writer"), pytest.raises(BusyError, match="is writing"):
        run()
    assert run().described == 6
    assert not (tmp_path / "index" / ".writer").exists()


def test_what_a_dead_writer_left_is_removed(run, tmp_path):
    (tmp_path / "index").mkdir()
    left = (
        tmp_path
        / "index"
        / temporary_name("segment.new").replace(f"-{os.getpid()}-", "-999999999-")
    )
    left.write_bytes(b"half")
    (tmp_path / "index" / "segment.new").write_bytes(b"half")
    run()
    files = sorted(path.name.split("-")[0] for path in (tmp_path / "index").iterdir())
    assert files == ["manifest.json", "segment", "set"]


def test_a_model_folder_is_kept_absolute(gem_model, photographs, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    found = index_folder(photographs, "index", gem_model, model_name="mine", progress=False).index
    assert found.info["model"] == str(tmp_path / "mine")
