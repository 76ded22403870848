import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from pictures import draw

from spatial_retrieval import DescriptorIndex, index_folder
from spatial_retrieval import indexing as module


@pytest.fixture
def run(gem_model, photographs, tmp_path):
    def run(**options):
        return index_folder(
            photographs, tmp_path / "index", gem_model, model_name="lite0-gem", progress=False,
            **options,
        )  # fmt: skip

    return run


def test_a_folder_becomes_an_index(run, tmp_path):
    report = run()
    assert report.described == 6 and not report.failed
    assert report.index.names[0] == "place0/view 0.jpg" and len(report.index) == 6
    again = DescriptorIndex.load(tmp_path / "index")
    assert np.array_equal(again.descriptors, report.index.descriptors)
    assert again.info["model"] == "lite0-gem" and again.info["size"] == 480
    assert not (tmp_path / "index" / ".partial").exists()


def test_only_new_and_changed_files_are_described_again(run, photographs):
    first = run()
    assert run().described == 0
    draw(50).save(photographs / "new.jpg")
    draw(51).save(photographs / "place0" / "view 2.jpg")
    (photographs / "place1" / "view 1.jpg").unlink()
    report = run()
    assert report.described == 2
    assert report.index.names == (
        "new.jpg", "place0/view 0.jpg", "place0/view 2.jpg", "place0/view 4.jpg",
        "place1/view 3.jpg", "place1/view 5.jpg",
    )  # fmt: skip
    kept = report.index.descriptors[1]
    assert np.array_equal(kept, first.index.descriptors[0])
    assert not np.allclose(report.index.descriptors[2], first.index.descriptors[1], atol=1e-3)


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
    monkeypatch.setattr(module, "_SHARD", 2)
    describe = module.describe_readable
    calls = []

    def fails_at_the_third_chunk(model, images, **options):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return describe(model, images, **options)

    monkeypatch.setattr(module, "describe_readable", fails_at_the_third_chunk)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(module, "describe_readable", describe)
    assert run().described == 2


def test_a_damaged_shard_is_described_again(run, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(module, "_SHARD", 3)
    save = DescriptorIndex.save
    monkeypatch.setattr(DescriptorIndex, "save", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        run()
    monkeypatch.setattr(DescriptorIndex, "save", save)
    shard = next((tmp_path / "index" / ".partial").rglob("*.npz"))
    shard.write_bytes(shard.read_bytes()[:-40])
    assert run().described == 3
    assert "described again" in caplog.text


KILLED = """
import sys, time
from spatial_retrieval import indexing as folder_index, load_model
folder_index._SHARD = 2
write = folder_index._write_shard
def slowly(*args):
    write(*args)
    print("shard", flush=True)
    time.sleep(float(sys.argv[3]))
folder_index._write_shard = slowly
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
