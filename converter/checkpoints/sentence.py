"""What a sentence-transformers checkpoint does after its transformer: pooling, dense layers, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converter.errors import CheckpointError
from converter.runtime.files import PackageFiles
from converter.runtime.pooling import modes_of
from converter.sentence_modules import embeds

ACTIVATIONS = ("Identity", "Tanh", "GELU", "ReLU")
ORDER = ("Transformer", "Pooling", "Dense", "Normalize")
ALONE = "a copy of the checkpoint without modules.json is converted as its transformer alone"


def read_sentence_head(folder: Path) -> dict[str, Any] | None:
    """The modules after the transformer, as plain values that a config can carry; None where none embeds.

    `{"pooling": ["lasttoken"], "dense": [{"path": "2_Dense", "in": 768, "out": 256, "bias": true, "activation":
    "Tanh"}], "normalize": true}`. Raises CheckpointError for a module that is none of these.
    """
    files = PackageFiles(folder, str(folder), {})
    if not embeds(folder):
        return None
    head: dict[str, Any] = {"pooling": [], "dense": [], "normalize": False}
    kinds = []
    for entry in files.read_json("modules.json"):
        kind, path = str(entry["type"]).rpartition(".")[2], str(entry.get("path", ""))
        kinds.append(kind)
        if kind == "Pooling":
            head["pooling"] = list(modes_of(files.read_object(f"{path}/config.json")))
        elif kind == "Dense":
            head["dense"].append(_dense(files, path))
        elif kind == "Normalize":
            head["normalize"] = True
        elif kind != "Transformer":
            raise CheckpointError(
                f"{folder}/modules.json ends in a module {kind!r}, which cannot become part of a graph",
                remedy=ALONE,
            )
    if head["pooling"]:
        _check_order(kinds, folder)
    return head if head["pooling"] else None


def _check_order(kinds: Sequence[str], folder: Path) -> None:
    """Raise CheckpointError unless modules follow each other as in `ORDER`, one pooling among them."""
    places = [ORDER.index(kind) for kind in kinds]
    if places != sorted(places) or kinds.count("Pooling") > 1:
        raise CheckpointError(
            f"{folder}/modules.json lists {', '.join(kinds)}; a graph computes {', '.join(ORDER)}, in this order",
            remedy=ALONE,
        )


def _dense(files: PackageFiles, path: str) -> dict[str, Any]:
    config = files.read_object(f"{path}/config.json")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise CheckpointError(f"{files.folder / path}: activation {activation!r} is unknown")
    # Later releases of sentence-transformers name what goes in: of tokens, or of texts as ever.
    if (taken := config.get("module_input_name", "sentence_embedding")) != "sentence_embedding":
        raise CheckpointError(
            f"{files.folder / path} takes {taken!r}, and a graph computes it on pooled texts", remedy=ALONE
        )
    return {
        "path": path,
        "in": int(config["in_features"]),
        "out": int(config["out_features"]),
        "bias": bool(config.get("bias", True)),
        "activation": activation,
    }
