"""How quick the demo is, and whether it stays so under a crowd: medians, in a table.

    python benchmarks/demo.py            # speed
    python benchmarks/demo.py --crowd    # 100 clients at once, and memory over 1000 requests
    python benchmarks/demo.py --attack   # what docs/security.md promises

Run it once before, so that the gallery is drawn and indexed.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from demo_load import attack, crowd, left

APP = Path(__file__).parents[1] / "app.py"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--crowd", action="store_true")
    parser.add_argument("--attack", action="store_true")
    args = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        seconds, app = start(port, folder)
        url = f"http://127.0.0.1:{port}"
        try:
            if args.crowd:
                crowd(url, app.pid, folder)
            if args.attack:
                attack(url, app.pid, folder)
            if not args.crowd and not args.attack:
                ready = ("page ready after `python app.py`", seconds * 1000, 25_000)
                print_table([*service_times(args.rounds), ready])
                print_table(browser_times(url, args.rounds))
        finally:
            app.terminate()
            app.wait(timeout=30)
        print(f"{left(folder)} files left after the end")


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


def timed(function: Callable[[int], object], rounds: int) -> float:
    """Median milliseconds, after one round that does not count."""
    function(0)
    spent = []
    for i in range(rounds):
        start = time.perf_counter()
        function(i + 1)
        spent.append(1000 * (time.perf_counter() - start))
    return median(spent)


def start(port, folder):
    begun = time.perf_counter()
    app = subprocess.Popen(
        [sys.executable, str(APP), "--port", str(port)],
        env={**os.environ, "TMPDIR": folder},
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
