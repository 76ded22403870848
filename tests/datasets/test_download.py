import hashlib
import io
import json
import re
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from spatial_retrieval.cli import main
from spatial_retrieval.datasets import download as module
from spatial_retrieval.datasets.download import download, fetch
from spatial_retrieval.datasets.remotes import DATASETS, Remote

BODY = bytes(range(256)) * 1024


class _Site:
    """A small web server that counts what it sends and can hang up early."""

    def __init__(self):
        self.files, self.requests, self.hang_up_after, self.tag = {}, [], None, '"v1"'
        self.weak_server = False

        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.hit(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, name):
        return f"http://127.0.0.1:{self.server.server_address[1]}/{name}"

    def hit(self, handler):
        body = self.files.get(handler.path[1:])
        asked = handler.headers.get("Range")
        self.requests.append((handler.path[1:], asked))
        if body is None:
            handler.send_error(404)
            return
        start = 0
        if asked and handler.headers.get("If-Range") == self.tag:
            start = int(re.match(r"bytes=(\d+)-", asked)[1])
        if start and start >= len(body):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(body) - start))
        if self.tag:
            handler.send_header("ETag", self.tag)
        handler.end_headers()
        handler.wfile.write(body[start:][: self.hang_up_after])


@pytest.fixture
def site():
    site = _Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def _sha(data):
    return hashlib.sha256(data).hexdigest()


def _tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_a_file_comes_with_its_known_sum(site, tmp_path):
    site.files["a.bin"] = BODY
    fetch(Remote("a.bin", (site.url("a.bin"),), _sha(BODY)), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert json.loads((tmp_path / "checksums.json").read_text()) == {"a.bin": _sha(BODY)}
    assert not list(tmp_path.glob(".*part*"))
    fetch(Remote("a.bin", (site.url("a.bin"),), _sha(BODY)), tmp_path)
    assert len(site.requests) == 1


def test_another_sum_is_refused_and_nothing_is_kept(site, tmp_path):
    site.files["a.bin"] = BODY
    with pytest.raises(ValueError, match="its sha256 is not 0000"):
        fetch(Remote("a.bin", (site.url("a.bin"),), "0" * 64), tmp_path)
    assert not (tmp_path / "a.bin").exists()


def test_a_damaged_file_that_is_there_is_fetched_again(site, tmp_path):
    site.files["a.bin"] = BODY
    (tmp_path / "a.bin").write_bytes(BODY[:-1])
    fetch(Remote("a.bin", (site.url("a.bin"),), _sha(BODY)), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_mirrors_are_tried_in_turn(site, tmp_path):
    site.files["good"] = BODY
    site.files["bad"] = b"something else"
    urls = (site.url("gone"), site.url("bad"), site.url("good"))
    fetch(Remote("a.bin", urls, _sha(BODY)), tmp_path)
    assert [name for name, _ in site.requests] == ["gone", "bad", "good"]
    with pytest.raises(OSError, match=r"b\.bin could not be fetched; .*gone: 404"):
        fetch(Remote("b.bin", (site.url("gone"),)), tmp_path)


def test_an_unknown_sum_is_said_and_must_stay_the_same(site, tmp_path):
    site.files["a.bin"] = BODY
    said = []
    remote = Remote("a.bin", (site.url("a.bin"),))
    fetch(remote, tmp_path, say=said.append)
    assert any("trusted on first use" in line and _sha(BODY) in line for line in said)
    (tmp_path / "a.bin").unlink()
    site.files["a.bin"] = BODY + b"changed"
    with pytest.raises(ValueError, match="its sha256 is not"):
        fetch(remote, tmp_path)


def test_an_interrupted_download_goes_on_where_it_stopped(site, tmp_path):
    site.files["a.bin"] = BODY
    site.hang_up_after = 200_000
    remote = Remote("a.bin", (site.url("a.bin"),), _sha(BODY))
    with pytest.raises(OSError, match="could not be fetched"):
        fetch(remote, tmp_path)
    assert not (tmp_path / "a.bin").exists()
    site.hang_up_after = None
    fetch(remote, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    start = int(re.match(r"bytes=(\d+)-", site.requests[1][1])[1])
    assert 0 < start <= 200_000


@pytest.mark.parametrize("tag", ['"v2"', 'W/"v1"', ""])
def test_a_file_that_changed_or_has_no_version_starts_again(site, tmp_path, tag):
    site.files["a.bin"] = BODY
    site.hang_up_after = 200_000
    site.tag = tag if tag != '"v2"' else site.tag
    remote = Remote("a.bin", (site.url("a.bin"),))
    with pytest.raises(OSError, match="could not be fetched"):
        fetch(remote, tmp_path)
    site.hang_up_after, site.tag = None, tag
    site.files["a.bin"] = BODY[::-1]
    fetch(remote, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY[::-1]


def test_a_part_that_is_already_whole_is_fetched_again(site, tmp_path):
    site.files["a.bin"] = BODY
    (tmp_path / ".a.bin.part").write_bytes(BODY)
    note = {"url": site.url("a.bin"), "stamp": '"v1"'}
    (tmp_path / ".a.bin.json").write_text(json.dumps(note))
    fetch(Remote("a.bin", (site.url("a.bin"),), _sha(BODY)), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_images_are_unpacked_flat_and_only_once(site, tmp_path):
    members = {"paris/x/1.jpg": b"one", "2.JPG": b"two", "readme.txt": b"no", "../../3.jpg": b"3"}
    site.files["a.tgz"] = _tar(members)
    remote = Remote("a.tgz", (site.url("a.tgz"),), unpack="flat images", into="jpg")
    folder = tmp_path / "data"
    folder.mkdir()
    for _ in range(2):
        fetch(remote, folder)
    assert sorted(p.name for p in (folder / "jpg").iterdir()) == ["1.jpg", "2.JPG", "3.jpg"]
    assert not (folder / "a.tgz").exists()
    assert len(site.requests) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_a_tree_is_unpacked_as_it_is(site, tmp_path):
    site.files["a.tar"] = _tar({"0/1/a.jpg": b"a", "0/2/b.jpg": b"b"})
    fetch(Remote("a.tar", (site.url("a.tar"),), unpack="tree", into="train"), tmp_path)
    assert (tmp_path / "train/0/1/a.jpg").read_bytes() == b"a"


@pytest.mark.parametrize("name", ["../outside.jpg", "/tmp/outside.jpg"])
def test_an_archive_cannot_write_outside_its_folder(site, tmp_path, name):
    site.files["a.tar"] = _tar({name: b"x"})
    remote = Remote("a.tar", (site.url("a.tar"),), unpack="tree", into="train")
    folder = tmp_path / "data"
    folder.mkdir()
    if name.startswith("/"):  # made relative
        fetch(remote, folder)
        assert (folder / "train/tmp/outside.jpg").exists()
    else:
        with pytest.raises(ValueError, match="no readable archive"):
            fetch(remote, folder)
    assert not (tmp_path / "outside.jpg").exists() and not (folder / "outside.jpg").exists()


def test_a_damaged_archive_says_what_to_do(site, tmp_path):
    site.files["a.tgz"] = b"no archive"
    remote = Remote("a.tgz", (site.url("a.tgz"),), unpack="flat images")
    with pytest.raises(ValueError, match="delete it and run again"):
        fetch(remote, tmp_path)


def test_a_data_set_comes_whole(site, tmp_path, monkeypatch):
    site.files |= {"gnd.pkl": BODY, "images.tgz": _tar({"a.jpg": b"a"}), "labels.rar": b"rar"}
    remotes = (
        Remote("gnd.pkl", (site.url("gnd.pkl"),), _sha(BODY)),
        Remote("images.tgz", (site.url("images.tgz"),), unpack="flat images", into="jpg"),
        Remote("labels.rar", (site.url("labels.rar"),)),
    )
    monkeypatch.setitem(module.DATASETS, "small", remotes)
    said = []
    folder = download("small", tmp_path, say=said.append)
    assert folder == tmp_path / "small"
    assert (folder / "jpg/a.jpg").exists() and (folder / "gnd.pkl").exists()
    assert "unpack it with your own tool" in said[-1]
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path / "cache"))
    assert download("small") == tmp_path / "cache/datasets/small"
    with pytest.raises(ValueError, match="got 'oxford'"):
        download("oxford", tmp_path)


def test_the_command_downloads_and_goes_on_where_it_was(site, tmp_path, monkeypatch, capsys):
    site.files["a.bin"] = BODY
    monkeypatch.setitem(module.DATASETS, "small", (Remote("a.bin", (site.url("a.bin"),)),))
    for _ in range(2):
        assert main(["data", "download", "small", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("trusted on first use") == 1
    assert out.splitlines()[-1] == f"ready: {tmp_path / 'small'}"
    assert len(site.requests) == 1
    assert main(["data", "download", "oxford"]) == 2
    assert "roxford5k" in capsys.readouterr().err
    site.files.clear()
    assert main(["data", "download", "small", "--root", str(tmp_path / "other")]) == 1
    assert "could not be fetched" in capsys.readouterr().err


def test_the_list_of_data_sets_is_sound():
    assert len(DATASETS["revisitop1m"]) == 101
    assert len(DATASETS["gldv2-clean"]) == 501
    for remotes in DATASETS.values():
        assert len({remote.file for remote in remotes}) == len(remotes)
        for remote in remotes:
            assert all(url.endswith(remote.file) for url in remote.urls)
            assert remote.sha256 is None or re.fullmatch("[0-9a-f]{64}", remote.sha256)


@pytest.mark.parametrize("dataset", ["roxford5k", "rparis6k"])
def test_the_known_sums_are_those_of_the_official_files(shared, dataset):
    (remote,) = (r for r in DATASETS[dataset] if r.file.startswith("gnd"))
    assert _sha((shared / "golden" / remote.file).read_bytes()) == remote.sha256


def test_a_flipped_bit_is_noticed_where_nobody_publishes_a_checksum(site, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("a.jpg")
        member.size = len(BODY)
        tar.addfile(member, io.BytesIO(BODY))
    whole = packed.getvalue()
    damaged = bytearray(whole)
    damaged[-6] ^= 4  # in the checksum itself, which comes after everything that tar reads
    remote = Remote("a.tgz", (site.url("a.tgz"),), unpack="tree")
    site.files["a.tgz"] = bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.tgz: arrived damaged .* run again"):
        fetch(remote, tmp_path)
    assert not (tmp_path / "a.jpg").exists() and not (tmp_path / "checksums.json").exists()
    site.files["a.tgz"] = whole
    fetch(remote, tmp_path)
    assert (tmp_path / "a.jpg").read_bytes() == BODY


@pytest.mark.parametrize("text", ["[]", "{", "3"])
def test_wrong_notes_are_one_sentence_or_no_notes(site, tmp_path, text):
    site.files["a.bin"] = BODY
    remote = Remote("a.bin", (site.url("a.bin"),))
    (tmp_path / ".a.json").write_text(text)
    (tmp_path / ".a.bin.part").write_bytes(b"old")
    (tmp_path / ".a.bin.json").write_text(text)
    fetch(remote, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    (tmp_path / "a.bin").unlink()
    (tmp_path / "checksums.json").write_text(text)
    with pytest.raises(ValueError, match=r"checksums\.json: "):
        fetch(remote, tmp_path)
