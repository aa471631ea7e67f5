"""JSON files of checkpoints and packages, and the paths that an index of shards may name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from converter.errors import CheckpointError
from converter.paths import is_inside

DOWNLOAD_AGAIN = (
    "download the checkpoint again; `converter download MODEL --output DIR` makes a complete copy"
)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that must hold an object. Raises CheckpointError if it does not."""
    content = _read_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object", remedy=DOWNLOAD_AGAIN)
    return content


def object_or_empty(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where the file is absent, unreadable or holds something else."""
    try:
        return read_object(path)
    except CheckpointError:
        return {}


def read_list(path: Path) -> list[Any]:
    """A JSON file that must hold an array. Raises CheckpointError if it does not."""
    content = _read_json(path)
    if not isinstance(content, list):
        raise CheckpointError(f"{path} is not a JSON array", remedy=DOWNLOAD_AGAIN)
    return content


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}", remedy=DOWNLOAD_AGAIN) from error


def read_weight_map(path: Path) -> dict[str, str]:
    """Tensor name -> file name, from an index of shards. A file outside its folder is a CheckpointError."""
    places = read_object(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise CheckpointError(f"{path} has no usable weight_map", remedy=DOWNLOAD_AGAIN)
    for shard in set(places.values()):
        check_inside(shard, path.name)
    return places


def check_inside(name: str, index: str) -> None:
    """Raise CheckpointError for a path that leaves its folder.

    Only its text counts: a hub cache's files are links to blobs.
    """
    if not is_inside(name):
        raise CheckpointError(
            f"{index} names the file {name!r}, which is not inside the checkpoint",
            remedy="do not trust this checkpoint: an index made by transformers never does that",
        )
