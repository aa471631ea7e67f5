"""transformers.js in headless Chromium, from a page that is served on localhost.

python use_browser.py JOB.json [webgpu]
"""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
TIMEOUT = 300  # seconds
FLAGS = ("--headless=new", "--no-sandbox", "--no-first-run", "--disable-background-networking")
WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")


class Page(SimpleHTTPRequestHandler):
    """The page, the client's own files, the packages and the job; and the place results are posted to."""

    job: dict[str, Any]
    results: queue.Queue[dict[str, Any]]

    def translate_path(self, path: str) -> str:
        path = path.partition("?")[0]
        if path == "/":
            return str(HERE / "browser.html")
        if path.startswith("/packages/"):
            return str(Path(self.job["packages"]) / path.removeprefix("/packages/"))
        return str(HERE / "node" / path.lstrip("/"))

    def do_GET(self) -> None:
        if self.path != "/job.json":
            super().do_GET()
            return
        content = json.dumps(self.job).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.results.put(json.loads(content))

    def end_headers(self) -> None:
        # A page that is isolated from others may use threads.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def browse(job: dict[str, Any], flags: tuple[str, ...]) -> dict[str, Any]:
    """What the page posts once it has run the job."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("there is no Chromium; on Debian: apt-get install chromium")
    results: queue.Queue[dict[str, Any]] = queue.Queue()
    handler = partial(type("Handler", (Page,), {"job": job, "results": results}))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *FLAGS, *flags, f"--user-data-dir={profile}", address]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return results.get(timeout=TIMEOUT)
        except queue.Empty:
            raise SystemExit(f"the page has posted nothing in {TIMEOUT} seconds") from None
        finally:
            process.terminate()
            process.wait()
            server.shutdown()


def version() -> str:
    browser = shutil.which("chromium") or "chromium"
    words = subprocess.run([browser, "--version"], capture_output=True, text=True).stdout.split()
    return next((word for word in words if word[:1].isdigit()), "")


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    gpu = "webgpu" in sys.argv[2:]
    results, used = [], ""
    # A page for each package: after one graph that does not open, onnxruntime-web opens no other in the same page.
    for _, cases in groupby(job["cases"], key=itemgetter("package")):
        page = {**job, "cases": list(cases), "device": "webgpu" if gpu else "wasm"}
        answer = browse(page, WEBGPU if gpu else ())
        if "failure" in answer:
            raise SystemExit(answer["failure"])
        results += answer["results"]
        used = answer["version"]
    print("\n" + json.dumps({"version": f"{used}, Chromium {version()}", "results": results}))


main()
