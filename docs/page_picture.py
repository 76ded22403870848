"""The picture of the page in the README, taken from the real page.

    python docs/page_picture.py docs/page.webp

Starts the page on the embedded gallery, asks the first two examples, outlines the object in every
hit, and writes what a browser of 1200 × 760 shows as an animated WebP.
"""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
PORT = 7901


def main(target: str) -> None:
    """Write the picture."""
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py"), "--port", str(PORT)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        for line in server.stdout:
            if str(PORT) in line:
                break
        with sync_playwright() as p:
            chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
            browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 760})
            frames = list(scenes(page))
            browser.close()
    finally:
        server.terminate()
    first, *rest = (frame.resize((900, 570), Image.LANCZOS) for frame in frames)
    first.save(target, save_all=True, append_images=rest, duration=2200, loop=0, quality=70)


def scenes(page: Page):
    """Screenshots of what a visitor does."""
    page.goto(f"http://127.0.0.1:{PORT}")
    page.wait_for_selector("#examples .sr-card", timeout=240_000)
    page.click("#examples .sr-card >> nth=0")
    page.wait_for_selector("#hits .sr-card", timeout=120_000)
    yield shot(page)
    page.get_by_role("tab", name="Localise").click()
    page.wait_for_selector("#found .sr-card", timeout=120_000)
    yield shot(page)


def shot(page: Page) -> Image.Image:
    """What is on screen once it is still."""
    time.sleep(2.5)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


if __name__ == "__main__":
    main(sys.argv[1])
