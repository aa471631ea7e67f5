"""What a sentence-transformers checkpoint does after its transformer: pooling, dense layers, normalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converter.errors import CheckpointError
from converter.runtime.files import PackageFiles
from converter.runtime.pooling import modes_of

ACTIVATIONS = ("Identity", "Tanh", "GELU", "ReLU")


def read_sentence_head(folder: Path) -> dict[str, Any] | None:
    """The modules after the transformer, as plain values that a config can carry; None where none are listed.

    `{"pooling": ["lasttoken"], "dense": [{"path": "2_Dense", "in": 768, "out": 256, "bias": true, "activation":
    "Tanh"}], "normalize": true}`. Raises CheckpointError for a module that is none of these.
    """
    files = PackageFiles(folder, str(folder), {})
    if not files.has("modules.json"):
        return None
    head: dict[str, Any] = {"pooling": [], "dense": [], "normalize": False}
    for entry in files.read_json("modules.json"):
        kind, path = str(entry["type"]).rpartition(".")[2], str(entry.get("path", ""))
        if kind == "Pooling":
            head["pooling"] = list(modes_of(files.read_object(f"{path}/config.json")))
        elif kind == "Dense":
            head["dense"].append(_dense(files, path))
        elif kind == "Normalize":
            head["normalize"] = True
        elif kind != "Transformer":
            raise CheckpointError(
                f"{folder}/modules.json ends in a module {kind!r}, which cannot become part of a graph",
                remedy="--task names a task without it, such as fill-mask",
            )
    return head if head["pooling"] else None


def _dense(files: PackageFiles, path: str) -> dict[str, Any]:
    config = files.read_object(f"{path}/config.json")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise CheckpointError(f"{files.folder / path}: activation {activation!r} is unknown")
    return {
        "path": path,
        "in": int(config["in_features"]),
        "out": int(config["out_features"]),
        "bias": bool(config.get("bias", True)),
        "activation": activation,
    }
