"""A sentence-transformers folder: modules.json lists the modules, each with a folder, the encoder with the top one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converter.checkpoint import open_checkpoint, read_tensors
from converter.errors import CheckpointError
from converter.records import Checkpoint

# What may follow the encoder, and whether it has weights.
HEADS = {"Pooling": False, "Dense": True, "LayerNorm": True, "Normalize": False, "Dropout": False}


@dataclass(frozen=True)
class Part:
    """One entry of modules.json with its own config.json: `Part("Pooling", "1_Pooling", {"pooling_mode": "mean"})`."""

    kind: str
    path: str
    options: Mapping[str, Any]


def open_folder(folder: Path, allow_pickle: bool) -> Checkpoint | None:
    """The checkpoint in a folder with modules.json; None without one.

    Its tensors are the encoder's under their own names, and those of other modules as `2_Dense/linear.weight`. Its
    config is the encoder's, and under `modules` what modules.json lists. Raises CheckpointError for modules that cannot
    be converted.
    """
    if not (folder / "modules.json").is_file():
        return None
    parts = [_part(folder, entry) for entry in json.loads((folder / "modules.json").read_text())]
    _check(parts, folder)
    encoder = open_checkpoint(folder / parts[0].path, allow_pickle=allow_pickle)
    tensors = dict(encoder.tensors)
    for part in parts[1:]:
        if HEADS[part.kind]:
            found = read_tensors(folder / part.path, allow_pickle=allow_pickle)
            tensors.update({f"{part.path}/{name}": info for name, info in found.items()})
    config = {**encoder.config, "modules": parts}
    return replace(encoder, folder=folder, source=folder.name, config=config, tensors=tensors)


def _part(folder: Path, entry: Mapping[str, Any]) -> Part:
    package, _, kind = entry["type"].rpartition(".")
    path = folder / entry["path"] / "config.json"
    own = package.partition(".")[0] == "sentence_transformers"
    options = json.loads(path.read_text()) if entry["path"] and path.is_file() else {}
    return Part(kind if own else entry["type"], entry["path"], options)


def _check(parts: list[Part], folder: Path) -> None:
    strange = [part.kind for part in parts[1:] if part.kind not in HEADS]
    if not parts or parts[0].kind != "Transformer":
        strange.insert(0, parts[0].kind if parts else "no module")
    if not strange and not any(part.kind == "Pooling" for part in parts):
        strange = ["no Pooling"]
    if strange:
        raise CheckpointError(
            f"{folder.name}: modules.json has {strange[0]}; a Transformer, a Pooling and any of {', '.join(HEADS)} "
            "can be converted",
            remedy="--arch with the encoder's model type converts the encoder alone",
        )
