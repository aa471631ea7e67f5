"""A hub that exists only on this machine: what it holds of one model, and what comes of fetching it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path

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
# What is fetched of it.
FETCHED = {"1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"}
UseEndpoint = Callable[[int], None]
Write = Callable[..., Path]


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


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
