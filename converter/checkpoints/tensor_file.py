"""safetensors files, read by position: the header into an index, tensors in pieces, nothing mapped.

Format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes without gaps.
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import ml_dtypes
import numpy as np

from converter.arrays import Array, DType
from converter.errors import CheckpointError
from converter.records import TensorInfo

# safetensors' spelling -> dtype. Formats of less than a byte have no entry: numpy has no packed types.
DTYPES: Mapping[str, DType] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}

_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself
_DOWNLOAD_AGAIN = "the file is incomplete or damaged: download it again"


def tensor_dtype(info: TensorInfo) -> DType:
    """The numpy (or ml_dtypes) dtype of a checkpoint tensor. Raises CheckpointError where there is none."""
    found = DTYPES.get(info.dtype)
    if found is None:
        raise CheckpointError(
            f"{info.file.name}: tensor {info.name!r} is stored as {info.dtype}, which cannot be read here",
            remedy=f"store it as one of {', '.join(DTYPES)}",
        )
    return found


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Index the tensors of a safetensors file by name, in the order of their bytes.

    Raises CheckpointError for a file that is truncated or whose header contradicts itself or the file.
    """
    try:
        size = path.stat().st_size
        header = _header(path, size)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    entries, data_start = _parse(path, header), 8 + len(header)
    infos = [
        _entry(path, name, entry, data_start) for name, entry in entries.items() if name != "__metadata__"
    ]
    infos.sort(key=lambda info: (info.offset, info.length, info.name))
    _check_layout(path, infos, data_start, size)
    tensors = {info.name: info for info in infos}
    # A tensor under several names is stored once; the metadata maps its other names to the stored one.
    for alias, name in _strings(entries.get("__metadata__")).items():
        if name in tensors and alias not in tensors:
            tensors[alias] = replace(tensors[name], name=alias)
    return tensors


def _header(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise CheckpointError(
                f"{path.name}: {size} bytes cannot hold a safetensors header of {length}",
                remedy=_DOWNLOAD_AGAIN,
            )
        return file.read(length)


def _parse(path: Path, header: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
    except ValueError as error:
        raise CheckpointError(
            f"{path.name}: its header is not valid JSON: {error}", remedy=_DOWNLOAD_AGAIN
        ) from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{path.name}: its header is not a JSON object", remedy=_DOWNLOAD_AGAIN)
    return parsed


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"{key!r} occurs twice")
        result[key] = value
    return result


def _entry(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    keys = entry if isinstance(entry, dict) else {}
    dtype, shape, span = keys.get("dtype"), keys.get("shape"), keys.get("data_offsets")
    if (
        not isinstance(dtype, str)
        or not _sizes(shape)
        or not _sizes(span)
        or len(span) != 2
        or span[0] > span[1]
    ):
        raise CheckpointError(
            f"{path.name}: tensor {name!r} has a broken header entry: {str(entry)[:200]}",
            remedy=_DOWNLOAD_AGAIN,
        )
    info = TensorInfo(name, dtype, tuple(shape), path, data_start + span[0], span[1] - span[0])
    known = DTYPES.get(dtype)
    if known is not None and info.length != math.prod(shape) * known.itemsize:
        raise CheckpointError(
            f"{path.name}: tensor {name!r} has {info.length} bytes, {dtype} of shape {info.shape} takes"
            f" {math.prod(shape) * known.itemsize}",
            remedy=_DOWNLOAD_AGAIN,
        )
    return info


def _strings(metadata: Any) -> Mapping[str, str]:
    found = metadata if isinstance(metadata, dict) else {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_layout(path: Path, infos: Iterable[TensorInfo], start: int, size: int) -> None:
    """The tensors must fill the rest of the file, one after the other."""
    end, before = start, "the header"
    for info in infos:
        if info.offset + info.length > size:
            raise CheckpointError(
                f"{path.name}: tensor {info.name!r} ends at {info.offset + info.length}, the file at {size}",
                remedy=_DOWNLOAD_AGAIN,
            )
        if info.offset != end:
            fault = "overlaps" if info.offset < end else "leaves a gap after"
            raise CheckpointError(
                f"{path.name}: tensor {info.name!r} {fault} {before}", remedy=_DOWNLOAD_AGAIN
            )
        end, before = info.offset + info.length, repr(info.name)
    if end != size:
        raise CheckpointError(
            f"{path.name}: {size - end} bytes follow the last tensor", remedy=_DOWNLOAD_AGAIN
        )


def as_bytes(info: TensorInfo) -> TensorInfo:
    """The same bytes as a tensor of U8."""
    return replace(info, dtype="U8", shape=(info.length,))


def read_into(info: TensorInfo, start: int, out: Array) -> None:
    """Fill `out`, C-contiguous and of the tensor's dtype, with its elements from number `start` on."""
    view = out.reshape(-1).view(np.uint8).data
    position = info.offset + start * out.itemsize
    if position + len(view) > info.offset + info.length:
        raise CheckpointError(f"{info.file.name}: tensor {info.name!r} has no element {start + out.size - 1}")
    try:
        with info.file.open("rb", buffering=0) as file:
            file.seek(position)
            while view:
                count = file.readinto(view)
                if not count:
                    raise CheckpointError(
                        f"{info.file.name}: the file ends within tensor {info.name!r}", remedy=_DOWNLOAD_AGAIN
                    )
                view = view[count:]
    except OSError as error:
        raise CheckpointError(f"{info.file}: can no longer be read: {error.strerror}") from error


def read_block(info: TensorInfo, start_row: int, stop_row: int) -> Array:
    """Rows `start_row` to `stop_row` (axis 0) of a checkpoint tensor, as stored. A scalar has one row."""
    shape = info.shape or (1,)
    if not 0 <= start_row <= stop_row <= shape[0]:
        raise CheckpointError(
            f"tensor {info.name!r} of shape {info.shape} has no rows {start_row} to {stop_row}"
        )
    out = np.empty((stop_row - start_row, *shape[1:]), tensor_dtype(info))
    read_into(info, start_row * math.prod(shape[1:]), out)
    return out if info.shape else out.reshape(())
