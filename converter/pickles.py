"""Checkpoints that are pickles (`pytorch_model.bin`): where their tensors lie, and rewriting them as safetensors.

Only `torch.load(weights_only=True)` ever reads one, and it reads no tensor data: the zip archive that torch writes keeps
each storage uncompressed at a known offset, from where it is read like any checkpoint's.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.errors import CheckpointError
from converter.records import TensorInfo
from converter.tensor_file import read_into, tensor_dtype

if TYPE_CHECKING:
    import torch

SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"
_CHUNK = 8 * 2**20
_REMEDY = "load it with the library that wrote it, and save it as safetensors"


def pickle_files(folder: Path) -> list[Path]:
    """The pickled weight files of a folder in a fixed order; none where there are none."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return sorted(folder.glob("pytorch_model-*-of-*.bin")) or [folder / INDEX]
    return []


def index_pickles(folder: Path) -> dict[str, TensorInfo]:
    """Where each tensor of a pickled checkpoint lies in its files. Nothing is loaded.

    Raises CheckpointError for a file that torch's restricted unpickler refuses, and for tensors that do not lie in one
    piece.
    """
    from converter.checkpoint import check_inside

    tensors: dict[str, TensorInfo] = {}
    for path in pickle_files(folder):
        tensors |= _index_file(path)
    if (folder / INDEX).is_file() and not (folder / SINGLE).is_file():
        places = json.loads((folder / INDEX).read_text(encoding="utf-8")).get("weight_map", {})
        for name, shard in places.items():
            check_inside(shard, INDEX)
            if name not in tensors or tensors[name].file.name != shard:
                raise CheckpointError(f"{folder} lacks {shard} with tensor {name!r}", remedy="download it again")
    return tensors
