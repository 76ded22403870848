"""How quick the demo is, and whether it stays so under a crowd: medians, in a table.

    python benchmarks/demo.py            # speed
    python benchmarks/demo.py --crowd    # also 40 clients at once, and memory over 500 requests

Run it once before, so that the gallery is drawn and indexed.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

APP = Path(__file__).parents[1] / "app.py"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--crowd", action="store_true")
    args = parser.parse_args()
    rows = service_times(args.rounds)
    port = free_port()
    seconds, app = start(port)
    rows.append(("page ready after `python app.py`", seconds * 1000, 25_000))
    print_table(rows)
    try:
        rows = browser_times(f"http://127.0.0.1:{port}", args.rounds)
        print_table(rows)
        if args.crowd:
            crowd(f"http://127.0.0.1:{port}", app.pid)
    finally:
        app.terminate()
        app.wait(timeout=30)


def service_times(rounds):
    from spatial_retrieval.demo import gallery
    from spatial_retrieval.demo.models import default_model
    from spatial_retrieval.demo.service import Service

    service = Service(gallery.embedded(), [], default_model())
    service.warm()
    count = len(service.gallery.examples)
    searches = timed(lambda i: service.search(service.queries.open_example(i % count).key), rounds)
    results = service.search(service.queries.open_example(0).key)
    width, height = service.queries[results.query].image.size
    service.localize(results)  # the hits' maps are kept from here on

    def click(i):
        service.localize(results, points=[(width * (0.3 + 0.02 * i), height * 0.5, True)])

    return [
        ("service: example → 12 hits", searches, None),
        ("service: click → masks on 12 hits", timed(click, rounds), 400),
    ]


def browser_times(url, rounds):
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return []
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_selector("#examples .sr-card")
        count = page.locator("#examples .sr-card").count()
        shown = timed(lambda i: choose(page, i % count), rounds)
        marked = timed(lambda i: mark(page, i), rounds)
        browser.close()
    return [
        ("browser: query chosen → hits shown", shown, 1500),
        ("browser: click → masks shown", marked, None),
    ]


def choose(page, number):
    page.click(f"#examples .sr-card >> nth={number}")
    wait_for_new(page, "#hits")


def mark(page, number):
    box = page.locator("#query .sr-canvas").bounding_box()
    x, y = 0.2 + 0.61 * number % 0.6, 0.2 + 0.37 * number % 0.6
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    wait_for_new(page, "#found")


def wait_for_new(page, selector):
    """Until the hits, or the times above equal ones, are new and all pictures are there."""
    page.wait_for_function(
        """s => {
          const grid = document.querySelector(s + ' .sr-grid');
          if (!grid) return false;
          const parts = [grid, ...document.querySelectorAll('.sr-times')];
          if (parts.every(part => part.dataset.seen)) return false;
          const all = [...grid.querySelectorAll('img')];
          if (!all.length || !all.every(i => i.complete)) return false;
          parts.forEach(part => { part.dataset.seen = '1'; });
          return true;
        }""",
        arg=selector,
    )


def crowd(url, pid):
    from gradio_client import Client

    client = Client(url, verbose=False)
    outcomes = flood(client, 40, 40)
    answered = sum(outcome == "served" for outcome in outcomes)
    busy = sum("queue" in outcome.lower() for outcome in outcomes)
    print(
        f"\n40 clients at once: {answered} answered, {busy} told that the queue is full, "
        f"{40 - answered - busy} failed"
    )
    flood(client, 50, 5)
    before = memory(pid)
    outcomes = flood(client, 500, 5)
    answered = sum(outcome == "served" for outcome in outcomes)
    print(f"500 requests: {answered} answered; memory {before:.0f} → {memory(pid):.0f} MB")


def flood(client, requests, at_once):
    def ask(i):
        try:
            client.submit(query=str(i % 6), k=12, api_name="/search").result(timeout=600)
        except Exception as error:
            return str(error) or type(error).__name__
        return "served"

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(ask, range(requests)))


def memory(pid):
    """Resident megabytes (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def timed(function: Callable[[int], object], rounds: int) -> float:
    """Median milliseconds, after one round that does not count."""
    function(0)
    spent = []
    for i in range(rounds):
        start = time.perf_counter()
        function(i + 1)
        spent.append(1000 * (time.perf_counter() - start))
    return median(spent)


def start(port):
    begun = time.perf_counter()
    app = subprocess.Popen(
        [sys.executable, str(APP), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    opener = build_opener(ProxyHandler({}))
    while app.poll() is None:
        try:
            opener.open(f"http://127.0.0.1:{port}", timeout=60).read()
            return time.perf_counter() - begun, app
        except (URLError, OSError):
            time.sleep(0.2)
    raise SystemExit("the demo did not start; run python app.py to see why")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def print_table(rows):
    print(f"{'':42s} {'median ms':>10s} {'goal':>8s}")
    for name, ms, goal in rows:
        print(f"{name:42s} {ms:10.1f} {'' if goal is None else f'≤ {goal}':>8s}")


if __name__ == "__main__":
    main()
