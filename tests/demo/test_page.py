"""The page in a real browser, and its endpoints: what visitors do, and what they should not."""

import base64
import io
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from demo_site import encoded, soft
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytest.importorskip(
    "playwright", reason="the page's tests need playwright: pip install -e '.[dev]'"
)
if CHROMIUM is None:
    pytest.skip("the page's tests need chromium on the path", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("default")  # gradio's own and its server's
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000  # milliseconds; a busy machine is no failure


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser, url):
    """A fresh visit; whatever leaves this machine or goes wrong in the browser fails the test."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(PATIENCE)
    wrong = []
    opened.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda r: None if _local(r.url) else wrong.append(f"asked for {r.url}"))
    opened.goto(url)
    opened.wait_for_selector("#examples .sr-card")
    yield opened
    opened.close()
    assert wrong == []


def _local(address):
    return address.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))


def search_example(page, number=0):
    page.click(f"#examples .sr-card >> nth={number}")
    page.wait_for_selector("#hits .sr-card")


def loaded(page, selector):
    page.wait_for_function(
        "s => { const all = [...document.querySelectorAll(s)];"
        " return all.length && all.every(i => i.complete && i.naturalWidth > 0) }",
        arg=selector,
    )


def canvas_point(page, x, y):
    box = page.locator("#query .sr-canvas").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def choose_model(page, where, title):
    page.click(f"{where} input")
    page.get_by_role("option", name=title, exact=True).click()


def set_number(page, where, value):
    page.fill(f"{where} input[type=number]", str(value))
    page.press(f"{where} input[type=number]", "Enter")


def saved(page, selector):
    with page.expect_download() as waiting:
        page.click(selector)
    return Path(waiting.value.path()).read_bytes()


def drop(page, name, data):
    page.set_input_files(
        "#drop input[type=file]", {"name": name, "mimeType": "image/jpeg", "buffer": data}
    )


def test_search_by_example_then_compare_and_crop(page):
    search_example(page)
    loaded(page, "#hits .sr-card img")
    assert page.locator("#hits .sr-card").count() == 5  # without the query itself
    assert "describe" in page.inner_text("#times")
    assert page.locator("#hits img:not([alt])").count() == 0
    page.click("#hits .sr-card >> nth=1")
    loaded(page, "#slider img")
    before = page.inner_text("#hits")
    page.mouse.move(*canvas_point(page, 0.1, 0.1))
    page.mouse.down()
    page.mouse.move(*canvas_point(page, 0.4, 0.5), steps=4)
    page.mouse.up()
    page.wait_for_function("t => document.querySelector('#hits').innerText !== t", arg=before)
    hits = json.loads(saved(page, "#downloads a >> nth=0"))["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5]
    assert saved(page, "#downloads a >> nth=1").decode().count("\n") == 6


def test_two_models_side_by_side_then_a_hit_is_the_next_query(page):
    search_example(page)
    choose_model(page, "#compare", "Spatial context")
    page.wait_for_selector("#hits-second .sr-card")
    moved = page.locator("#hits-second .sr-small").all_inner_texts()
    assert len(moved) == 5 and all(any(w in m for w in ("▲", "▼", "same rank")) for m in moved)
    assert "GeM:" in page.inner_text("#times")
    page.click("#hits .sr-card >> nth=0")
    page.wait_for_selector("#slider img")
    label = page.inner_text("#hits .sr-title >> nth=0")
    page.click("#use-hit")
    page.wait_for_selector(f"#query img[alt='Query: {label}']")
    page.wait_for_function(
        "t => ![...document.querySelectorAll('#hits .sr-title')].some(e => e.innerText === t)",
        arg=label,
    )


def test_a_rotated_jpeg_is_shown_and_found_upright(page):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = soft(3).transpose(Image.Transpose.ROTATE_90)
    drop(page, "phone.jpg", encoded(turned, quality=95, exif=exif))
    page.wait_for_selector("#hits .sr-card")
    assert page.get_attribute("#query .sr-canvas", "data-w") == "320"
    assert "view 3" in page.inner_text("#hits .sr-card >> nth=0")


def test_clicks_are_all_counted_and_change_the_masks(page):
    search_example(page)
    for i in range(5):  # as fast as they go
        page.mouse.click(*canvas_point(page, 0.1 + 0.18 * i, 0.5))
    assert page.locator("#query g.on").count() == 5
    page.wait_for_selector("#found .sr-card")
    page.get_by_role("tab", name="Localise").wait_for()
    first = page.inner_html("#found")
    page.keyboard.down("Shift")
    page.mouse.click(*canvas_point(page, 0.5, 0.2))
    page.keyboard.up("Shift")
    assert page.locator("#query g.off").count() == 1
    page.wait_for_function("t => document.querySelector('#found').innerHTML !== t", arg=first)
    page.click("text=Heat map")
    loaded(page, "#found .sr-heat")
    page.focus("#query .sr-canvas")
    page.keyboard.press("Backspace")
    assert page.locator("#query g").count() == 5


def test_the_seed_is_found_and_marks_can_be_typed(page):
    search_example(page, 1)
    page.get_by_role("tab", name="Localise").click()
    page.wait_for_selector("#found .sr-card")
    page.click("#find-seed")
    page.wait_for_selector("#query g.on")
    page.click("text=Marks by keyboard")
    set_number(page, "#mark-x", 100)
    set_number(page, "#mark-y", 80)
    page.uncheck("#mark-wanted input")
    page.click("#add-mark")
    page.wait_for_selector("#query g.off[transform^='translate(100 80)']")
    assert page.locator("#query g.on").count() == 1
    page.focus("#query .sr-canvas")
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('#query g')")


def test_the_threshold_decides_what_is_found_and_all_can_be_saved(page):
    search_example(page)
    page.get_by_role("tab", name="Localise").click()
    page.wait_for_selector("#found .sr-card")
    set_number(page, "#threshold", 1)
    page.wait_for_function("() => document.querySelectorAll('#found .sr-nothing').length === 5")
    set_number(page, "#threshold", 0)
    page.wait_for_selector("#found .sr-card:not(.sr-nothing)")
    with zipfile.ZipFile(io.BytesIO(saved(page, "#pack"))) as archive:
        names = archive.namelist()
    assert names[:3] == ["hits.json", "hits.csv", "regions.json"]
    assert names[3:] == [f"overlays/{rank:02d}.jpg" for rank in range(1, 6)]


def test_own_photographs_are_indexed_found_and_deleted(page):
    page.get_by_role("tab", name="Your photographs").click()
    files = [
        {"name": f"mine {i}.jpg", "mimeType": "image/jpeg", "buffer": encoded(soft(40 + i))}
        for i in range(3)
    ]
    files.append({"name": "bad.jpg", "mimeType": "image/jpeg", "buffer": b"no photograph"})
    page.set_input_files("#own-files input[type=file]", files)
    page.wait_for_function("() => document.querySelector('#own-files').innerText.includes('bad')")
    page.click("#own-add")
    page.wait_for_function(
        "() => document.querySelector('#own-report').innerText.includes('3 photo')"
    )
    assert "bad.jpg" in page.inner_text("#own-report")
    drop(page, "again.png", encoded(soft(41), "PNG"))
    page.get_by_role("tab", name="Search").click()
    page.wait_for_selector("#hits .sr-card")
    assert "mine 1" in page.inner_text("#hits .sr-card >> nth=0")
    page.get_by_role("tab", name="Your photographs").click()
    page.click("#own-delete")
    page.wait_for_function(
        "() => document.querySelector('#own-report').innerText.includes('deleted')"
    )


def test_a_broken_upload_gets_a_sentence_and_the_page_lives_on(page):
    drop(page, "notes.jpg", b"this is no photograph")
    toast = page.wait_for_selector(".toast-body")
    assert "Notes.jpg: expected a JPEG, PNG or WebP image" in toast.inner_text()
    search_example(page)


def test_looking_inside_and_whether_reranking_was_needed(page):
    choose_model(page, "#model", "Spatial context, version 1")  # of two heads
    search_example(page)
    inside = page.get_by_role("tab", name="Look inside")
    inside.click()
    page.wait_for_selector("#shares .sr-card")
    assert "(context)" in page.inner_text("#shares")
    page.wait_for_selector("text=weights at row 4, column 5")  # of 8 × 10 cells
    page.mouse.click(*canvas_point(page, 0.01, 0.01))
    page.wait_for_selector("text=weights at row 0, column 0")
    assert inside.get_attribute("aria-selected") == "true"
    page.get_by_role("tab", name="Was re-ranking needed?").click()
    page.wait_for_selector("#communities .js-plotly-plot")
    assert "nats" in page.inner_text("#verdict")
    page.click("#verify")
    page.wait_for_selector("#verified .sr-card")


def test_nothing_is_wider_than_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    search_example(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


# -- forged requests


def test_forged_marks_are_refused_and_the_page_lives_on(page):
    search_example(page)
    page.evaluate(
        """() => {
          const query = document.querySelector('#query .sr-canvas');
          query.dataset.w = query.dataset.h = 1e9;
        }"""
    )
    page.mouse.click(*canvas_point(page, 0.9, 0.9))
    page.wait_for_selector("#found .sr-card")  # localized without that mark
    page.get_by_role("tab", name="Search").click()
    search_example(page, 1)


def forge(url, event, data):
    """Send what no page would to the first listener of an event; returns the last message."""
    import httpx

    config = httpx.get(f"{url}/config", timeout=60).json()
    number = next(d["id"] for d in config["dependencies"] if d["targets"][0][1] == event)
    body = {"data": data, "fn_index": number, "session_hash": "forged", "event_data": {"index": {}}}
    joined = httpx.post(f"{url}/gradio_api/queue/join", json=body, timeout=60)
    assert joined.status_code < 500
    if joined.status_code != 200:
        return {"success": False}
    address = f"{url}/gradio_api/queue/data?session_hash=forged"
    with httpx.stream("GET", address, timeout=60) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line else {}
            if message.get("msg") == "process_completed":
                return message
    return {"success": False}


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("upload", [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]),
        ("upload", [{"path": "/etc/passwd"}]),
        ("upload", ["/etc/passwd"]),
        ("choose", [None]),
    ],
)
def test_forged_requests_reach_no_file_and_break_nothing(url, event, data):
    message = forge(url, event, data)
    output = message.get("output") or {}
    shown = [v for v in output.get("data") or [] if isinstance(v, str)]
    assert not message["success"] or not any("sr-canvas" in v for v in shown)
    assert "root:" not in str(message)


def test_context_layers_are_drawn(tmp_path):
    from spatial_retrieval.demo.inside import look_inside
    from spatial_retrieval.demo.tabs.inside import _refinement, _smoothing
    from spatial_retrieval.models import ModelConfig, build_model

    layers = (("smoothing", {"kernel_size": 3}), ("refinement", {"nodes": 8, "width": 16}))
    model = build_model(ModelConfig(context=layers), pretrained=False).requires_grad_(False)
    soft(0).save(tmp_path / "a.jpg")
    found = look_inside(model, soft(1), tmp_path / "a.jpg", (10, 10))
    figures = [*_smoothing(found)[1:], *_refinement(found)[1:]]
    assert all(figure.visible and figure.value is not None for figure in figures)
    plain = look_inside(
        build_model(ModelConfig(), pretrained=False), soft(1), tmp_path / "a.jpg", (0, 0)
    )
    assert not any(figure.visible for figure in (*_smoothing(plain)[1:], *_refinement(plain)[1:]))
    assert "no smoothing or refinement" in _smoothing(plain)[0]


@pytest.fixture(scope="module")
def client(url):
    from gradio_client import Client

    return Client(url, verbose=False)


def text_of(image):
    return base64.b64encode(encoded(image, quality=95)).decode()


def test_every_button_has_an_endpoint(client):
    about = client.predict(api_name="/about")
    assert about["photographs"] == 6 and "lite0-gem" in about["models"]
    found = client.predict(query=text_of(soft(2)), k=3, api_name="/search")
    assert found["hits"][0]["label"] == "view 2" and found["size"] == [320, 256]
    localized = client.predict(query="0", marks=[[160, 128, 1]], k=2, api_name="/localize")
    assert len(localized["hits"]) == 2
    assert len(client.predict(query="0", api_name="/seed")) == 2
    assert client.predict(query="0", api_name="/inside")["stages"][0] == "backbone"
    assert "uncertainty" in client.predict(query="0", api_name="/needed")
    mine = [text_of(soft(50)), text_of(soft(51))]
    key = client.predict(mine, ["a.jpg", "b.jpg"], api_name="/add_photographs")["photographs"]
    best = client.predict(query=mine[1], photographs=key, api_name="/search")["hits"][0]
    assert best["label"] == "b.jpg"
    assert client.predict(key, api_name="/delete_photographs") == "deleted"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"query": "0", "k": 200_000}, "whole number from 1 to 48"),
        ({"query": "999"}, "the example"),
        ({"query": "/etc/passwd"}, "base64"),
        ({"query": "0", "model": "../../x"}, "the model"),
        ({"query": "0", "photographs": "own-x"}, "no such photographs"),
        ({"query": "0", "box": [0, 0, 0, 0]}, "at least one pixel"),
    ],
)
def test_values_out_of_range_are_refused(client, asked, message):
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=message):
        client.predict(**asked, api_name="/search")


def test_a_crowd_gets_hits_or_a_clear_no(url):
    """Forty visitors at once: some wait, some are told to come back, nobody breaks anything."""
    from concurrent.futures import ThreadPoolExecutor

    from gradio_client import Client

    first = Client(url, verbose=False)

    def visit(number):
        try:
            return len(first.submit(query="0", k=3, api_name="/search").result(timeout=120)["hits"])
        except Exception as error:
            return str(error)

    with ThreadPoolExecutor(40) as pool:
        outcomes = list(pool.map(visit, range(40)))
    told = [outcome for outcome in outcomes if outcome != 3]
    # gradio's own client shows the status of a refused call, not its sentence
    clear = [w for w in map(str, told) if "busy" in w.lower() or "429 Too Many" in w]
    assert len(clear) == len(told), told
    assert len(told) < 40
