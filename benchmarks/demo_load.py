"""Crowds and attacks on a running demo; see ``benchmarks/demo.py --crowd`` and ``--attack``."""

import base64
import io
import json
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from PIL import Image

API = "/gradio_api"


class Visitor(httpx.Client):
    """A client at an address of its own, which the server believes from 127.0.0.1."""

    def __init__(self, url, number):
        address = f"10.{number // 65536}.{number // 256 % 256}.{number % 256}"
        headers = {"X-Forwarded-For": address}
        super().__init__(base_url=url, headers=headers, timeout=120, trust_env=False)
        self.number = number

    def ask(self, way, name, *data):
        """Call a named endpoint: by "api", by "queue", or "round" it; its status and text."""
        if way == "api":
            return self._stream(self.post(f"{API}/call/{name}", json={"data": data}), name)
        number = next(d["id"] for d in FUNCTIONS if d["api_name"] == name)
        body = {"data": data, "fn_index": number, "session_hash": f"crowd{self.number}"}
        if way == "round":
            reply = self.post(f"{API}/run/{name}", json=body)
            return reply.status_code, reply.text
        return self._stream(self.post(f"{API}/queue/join", json=body), None)

    def _stream(self, joined, name):
        if joined.status_code != 200:
            return joined.status_code, joined.text
        event = joined.json()["event_id"]
        session = f"queue/data?session_hash=crowd{self.number}"
        lines = []
        with self.stream("GET", f"{API}/{f'call/{name}/{event}' if name else session}") as stream:
            for line in stream.iter_lines():
                lines.append(line)
                if "process_completed" in line:
                    break
        return 200, "\n".join(lines)

    def upload(self, data):
        """Upload a file; its path, or nothing."""
        reply = self.post(f"{API}/upload", files={"files": ("a.png", data)})
        return reply.json()[0] if reply.status_code == 200 else ""


FUNCTIONS = []


def look(url):
    """The functions of the running page."""
    with Visitor(url, 0) as visitor:
        FUNCTIONS[:] = visitor.get("/config").json()["dependencies"]


def outcome(status, text):
    if '"hits"' in text or '\\"hits\\"' in text:
        return "served"
    if "busy" in text.lower():
        return "busy"
    refused = status in (400, 403, 404, 413, 429) or '"success":false' in text or "error" in text
    return "refused" if refused and status < 500 else f"failed ({status}): {text[:60]}"


def memory(pid):
    """Resident megabytes (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def crowd(url, pid, folder, requests=1000):
    look(url)
    search = ("search", None, None, "none", 12, None)
    for way in ("api", "queue", "round"):

        def ask(i, way=way):
            with Visitor(url, i + 1) as visitor:
                start = time.perf_counter()
                reply = visitor.ask(way, search[0], str(i % 6), *search[1:])
                return outcome(*reply), time.perf_counter() - start

        with ThreadPoolExecutor(100) as pool:
            found = list(pool.map(ask, range(100)))
        print(
            f"100 clients, {way}: {dict(Counter(kind for kind, _ in found))}, "
            f"slowest {max(seconds for _, seconds in found):.1f} s"
        )

    def steady(i):
        with Visitor(url, i % 5 + 1) as visitor:
            return outcome(*visitor.ask("queue", search[0], str(i % 6), *search[1:]))

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(steady, range(100)))
        before = memory(pid)
        kinds = Counter(pool.map(steady, range(requests)))
    after = memory(pid)
    print(
        f"{requests} requests: {dict(kinds)}; memory {before:.0f} → {after:.0f} MB "
        f"({100 * (after / before - 1):+.1f} %); {left(folder)} files left"
    )


def left(folder):
    return sum(p.is_file() and p.name != "lock" for p in Path(folder).rglob("*"))


def attack(url, pid, folder):
    look(url)
    idle = memory(pid)
    peak = [idle]
    done = threading.Event()

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], memory(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    victim = Visitor(url, 1)
    key = add(victim, 3)
    found = Counter()
    for act in (paths, bombs, large_bodies, evictions):
        start = time.perf_counter()
        kinds = act(url)
        found += kinds
        print(f"{act.__name__}: {dict(kinds)} in {time.perf_counter() - start:.1f} s")
    kept = victim.ask("queue", "search", "0", None, None, "none", 2, key)
    done.set()
    watcher.join()
    print(
        f"somebody else's gallery is {'there' if outcome(*kept) == 'served' else 'GONE'}; "
        f"memory idle {idle:.0f}, peak {peak[0]:.0f} ({peak[0] / idle:.2f}×), "
        f"after {memory(pid):.0f} MB; {left(folder)} files left"
    )
    bad = {kind: n for kind, n in found.items() if kind.startswith(("failed", "READ", "PASSED"))}
    print(f"found: {bad or 'nothing'}")


def kind_of(reply):
    status, text = reply
    return "READ A FILE" if "root:" in text or "sr-canvas" in text else outcome(status, text)


def paths(url):
    with Visitor(url, 9) as other:
        theirs = other.upload(png(64))
    names = ("/etc/passwd", "/dev/zero", "/proc/self/environ", "http://127.0.0.1/", theirs)
    kinds = Counter()
    with Visitor(url, 2) as visitor:
        for path in names:
            for file in ({"path": path}, {"path": path, "meta": {"_type": "gradio.FileData"}}):
                for function in FUNCTIONS:
                    body = {
                        "data": [file] * max(1, len(function["inputs"])),
                        "fn_index": function["id"],
                        "session_hash": "attack",
                    }
                    for way in ("queue/join", f"run/{function['api_name'] or 'predict'}"):
                        reply = visitor.post(f"{API}/{way}", json=body)
                        passed = reply.status_code == 200
                        kinds[
                            "PASSED ON" if passed else kind_of((reply.status_code, reply.text))
                        ] += 1
            reply = visitor.get(f"{API}/file={path}")
            kinds[kind_of((reply.status_code, reply.text))] += 1
    return kinds


def bombs(url):
    """Small files that decode to many pixels, by every way at once."""
    texts = [base64.b64encode(png(side)).decode() for side in (3900, 4100, 6000)] * 4
    ways = ("api", "queue", "round")

    def send(i):
        with Visitor(url, 10 + i) as visitor:
            rest = (None, None, "none", 12, None)
            return kind_of(visitor.ask(ways[i % 3], "search", texts[i], *rest))

    with ThreadPoolExecutor(12) as pool:
        return Counter(pool.map(send, range(12)))


def large_bodies(url):
    kinds = Counter()
    with Visitor(url, 3) as visitor:
        for path in ("/login", f"{API}/queue/join", f"{API}/run/search", f"{API}/upload"):
            body = (bytes(1_000_000) for _ in range(300))
            headers = {"Content-Length": "300000000", "Content-Type": "application/json"}
            try:
                reply = visitor.post(path, content=body, headers=headers)
                kinds[kind_of((reply.status_code, reply.text))] += 1
            except httpx.TransportError:
                kinds["cut off"] += 1
    return kinds


def evictions(url):
    """48 queries and 12 galleries of one visitor."""
    kinds = Counter()
    with Visitor(url, 4) as visitor:
        for i in range(48):
            text = base64.b64encode(png(64, i)).decode()
            kinds[kind_of(visitor.ask("queue", "search", text, None, None, "none", 2, None))] += 1
        for i in range(12):
            kinds["gallery" if add(visitor, 2, i) else "busy"] += 1
    return kinds


def add(visitor, count, seed=0):
    photographs = [base64.b64encode(png(64, 100 + seed + i)).decode() for i in range(count)]
    names = [f"{i}.png" for i in range(count)]
    _, text = visitor.ask("queue", "add_photographs", photographs, names)
    last = next((line for line in text.splitlines() if "process_completed" in line), "data: {}")
    message = json.loads(last.removeprefix("data: "))
    data = (message.get("output") or {}).get("data") or [{}]
    return data[0].get("photographs")


def png(side, grey=0):
    buffer = io.BytesIO()
    Image.new("RGBA", (side, side), (grey % 256, 90, 200, 128)).save(buffer, "PNG")
    return buffer.getvalue()
