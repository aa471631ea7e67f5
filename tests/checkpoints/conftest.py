"""A small hub on this machine, and checkpoints for it to serve."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b"{}",
    "1_Pooling/config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same weights again",
    "tf_model.h5": b"and again",
    "onnx/model.onnx": b"and again",
    "onnx/config.json": b"{}",
}
UseEndpoint = Callable[[int], None]


@dataclass
class FakeHub:
    """What the hub answers: a status with its error code, or the files of one model."""

    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    error_code: str = ""
    served: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[bytes, dict[str, str]]:
        if path.startswith("/api/models/org/name/tree/"):
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            return json.dumps(rows).encode(), {}
        if path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in self.files]
            return json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode(), {}
        name = path.removeprefix(f"/org/name/resolve/{COMMIT}/")
        data = self.files[name]
        return data, {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}


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
