"""Any ONNX model with external data in many files: the same model with one data file."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from converter.errors import PackageError, UsageError
from converter.paths import is_inside, stays_inside
from converter.weights.binding import aligned
from converter.weights.hashed_file import HashedFile


@dataclass(frozen=True)
class _Span:
    """Bytes of an external data file."""

    file: Path
    offset: int
    length: int


def merge_data(model_path: Path, output_dir: Path) -> list[Path]:
    """Write `<name>.onnx` and, if it has external data, `<name>.onnx_data`; return the files written.

    All tensors with external data are merged: those of subgraphs, functions and attributes too; bytes that
    several share are written once. Existing targets are refused, and a failure leaves neither file. Memory:
    the model without its external data, and a few blocks. Raises PackageError for a model or data that cannot
    be trusted or read.
    """
    model = _load(model_path)
    target = output_dir / f"{model_path.stem}.onnx"
    data = output_dir / f"{model_path.stem}.onnx_data"
    for path in (target, data):
        if os.path.lexists(path):
            raise UsageError(f"{path} exists already", remedy="choose another --output, or remove it")
    external = [tensor for tensor in _tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    spans = [_span(tensor, model_path) for tensor in external]
    with _all_or_nothing(output_dir, [data, target] if spans else [target]) as temporary:
        if spans:
            offsets = _write_data(dict.fromkeys(spans), temporary[data])
            for tensor, span in zip(external, spans, strict=True):
                _refer(tensor, data.name, offsets[span], span.length)
        with HashedFile(temporary[target]) as file:
            file.write(model.SerializeToString(deterministic=True))
    return [target, data] if spans else [target]


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error.strerror}", remedy="name an .onnx file") from error
    except DecodeError as error:
        raise PackageError(
            f"{path} is not an ONNX model, or it is damaged", remedy="name an .onnx file"
        ) from error


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _attribute_tensors(attribute for node in function.node for attribute in node.attribute)
        yield from _attribute_tensors(function.attribute_proto)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _attribute_tensors(attribute for node in graph.node for attribute in node.attribute)


def _attribute_tensors(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (
            *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
            *attribute.sparse_tensors,
        ):
            yield from (sparse.values, sparse.indices)
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _graph_tensors(graph)


def _span(tensor: onnx.TensorProto, model_path: Path) -> _Span:
    """Where a tensor's data lies, with everything about it checked against the folder and the file."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _inside(entries.get("location", ""), tensor.name, model_path)
    if not file.is_file():
        raise PackageError(
            f"{model_path.name}: tensor {tensor.name!r} has its data in {file.name}, which is missing",
            remedy=f"put it into {file.parent}",
        )
    expected = _nbytes(tensor, model_path)
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or expected)
    except ValueError as error:
        raise PackageError(
            f"{model_path.name}: tensor {tensor.name!r} has a broken reference {entries}"
        ) from error
    if length != expected or offset < 0:
        raise PackageError(
            f"{model_path.name}: tensor {tensor.name!r} takes {expected} bytes, not {length} at {offset}"
        )
    size = file.stat().st_size
    if offset + length > size:
        raise PackageError(
            f"{file.name} ends at byte {size}, tensor {tensor.name!r} at {offset + length}",
            remedy="the data file is incomplete: download it again",
        )
    return _Span(file, offset, length)


def _nbytes(tensor: onnx.TensorProto, model_path: Path) -> int:
    try:
        bits = int(ir.DataType(tensor.data_type).bitwidth)
    except (ValueError, TypeError) as error:
        raise PackageError(f"{model_path.name}: tensor {tensor.name!r} has data of no fixed size") from error
    if any(size < 0 for size in tensor.dims):
        raise PackageError(f"{model_path.name}: tensor {tensor.name!r} has the shape {list(tensor.dims)}")
    return -(-math.prod(map(int, tensor.dims)) * bits // 8)


def _inside(location: str, name: str, model_path: Path) -> Path:
    """The file of a location: in the model's folder, links resolved, or in the blobs of its hub cache."""
    folder = Path.cwd().joinpath(model_path).parent
    file = folder / location
    if not is_inside(location) or not stays_inside(file, folder):
        raise PackageError(
            f"{model_path.name}: tensor {name!r} has its data at {location!r}, outside the model's folder",
            remedy="do not trust this model; if it is your own, put its data beside it",
        )
    return file


def _write_data(spans: Collection[_Span], path: Path) -> dict[_Span, int]:
    offsets: dict[_Span, int] = {}
    with HashedFile(path, expected=sum(span.length for span in spans)) as out:
        for span in spans:
            offsets[span] = aligned(out.position, span.length)
            out.pad_to(offsets[span])
            with span.file.open("rb", buffering=0) as source:
                source.seek(span.offset)
                _copy(source, span.length, out)
    return offsets


def _copy(source: RawIOBase, length: int, out: HashedFile) -> None:
    while length:
        buffer = out.buffer(min(length, out.block_bytes))
        view = buffer.data
        while view and (count := source.readinto(view)):
            view = view[count:]
        out.append(buffer)
        length -= len(buffer)


def _refer(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    checksum = [entry.value for entry in tensor.external_data if entry.key == "checksum"]
    del tensor.external_data[:]
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    for key, value in (*entries.items(), *(("checksum", value) for value in checksum)):
        tensor.external_data.add(key=key, value=value)


@contextmanager
def _all_or_nothing(folder: Path, targets: list[Path]) -> Iterator[dict[Path, Path]]:
    """Gives a temporary name for each target; they get their own names, in order, if all goes well."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = {target: folder / f".{target.name}.partial" for target in targets}
    try:
        yield temporary
        for target in targets:
            temporary[target].replace(target)
    except BaseException:
        for path in temporary.values():
            path.unlink(missing_ok=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()
        raise
