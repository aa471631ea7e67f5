"""A small hub on this machine, and checkpoints for it to serve."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hub_kit import MODEL, FakeHub, UseEndpoint
from huggingface_hub import constants


@pytest.fixture
def use_endpoint(monkeypatch: pytest.MonkeyPatch) -> UseEndpoint:
    """`use_endpoint(port)`: that port of this machine is the hub."""

    def use(port: int) -> None:
        endpoint = f"http://127.0.0.1:{port}"
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    return use


@pytest.fixture
def fake_hub(use_endpoint: UseEndpoint) -> Iterator[FakeHub]:
    fake = FakeHub(dict(MODEL))

    class Handler(BaseHTTPRequestHandler):
        def respond(self, body: bool) -> None:
            data, headers = fake.answer(self.path.partition("?")[0]) if fake.status == 200 else (b"", {})
            self.send_response(fake.status)
            if fake.error_code:
                headers = {"X-Error-Code": fake.error_code}
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                fake.served.append(self.path)
                self.wfile.write(data)

        def do_GET(self) -> None:
            self.respond(body=True)

        def do_HEAD(self) -> None:
            self.respond(body=False)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test output free of requests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    use_endpoint(server.server_port)
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub(use_endpoint: UseEndpoint) -> None:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        use_endpoint(free.getsockname()[1])


@pytest.fixture
def checkpoint() -> Callable[..., Path]:
    """`checkpoint(folder)`: files as the hub has them, or others, written there."""

    def write(folder: Path, files: dict[str, bytes] = MODEL) -> Path:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder

    return write
