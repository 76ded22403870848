"""A public link: what visitors may not reach, may not use up, and cannot take from each other."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from demo_site import API, Visitor, encoded, soft
from PIL import Image

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.gallery import from_folder
from spatial_retrieval.demo.line import Line, TurnError
from spatial_retrieval.demo.service import Service
from spatial_retrieval.demo.store import Store
from spatial_retrieval.demo.uploads import Upload, Uploads
from spatial_retrieval.demo.visitor import visiting
from spatial_retrieval.demo.workspace import Workspace

pytestmark = pytest.mark.filterwarnings("default")  # gradio's own and its server's


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "gallery").mkdir()
    for i in range(4):
        soft(i).save(tmp_path / "gallery" / f"view {i}.jpg")
    return tmp_path / "gallery"


@pytest.fixture
def service(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_CACHE", str(tmp_path / "cache"))
    return Service(from_folder(folder), [], "lite0-gem", workspace=Workspace(tmp_path))


@pytest.fixture
def visitor(url):
    with Visitor(url) as visitor:
        yield visitor


# -- paths


def hostile_paths(visitor, service):
    """What a browser may name: the server's files, devices, links, addresses, another's upload."""
    with Visitor(str(visitor.base_url), "198.51.100.77") as other:
        theirs = other.upload(encoded(soft(70)))
    secret = service.workspace.folder / "secret.jpg"
    secret.write_bytes(encoded(soft(71)))
    link = service.workspace.uploads / "link.jpg"
    link.unlink(missing_ok=True)
    link.symlink_to(secret)
    inside = f"{service.workspace.uploads}/../secret.jpg"
    return [
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/environ",
        str(secret),
        str(link),
        inside,
        theirs,
        "http://127.0.0.1:1/a.jpg",
        "file:///etc/passwd",
        str(service.workspace.uploads),
    ]


def test_no_function_takes_a_path_that_is_no_upload_of_this_visitor(site, visitor):
    service = site[1]
    functions = visitor.functions()
    assert len(functions) > 30
    for path in hostile_paths(visitor, service):
        for meta in ({}, {"meta": {"_type": "gradio.FileData"}}):
            file = {"path": path, **meta}
            for function in functions:
                for data in (file, [file], {"a": {"b": file}}):
                    body = {
                        "fn_index": function["id"],
                        "data": [data] * len(function["inputs"]) or [data],
                        "session_hash": visitor.session,
                    }
                    ways = ["queue/join", f"run/{function['api_name'] or 'predict'}"]
                    if data is file:
                        ways += [f"{w}/{function['api_name']}" for w in ("call", "call/v2", "api")]
                    for way in ways:
                        answer = visitor.post(f"{API}/{way}", json=body)
                        assert answer.status_code in (400, 404), (way, body, answer.text)
                if meta or path != "/etc/passwd":
                    break  # every function once, every path at the first one
    assert service.uploads.waiting("198.51.100.77") > 0  # and it is still theirs


def test_a_path_as_plain_text_opens_nothing(visitor):
    for function in visitor.functions():
        status, text = visitor.call(function["id"], ["/etc/passwd"] * len(function["inputs"]))
        assert status in (200, 400) and "root:" not in text and "sr-canvas" not in text


def test_files_are_served_to_those_who_sent_them(site, visitor):
    service = site[1]
    mine = visitor.upload(encoded(soft(72)))
    assert visitor.get(f"{API}/file={mine}").status_code == 200
    for path in hostile_paths(visitor, service):
        assert visitor.get(f"{API}/file={path}").status_code in (403, 404), path


def test_an_upload_that_goes_while_it_is_shown_is_no_fault(tmp_path, monkeypatch):
    """The page asks for the picture of an upload that a search uses at the same moment."""
    uploads = Uploads(tmp_path)
    path = tmp_path / "a" / "photograph.jpg"
    path.parent.mkdir()
    path.write_bytes(b"picture")
    with visiting("me"):
        uploads.note([str(path)])
        assert uploads.shown(str(path)) == b"picture"
        read = uploads._bytes

        def used_meanwhile(name):
            uploads.discard([{"path": name}])
            return read(name)

        monkeypatch.setattr(uploads, "_bytes", used_meanwhile)
        assert uploads.shown(str(path)) is None and not path.exists()
        assert uploads.shown(str(path)) is None  # and later
    with visiting("somebody else"), pytest.raises(ValueError, match="no photograph that you"):
        uploads.shown(str(path))


def test_a_used_upload_is_served_as_nothing(site, visitor):
    path = visitor.upload(encoded(soft(74)))
    shown = visitor.get(f"{API}/file={path}")
    assert shown.content == Path(path).read_bytes()
    assert shown.headers["content-type"] == "image/jpeg"
    with visiting("198.51.100.1"):
        site[1].uploads.discard([{"path": path}])
    assert visitor.get(f"{API}/file={path}").status_code == 204


def test_an_upload_is_used_once(site, visitor):
    service = site[1]
    path = visitor.upload(encoded(soft(3)))
    status, text = visitor.call(visitor.number_of("upload"), [{"path": path, "orig_name": "a.jpg"}])
    assert status == 200 and "sr-canvas" in text
    assert not Path(path).exists()
    assert str(service.workspace.folder) not in text


def test_only_regular_files_are_read_and_only_to_the_limit(tmp_path, monkeypatch):
    uploads = Uploads(tmp_path)
    (tmp_path / "outside").mkdir()
    uploads.folder = tmp_path / "uploads"
    uploads.folder.mkdir()
    paths = {name: uploads.folder / name for name in ("big", "link", "pipe", "folder", "up")}
    monkeypatch.setattr(limits, "MAX_UPLOAD_BYTES", 10)
    paths["big"].write_bytes(bytes(1000))
    paths["link"].symlink_to(paths["big"])
    paths["folder"].mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(paths["pipe"])
    paths["up"] = uploads.folder / ".." / "outside"
    with visiting("ada"):
        uploads.note(map(str, paths.values()))
        assert len(uploads.find({"path": str(paths["big"])}).read()) == 11
        for name in ("link", "pipe", "folder", "up"):
            with pytest.raises(ValueError, match="no photograph that you uploaded"):
                uploads.find({"path": str(paths[name])}).read()
    with visiting("bob"), pytest.raises(ValueError, match="no photograph that you uploaded"):
        uploads.find({"path": str(paths["big"])})


# -- bounds


def test_there_is_no_way_round_the_queue(visitor):
    for function in visitor.functions():
        body = {"data": [None] * len(function["inputs"]), "fn_index": function["id"]}
        answer = visitor.post(f"{API}/run/{function['api_name'] or 'predict'}", json=body)
        assert answer.status_code == 404 if function["queue"] else answer.status_code < 500


@pytest.mark.parametrize(
    "path",
    [
        "/monitoring",
        "/monitoring/summary",
        f"{API}/deep_link",
        f"{API}/proxy=http://a.b/",
        f"{API}/file=http://a.b/c.jpg",
        f"{API}/stream/a/b/c/playlist.m3u8",
        f"{API}/runs",
        f"{API}/dev/reload",
        f"{API}/vibe-code",
        "/docs",
        "/openapi.json",
        "/gradio",
    ],
)
def test_what_the_page_does_not_use_is_not_there(visitor, path):
    assert visitor.get(path).status_code in (403, 404)


@pytest.mark.parametrize("path", ["component_server", "process_recording", "vibe-edit", "stream/a"])
def test_nothing_else_can_be_sent(visitor, path):
    assert visitor.post(f"{API}/{path}", json={}).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"fn_index": 10000, "data": []}',
        b'{"fn_index": "0"}',
        b'{"session_hash": 7}',
        b'{"fn_index": true, "data": []}',
        b'{"data": 1, "fn_index": 0, "session_hash": "a"}',
        b"\xff\xfe",
    ],
)
def test_malformed_calls_are_refused(visitor, body):
    for way in ("queue/join", "run/predict", "call/search", "call/v2/search", "cancel"):
        headers = {"Content-Type": "application/json"}
        answer = visitor.post(f"{API}/{way}", content=body, headers=headers)
        assert answer.status_code in (200, 400, 404, 411, 413, 422), (way, answer.text)


def unread(url, path, length, **headers):
    """The status for a request whose body never comes."""
    import http.client

    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", path)
    fields = {"Content-Type": "application/json", **headers, "Content-Length": str(length)}
    for name, value in fields.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    return connection.getresponse().status


@pytest.mark.parametrize("path", ["/login", f"{API}/queue/join", f"{API}/run/x", f"{API}/upload"])
def test_a_large_body_is_refused_before_it_is_read(url, path):
    kind = "multipart/form-data; boundary=x" if "upload" in path else "application/json"
    assert unread(url, path, 500_000_000, Content_Type=kind) == 413


def test_a_visitor_cannot_fill_the_disk(site, monkeypatch):
    url = site[0]
    monkeypatch.setattr(limits, "MAX_VISITOR_UPLOADS", 10_000)
    with Visitor(url, "203.0.113.9") as greedy, Visitor(url, "203.0.113.10") as other:
        greedy.upload(bytes(6000), "a.jpg")
        sent = greedy.post(f"{API}/upload", files={"files": ("b.jpg", bytes(6001))})
        assert sent.status_code == 413 and "use them first" in sent.text
        other.upload(bytes(6000), "c.jpg")
    monkeypatch.setattr(limits, "MAX_ALL_UPLOADS", 10_000)
    with Visitor(url, "203.0.113.11") as third:
        sent = third.post(f"{API}/upload", files={"files": ("b.jpg", bytes(6002))})
        assert sent.status_code == 429 and "busy" in sent.text


def test_a_slow_upload_is_cut_off():
    from spatial_retrieval.demo.messages import UploadMessages

    async def never():
        await asyncio.sleep(60)

    async def cut():
        upload = UploadMessages(never, None, 100)
        upload._end = asyncio.get_running_loop().time() + 0.05
        return await upload.receive(), upload.late

    assert asyncio.run(cut()) == ({"type": "http.disconnect"}, True)


def test_an_upload_longer_than_declared_is_cut_off():
    from spatial_retrieval.demo.messages import UploadMessages

    async def more():
        return {"type": "http.request", "body": bytes(60), "more_body": True}

    async def cut():
        upload = UploadMessages(more, None, 100)
        return [(await upload.receive())["type"] for _ in range(2)]

    assert asyncio.run(cut()) == ["http.request", "http.disconnect"]


def test_one_step_at_a_time_and_a_sentence_when_the_line_is_full(service):
    service.line = service.queries._line = Line(2, each=1, seconds=0.1)
    begun, end = threading.Event(), threading.Event()

    def work():
        with service.line.turn(), service.line.turn():  # a thread that has the turn has it
            begun.set()
            end.wait(10)

    worker = threading.Thread(target=work)
    worker.start()
    begun.wait(10)
    start = time.monotonic()
    with pytest.raises(TurnError, match="takes long; try again in a moment"):
        service.queries.open_example(0)
    assert time.monotonic() - start < 5
    waiting = [threading.Thread(target=_quietly, args=(service, name)) for name in ("ada", "bob")]
    service.line._seconds = 5
    for thread in waiting:
        thread.start()
    while len(service.line._waiting) < 2:
        time.sleep(0.01)
    with visiting("eve"), pytest.raises(TurnError, match="2 are waiting"):
        service.queries.open_example(0)
    end.set()
    for thread in (worker, *waiting):
        thread.join(10)
    assert service.search(service.queries.open_example(0).key).hits


def _quietly(service, name):
    with visiting(name):
        service.queries.open_example(1)


def test_one_visitor_has_only_a_part_of_the_line():
    line = Line(10, each=1, seconds=5)
    line._working = -1
    with visiting("ada"):
        waiting = threading.Thread(target=lambda: _wait(line, "ada"))
        waiting.start()
        while not line._waiting:
            time.sleep(0.01)
        with pytest.raises(TurnError, match="busy"), line.turn():
            pass
    line._leave()
    waiting.join(10)


def _wait(line, name):
    with visiting(name), line.turn():
        pass


def test_what_one_visitor_keeps_takes_nothing_from_another():
    kept = Store(6, each=4)
    with visiting("ada"):
        kept.put("hers", 1)
    with visiting("eve"):
        for i in range(48):
            kept.put(f"eve {i}", i)
    assert kept.get("hers") == 1 and len(kept) == 5 and kept.why("eve 0") == "room"
    for i in range(48):
        with visiting(f"eve {i % 2}"):
            kept.put(f"again {i}", i)
    assert kept.get("hers") == 1 and len(kept) == 6


def test_queries_and_galleries_of_one_visitor_leave_those_of_others(service):
    with visiting("ada"):
        query = service.queries.open(soft(50, 40, 30))
        gallery, _ = service.add_photographs([Upload("a.jpg", encoded(soft(51, 40, 30)))])
    with visiting("eve"):
        for i in range(48):
            service.queries.open(soft(100 + i, 40, 30))
        for i in range(12):
            service.add_photographs([Upload("a.jpg", encoded(soft(200 + i, 40, 30)))])
    assert service.queries[query.key] is query
    assert service.search(query.key, gallery=gallery.key).hits[0].label == "a.jpg"
    assert len(service.queries) <= 1 + limits.QUERIES_EACH
    assert len(service.sessions) == 1 + limits.SESSIONS_EACH


def test_a_small_file_that_becomes_large_is_refused_before_it_does(service):
    bomb = encoded(Image.new("RGB", (6000, 6000)), "PNG")
    assert len(bomb) < 500_000
    with pytest.raises(ValueError, match="more than the limit of 16 megapixels"):
        service.queries.open(Upload("bomb.png", bomb))
    large = encoded(Image.new("RGB", (6000, 6000)))
    assert service.queries.open(Upload("large.jpg", large)).image.size == (1024, 1024)


# -- deleted


def test_deleted_means_deleted(service):
    with visiting("ada"):
        uploads = [Upload(f"{i}.jpg", encoded(soft(60 + i))) for i in range(3)]
        gallery, _ = service.add_photographs(uploads)
        query = service.queries.open_example(0, gallery.key)
        results = service.search(query.key, gallery=gallery.key, rerank="verify")
        service.localize(results, layer="pooled")
        pair = service.pair(results, 1)
        kept = service.shelf._private, service.localizer._maps, service.pictures._kept
        assert pair[0].exists() and all(len(store) for store in kept)
        service.forget(gallery.key)
    assert not gallery.folder.exists() and not pair[0].parent.exists()
    assert [len(store) for store in kept] == [0, 0, 0]
    with pytest.raises(ValueError, match="deleted with the photographs"):
        service.queries[query.key]
    with pytest.raises(ValueError, match="deleted, as you asked"):
        service.gallery_of(gallery.key)


def test_what_waits_too_long_is_deleted_by_the_clock(service):
    path = service.workspace.uploads / "x" / "a.jpg"
    path.parent.mkdir()
    path.write_bytes(b"x")
    broken = service.workspace.uploads / "tmp1"
    broken.write_bytes(b"x")
    with visiting("ada"):
        service.uploads.note([str(path)])
        service.sweep()
        assert path.exists()
        for file in (path, broken):
            os.utime(file, (0, 0))
        service.sweep()
        assert not path.parent.exists() and not broken.exists()
        assert not service.uploads.owned(str(path))
    assert service.workspace.uploads.is_dir()


def test_what_a_dead_process_left_is_removed_at_the_next_start(tmp_path):
    code = (
        "import os, sys; from spatial_retrieval.demo.workspace import Workspace; "
        "w = Workspace(sys.argv[1]); (w.galleries / 'a').write_text('x'); "
        "print(w.folder, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    left = Path(done.stdout.decode().strip())
    assert (left / "galleries" / "a").exists()
    alive = Workspace(tmp_path)
    assert not left.exists()
    second = Workspace(tmp_path)
    assert alive.folder.is_dir()
    second.close()
    assert not second.folder.exists()
    assert alive.folder.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_sigterm_ends_it_like_ctrl_c_and_a_damaged_photograph_does_not_prevent_the_start(
    folder, tmp_path
):
    (folder / "view 0.jpg").write_bytes(b"damaged")
    command = [sys.executable, "app.py", "--gallery", str(folder)]
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "GRADIO_SERVER_PORT": "0",
        "SPATIAL_RETRIEVAL_CACHE": str(tmp_path / "cache"),
    }
    app = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    line = app.stdout.readline()
    assert "Running on local URL" in line
    with Visitor(line.split()[-1]) as visitor:
        assert "sr-card" in visitor.get("/config").text
    assert list(tmp_path.glob("spatial-retrieval-demo-*"))
    app.send_signal(signal.SIGTERM)
    _, errors = app.communicate(timeout=60)
    assert "interrupted" in errors and app.returncode == 1
    assert not list(tmp_path.glob("spatial-retrieval-demo-*"))


# -- leaks


def test_a_photograph_that_vanished_is_an_empty_tile(service, folder):
    results = service.search(service.queries.open_example(0).key)
    gone = results.hits[0]
    (folder / gone.name).unlink()
    picture = Image.open(BytesIO(service.pictures.photograph(service.gallery, gone.name)))
    assert len(set(picture.convert("L").tobytes())) == 1
    assert len(service.localize(results).found) == len(results.hits)
    assert service.inside(results, rank=1).similarity <= 1
    assert service.verified(results).inliers[gone.name] == 0
    assert service.search(results.query, rerank="verify").hits
    with pytest.raises(ValueError, match="cannot be read any more") as refused:
        service.queries.open_hit(results, 1)
    assert str(folder) not in str(refused.value)
    with zipfile.ZipFile(BytesIO(service.bundle(results))) as archive:
        texts = [archive.read(name) for name in archive.namelist()]
    assert not any(str(folder).encode() in text for text in texts)


def test_messages_name_no_file_of_the_server():
    from spatial_retrieval.demo.components import sentence

    said = sentence(ValueError("/home/ada/photos/a b.jpg: cannot be read (No such file)"))
    assert said == "A file: cannot be read (No such file)."
    assert sentence(ValueError(r"C:\Users\ada\x.jpg: damaged")) == "A file: damaged."
    assert sentence(ValueError("160×128 / 2 and/or 1/2 of a.jpg")) == (
        "160×128 / 2 and/or 1/2 of a.jpg."
    )


def test_the_page_names_no_folder_of_the_server(site, visitor):
    service = site[1]
    known = (
        str(service.gallery.folder),
        str(service.workspace.folder),
        str(Path.home()),
        os.getcwd(),
    )
    for path in ("/", "/config", f"{API}/info", "/theme.css", "/manifest.json"):
        text = visitor.get(path).text
        assert not [name for name in known if name in text], path


# -- passwords and headers


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    from spatial_retrieval.demo.accounts import Accounts
    from spatial_retrieval.demo.server import build_app, running

    service = Service(None, [], "lite0-gem")
    accounts = Accounts({"ada": "secret:word"}, delay=0.01)
    hosts = ["127.0.0.1", "demo.example.org"]
    with running(build_app(service, accounts=accounts, hosts=hosts)) as address:
        yield address


def test_nothing_is_read_before_the_password(closed):
    assert unread(closed, f"{API}/queue/join", 1_000_000) == 401
    assert unread(closed, f"{API}/upload", 1_000_000) == 401
    with Visitor(closed) as visitor:
        for path in ("/config", f"{API}/info", f"{API}/queue/status", f"{API}/heartbeat/a"):
            assert visitor.get(path).status_code == 401
        right = {"username": "ada", "password": "secret:word"}
        assert visitor.post("/login", data={**right, "password": "x"}).status_code == 400
        assert visitor.post("/login", data=right).status_code == 200
        assert visitor.get("/config").status_code == 200
        assert visitor.upload(b"x")


def test_guessing_passwords_is_slow(closed):
    with Visitor(closed, "203.0.113.50") as visitor:
        wrong = {"username": "ada", "password": "x"}
        tries = [visitor.post("/login", data=wrong).status_code for _ in range(7)]
        assert tries[:5] == [400] * 5 and tries[-1] == 429


def test_accounts_are_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
    from spatial_retrieval.demo.accounts import VARIABLE, Accounts

    file = tmp_path / "accounts"
    file.write_text("# who\nada:a:b\n\nbob:c\n")
    accounts = Accounts.read(file)
    accounts._delay = 0
    pairs = [("ada", "a:b"), ("bob", "c"), ("bob", "a:b"), ("eve", ""), ("", "")]
    assert [asyncio.run(accounts.check(*pair)) for pair in pairs] == [True, True, *[False] * 3]
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Accounts.read(None) is None
    monkeypatch.setenv(VARIABLE, "ada:x")
    assert asyncio.run(Accounts.read(None).check("ada", "x"))
    file.write_text("topsecret")
    with pytest.raises(ValueError, match="expected lines USER:PASSWORD") as refused:
        Accounts.read(file)
    assert "topsecret" not in str(refused.value)
    with pytest.raises(ValueError, match="cannot be read"):
        Accounts.read(tmp_path / "nowhere")


def test_headers_and_foreign_origins(visitor):
    evil = {"Origin": "https://evil.example", "Host": "demo.example.org"}
    ask = {**evil, "Access-Control-Request-Method": "POST"}
    answers = [
        visitor.get("/", headers=evil),
        visitor.get("/config", headers=evil),
        visitor.get("/nothing", headers=evil),
        visitor.options(f"{API}/queue/join", headers=ask),
    ]
    for answer in answers:
        assert "evil" not in json.dumps(dict(answer.headers))
        assert "access-control-allow-credentials" not in answer.headers
    for answer in answers[:3]:
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'self' https://huggingface.co" in policy
        assert "x-frame-options" not in answer.headers


def test_only_known_host_names_are_answered(closed):
    with Visitor(closed) as visitor:
        assert visitor.get("/", headers={"Host": "demo.example.org"}).status_code == 200
        assert visitor.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_a_page_that_is_gone_leaves_nothing_in_gradio(site):
    url = site[0]
    with Visitor(url, "203.0.113.60") as visitor:
        names = {d["api_name"]: d["id"] for d in visitor.functions()}
        for i in range(210):
            visitor.session = f"forged{i}"
            body = {"data": [], "fn_index": names["about"], "session_hash": visitor.session}
            assert visitor.post(f"{API}/queue/join", json=body).status_code == 200
        for _ in range(30):
            last = visitor.post(f"{API}/queue/join", json=body)
        assert last.status_code == 429 and re.search("busy", last.text)
