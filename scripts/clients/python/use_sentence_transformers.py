"""sentence-transformers' ONNX backend."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from jobs import answer, graph
from sentence_transformers import SentenceTransformer


def run(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    options = {"file_name": f"onnx/{graph('model', case['precision'])}"}
    model = SentenceTransformer(str(folder), backend="onnx", model_kwargs=options, device="cpu")
    return {"values": [float(value) for value in model.encode(case["inputs"]["texts"]).flatten()]}


answer(f"{version('sentence-transformers')}, transformers {version('transformers')}", run)
