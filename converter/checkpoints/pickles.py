"""Pickled checkpoints (`pytorch_model.bin`): where their tensors lie, and rewriting them as safetensors.

Only `torch.load(weights_only=True)` ever reads one, and it reads no tensor data: the zip archive that torch
writes keeps each storage uncompressed at a known offset, from where it is read like any checkpoint's.
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from converter.checkpoints.tensor_file import DTYPES, as_bytes, read_block
from converter.errors import CheckpointError
from converter.json_files import DOWNLOAD_AGAIN, read_weight_map
from converter.records import TensorInfo

if TYPE_CHECKING:
    import torch

SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"
_BLOCK = 8 * 2**20  # bytes
_REMEDY = "load it with the library that wrote it, and save it as safetensors"


def pickle_files(folder: Path) -> list[Path]:
    """The pickled weight files of a folder, sorted; where there is an index, those that it names."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        return []
    shards = sorted(set(read_weight_map(folder / INDEX).values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise CheckpointError(f"{folder} lacks {missing[0]}, which {INDEX} names", remedy=DOWNLOAD_AGAIN)
    return [folder / shard for shard in shards]


def index_pickles(folder: Path) -> dict[str, TensorInfo]:
    """Where each tensor of a pickled checkpoint lies in its files. Nothing is loaded.

    Raises CheckpointError for a file that torch's restricted unpickler refuses, and for tensors that do not
    lie in one piece in a file.
    """
    tensors: dict[str, TensorInfo] = {}
    for path in pickle_files(folder):
        tensors |= index_pickle(path)
    return tensors


def index_pickle(path: Path) -> dict[str, TensorInfo]:
    """As `index_pickles`, of one file."""
    placed, loose = _index_file(path)
    if loose:
        raise CheckpointError(
            f"{path.name}: tensor {loose[0]!r} does not lie in one piece in the file",
            remedy="`converter download MODEL --output DIR` rewrites it as safetensors; convert that",
        )
    return placed


def pickle_to_safetensors(folder: Path, target_folder: Path) -> list[Path]:
    """Rewrite a pickled checkpoint as safetensors files, in blocks, and return the files written.

    Each pickle becomes a safetensors file, several of them with an index. A tensor that is stored under
    several names is written under the first; the others are named in the file's metadata. Raises as
    `index_pickles` does, but tensors that do not lie in one piece are loaded and straightened, one file at a
    time.
    """
    target_folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, str] = {}
    written: list[Path] = []
    total = 0
    for path in pickle_files(folder):
        target = target_folder / path.with_suffix(".safetensors").name.replace("pytorch_model", "model", 1)
        sizes = _rewrite(path, target)
        places |= dict.fromkeys(sizes, target.name)
        total += sum(sizes.values())
        written.append(target)
    if len(written) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        written.append(target_folder / "model.safetensors.index.json")
        written[-1].write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return written


def _rewrite(path: Path, target: Path) -> dict[str, int]:
    """One file; returns the bytes of each tensor written, by name."""
    placed, loose = _index_file(path)
    loaded = _load(path, mmap=_is_zip(path)) if loose else {}
    first: dict[tuple[object, ...], str] = {}
    aliases: dict[str, str] = {}
    for name, info in placed.items():
        kept = first.setdefault((info.offset, info.length, info.dtype, info.shape), name)
        if kept != name and info.length:
            aliases[name] = kept
    specs = {name: (info.dtype, info.shape) for name, info in placed.items() if name not in aliases}
    specs |= {name: (_dtype_name(path, name, loaded[name]), tuple(loaded[name].shape)) for name in loose}
    header, sizes = _header(specs, {**aliases, "format": "pt"})
    with target.open("wb") as file:
        file.write(header)
        for name in specs:
            if name in placed:
                _copy(placed[name], file)
            else:
                file.write(_bytes(loaded[name]))
    return sizes


def _header(
    specs: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, int]]:
    sizes = {name: math.prod(shape) * DTYPES[dtype].itemsize for name, (dtype, shape) in specs.items()}
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, (dtype, shape) in specs.items():
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + sizes[name]]}
        end += sizes[name]
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, sizes


def _copy(info: TensorInfo, file: BinaryIO) -> None:
    """Byte for byte, in blocks."""
    raw = as_bytes(info)
    for start in range(0, info.length, _BLOCK):
        file.write(read_block(raw, start, min(start + _BLOCK, info.length)).tobytes())


def _bytes(tensor: torch.Tensor) -> bytes:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _index_file(path: Path) -> tuple[dict[str, TensorInfo], list[str]]:
    """The tensors that lie in one piece in a file, and the names of the others."""
    tensors = _load(path, mmap=False, location="meta")
    stored = _stored_records(path) if _is_zip(path) else {}
    placed: dict[str, TensorInfo] = {}
    loose: list[str] = []
    for name, tensor in tensors.items():
        dtype = _dtype_name(path, name, tensor)
        storage = tensor.untyped_storage()
        start = getattr(storage, "_checkpoint_offset", None)
        if start is None or stored.get(start) != storage.nbytes() or not tensor.is_contiguous():
            loose.append(name)
            continue
        offset = start + tensor.storage_offset() * tensor.element_size()
        length = tensor.numel() * tensor.element_size()
        placed[name] = TensorInfo(name, dtype, tuple(tensor.shape), path, offset, length)
    return placed, loose


def _load(path: Path, *, mmap: bool, location: str = "cpu") -> dict[str, torch.Tensor]:
    import torch

    try:
        content = torch.load(path, map_location=location, weights_only=True, mmap=mmap)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing", remedy="download the checkpoint again") from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{path.name} cannot be read as tensors only: {reason[0] if reason else type(error).__name__}",
            remedy=_REMEDY,
        ) from error
    others = (
        [key for key, value in content.items() if not isinstance(value, torch.Tensor) or value.is_sparse]
        if isinstance(content, dict)
        else [type(content).__name__]
    )
    if others:
        raise CheckpointError(
            f"{path.name} is not a plain table of tensors: it holds {others[0]!r}", remedy=_REMEDY
        )
    return {str(name): tensor.detach() for name, tensor in content.items()}


def _is_zip(path: Path) -> bool:
    return zipfile.is_zipfile(path)


def _stored_records(path: Path) -> dict[int, int]:
    """Offset in the file -> size, for the uncompressed records of a zip archive of little-endian data."""
    found: dict[int, int] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for record in archive.infolist():
            if record.filename.endswith("/byteorder") and archive.read(record) != b"little":
                return {}
            if record.compress_type == zipfile.ZIP_STORED:
                # The local header repeats the name and has extra fields of its own.
                file.seek(record.header_offset + 26)
                name, extra = int.from_bytes(file.read(2), "little"), int.from_bytes(file.read(2), "little")
                found[record.header_offset + 30 + name + extra] = record.file_size
    return found


def _dtype_name(path: Path, name: str, tensor: torch.Tensor) -> str:
    import torch

    names: dict[torch.dtype, str] = {
        torch.bool: "BOOL",
        torch.uint8: "U8",
        torch.int8: "I8",
        torch.int16: "I16",
        torch.int32: "I32",
        torch.int64: "I64",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.float32: "F32",
        torch.float64: "F64",
        torch.complex64: "C64",
        torch.float8_e4m3fn: "F8_E4M3",
        torch.float8_e5m2: "F8_E5M2",
    }
    if tensor.dtype not in names or tensor.is_quantized:
        raise CheckpointError(
            f"{path.name}: tensor {name!r} is {tensor.dtype}, which safetensors cannot hold", remedy=_REMEDY
        )
    return names[tensor.dtype]
