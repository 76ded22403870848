import errno
import json
import os
import subprocess
import sys
import threading

import pytest

from spatial_retrieval.files import (
    atomic_writer,
    cache_dir,
    printable,
    read_json,
    read_regular,
    write_json,
)
from spatial_retrieval.leftovers import remove_leftovers, scratch_folder, temporary_name
from spatial_retrieval.locks import BusyError, one_writer

KILLED = """
import os, signal, sys
from spatial_retrieval.files import atomic_writer
from spatial_retrieval.leftovers import scratch_folder
from spatial_retrieval.locks import one_writer
with one_writer(sys.argv[1] + "/lock"), scratch_folder(sys.argv[1]) as scratch:
    with atomic_writer(sys.argv[1] + "/a.bin") as file, atomic_writer(scratch / "b") as other:
        file.write(b"half")
        if sys.argv[2] == "wait":
            print("writing", flush=True)
            sys.stdin.read()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(folder, mode="kill", **options):
    return subprocess.Popen([sys.executable, "-c", KILLED, str(folder), mode], **options)


def test_a_dead_writers_files_go_and_a_living_ones_stay(tmp_path):
    killed(tmp_path).wait()
    dead = set(os.listdir(tmp_path)) - {"lock"}
    assert len(dead) == 2
    with killed(tmp_path, "wait", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
        living.stdout.readline()
        with atomic_writer(tmp_path / "mine") as file:
            file.write(b"1")
            assert remove_leftovers(tmp_path) == 2
        left = set(os.listdir(tmp_path)) - {"lock", "mine"}
        assert len(left) == 2 and not left & dead
        living.kill()
    assert remove_leftovers(tmp_path) == 2
    assert sorted(os.listdir(tmp_path)) == ["lock", "mine"]
    with one_writer(tmp_path / "lock"):
        pass
    assert os.listdir(tmp_path) == ["mine"]


def test_leftovers_in_sub_folders_and_of_another_process_with_the_same_number(tmp_path):
    name = temporary_name("x")
    marks = name.split(".")[2].split("-")
    reused = ".x." + "-".join([marks[0], marks[1], str(int(marks[2]) + 1), marks[3]]) + ".part"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / reused).touch()
    (tmp_path / "a" / ".x.part").touch()
    (tmp_path / "a" / name).touch()
    assert remove_leftovers(tmp_path) == 0
    assert remove_leftovers(tmp_path, recursive=True) == 1
    assert sorted(os.listdir(tmp_path / "a")) == sorted([".x.part", name])
    assert remove_leftovers(tmp_path / "none") == 0


def test_the_longest_and_oddest_names_can_be_written(tmp_path):
    for name in ("n" * 255, "ä" * 127, "a\nb", os.fsdecode(b"\xff\xfe")):
        with atomic_writer(tmp_path / name) as file:
            file.write(b"1")
        assert (tmp_path / name).read_bytes() == b"1"
    assert len(os.listdir(tmp_path)) == 4


def test_a_scratch_folder_goes_with_its_block(tmp_path):
    with scratch_folder(tmp_path) as folder:
        (folder / "file").touch()
        assert os.listdir(tmp_path) == [folder.name]
    assert not os.listdir(tmp_path)


def test_a_full_disk_names_the_path_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="file") as caught, atomic_writer(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    with atomic_writer(link) as file:
        file.write(b"gone")
    assert link.is_symlink()


def test_a_second_writer_is_told_who_is_at_work_or_waits(tmp_path):
    path = tmp_path / "index" / ".lock"
    with one_writer(path):
        with pytest.raises(BusyError, match=f"process {os.getpid()} is writing"), one_writer(path):
            pass
        held = threading.Event()

        def second():
            with one_writer(path, wait=20):
                held.set()

        thread = threading.Thread(target=second)
        thread.start()
        assert not held.wait(0.3)
    thread.join()
    assert held.is_set() and not os.listdir(path.parent)


def test_json_keeps_names_that_are_no_utf_8(tmp_path):
    value = {os.fsdecode(b"caf\xe9.jpg"): "ä\n"}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_bytes()) == value
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("text", [b"[1]", b"{", b"\xff", b"[" * 200_000, b"null", b"1e999", b""])
def test_wrong_json_is_one_sentence(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"a\.json: (expected a dict|no readable JSON)"):
        read_json(path)


def test_reads_are_bounded(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(5000))
    assert len(read_regular(path, 5000)) == 5000
    with pytest.raises(ValueError, match="5000 bytes are more than the limit of 4999"):
        read_regular(path, 4999)
    assert len(read_regular(path, 10, looks_right=lambda head: False)) == 4096


def test_the_home_folder_is_expanded_in_the_cache_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", "~/caches")
    assert cache_dir() == tmp_path / "caches"
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", "~nobody-at-all/x")
    with pytest.raises(ValueError, match="SPATIAL_RETRIEVAL_CACHE"):
        cache_dir()


def test_printable_names_stay_on_one_line():
    assert printable("Zürich 3.jpg") == "Zürich 3.jpg"
    assert printable("a\nb\x1b[2J\udcff") == r"a\nb\x1b[2J\udcff"
