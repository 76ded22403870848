"""The page as tests visit it: pictures to send, and visitors at addresses of their own."""

import io
import json

import httpx
from pictures import draw
from PIL import Image

API = "/gradio_api"


def soft(seed, width=320, height=256):
    return draw(seed, 32, 24).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


class Visitor(httpx.Client):
    """Somebody at an address: the tests' own is a proxy's, which the server believes."""

    def __init__(self, url, address="198.51.100.1", **options):
        headers = {"X-Forwarded-For": address}
        super().__init__(base_url=url, headers=headers, timeout=60, trust_env=False, **options)
        self.session = f"session{address.replace('.', '')}"

    def upload(self, data, name="a.jpg"):
        """Upload a file; its path on the server."""
        answer = self.post(f"{API}/upload", files={"files": (name, data)})
        answer.raise_for_status()
        return answer.json()[0]

    def functions(self):
        return self.get("/config").json()["dependencies"]

    def number_of(self, event):
        """Number of the first function that listens to an event, or to a button's name."""
        return next(d["id"] for d in self.functions() if event in (d["targets"] or [[0, 0]])[0])

    def call(self, number, data, **more):
        """Call a function through the queue; the status, and all that came back."""
        body = {"data": data, "fn_index": number, "session_hash": self.session, **more}
        joined = self.post(f"{API}/queue/join", json=body)
        if joined.status_code != 200:
            return joined.status_code, joined.text
        address = f"{API}/queue/data?session_hash={self.session}"
        text = []
        with self.stream("GET", address) as stream:
            for line in stream.iter_lines():
                text.append(line)
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("msg") == "process_completed":
                    break
        return 200, "\n".join(text)
