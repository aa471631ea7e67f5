"""A checkpoint folder, opened: its config and an index of where each tensor lies. Nothing is loaded or mapped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from converter.errors import CheckpointError
from converter.pickles import index_pickles, pickle_files, pickle_to_safetensors
from converter.records import Checkpoint, TensorInfo
from converter.tensor_file import read_block, read_header

__all__ = ["open_checkpoint", "pickle_to_safetensors", "read_block"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_DOWNLOAD_AGAIN = "download the checkpoint again; `converter download MODEL --output DIR` makes a complete copy"


def open_checkpoint(
    folder: Path,
    *,
    source: str | None = None,
    revision: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """Read a folder's config.json and the headers of its weight files.

    `source` is what the user called it, for messages and records; the folder's name if left out. Weights are one
    `model.safetensors` or the shards of its index. With `allow_pickle` a `pytorch_model.bin` will do: it is read
    with `weights_only=True`. Raises CheckpointError for whatever is missing, damaged or unsafe.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"no checkpoint at {folder}: {'it is a file' if folder.exists() else 'no such folder'}",
            remedy="name a folder that holds config.json and model.safetensors",
        )
    config = _read_config(folder)
    return Checkpoint(
        folder=folder,
        source=source or folder.resolve().name,
        revision=revision,
        config=config,
        tensors=_index(folder, allow_pickle=allow_pickle),
        trust_remote_code=trust_remote_code,
    )


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no config.json",
            remedy="name the folder of a transformers checkpoint, not one above or below it",
        )
    return _read_object(path)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}", remedy=_DOWNLOAD_AGAIN) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object", remedy=_DOWNLOAD_AGAIN)
    return content


def _index(folder: Path, *, allow_pickle: bool) -> dict[str, TensorInfo]:
    if (folder / SINGLE).is_file():
        return read_header(folder / SINGLE)
    if (folder / INDEX).is_file():
        return _read_shards(folder)
    if pickles := pickle_files(folder):
        if allow_pickle:
            return index_pickles(folder)
        raise CheckpointError(
            f"{folder} has its weights only as a pickle ({pickles[0].name}), a format that can run code when it is loaded",
            remedy="`converter download MODEL --output DIR` turns it into safetensors; --allow-pickle reads it as it is, "
            "tensors only",
        )
    raise CheckpointError(f"{folder} holds no weights: neither {SINGLE} nor {INDEX}", remedy=_advice(folder))


def _advice(folder: Path) -> str:
    """What the folder seems to be instead of a whole checkpoint."""
    if (folder / "adapter_config.json").is_file():
        return "it is an adapter: merge it into its base model first (peft's merge_and_unload), and save that"
    others = [name for name in ("tf_model.h5", "flax_model.msgpack", "model.onnx") if (folder / name).is_file()]
    others += sorted(path.name for path in folder.glob("*.safetensors"))[:3]
    found = f"it has {', '.join(others)}, which transformers does not load as a whole model; " if others else ""
    return found + _DOWNLOAD_AGAIN


def _read_shards(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor that the index names, out of the shard that the index names for it."""
    places = _read_object(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise CheckpointError(f"{folder / INDEX} has no usable weight_map", remedy=_DOWNLOAD_AGAIN)
    headers = {shard: _read_shard(folder, shard, places) for shard in sorted(set(places.values()))}
    absent = [name for name, shard in places.items() if name not in headers[shard]]
    if absent:
        raise CheckpointError(
            f"{places[absent[0]]} lacks tensor {absent[0]!r}, which {INDEX} places in it{_and_more(absent)}",
            remedy=_DOWNLOAD_AGAIN,
        )
    return {name: headers[shard][name] for name, shard in places.items()}


def _read_shard(folder: Path, shard: str, places: Mapping[str, str]) -> dict[str, TensorInfo]:
    check_inside(shard, INDEX)
    path = folder / shard
    if not path.is_file():
        lost = [name for name, place in places.items() if place == shard]
        raise CheckpointError(
            f"{folder} lacks {shard}, which holds {lost[0]!r}{_and_more(lost)}", remedy=_DOWNLOAD_AGAIN
        )
    return read_header(path)


def check_inside(name: str, index: str) -> None:
    """Refuse a path that leaves its folder. Only the text counts: a hub cache's files are links to its blobs."""
    path = PurePosixPath(name)
    if not name or "\\" in name or ":" in name or path.is_absolute() or ".." in path.parts:
        raise CheckpointError(
            f"{index} names the file {name!r}, which is not inside the checkpoint",
            remedy="do not trust this checkpoint: an index made by transformers never does that",
        )


def _and_more(names: Iterable[str]) -> str:
    more = len(list(names)) - 1
    return f" and {more} more" if more else ""
