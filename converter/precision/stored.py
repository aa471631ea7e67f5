"""The graphs of a finished package, read back: structure in memory, weights as recipes over the files.

Of a file that embeds its weights the protobuf fields are walked and the data skipped, so that a graph costs no
more memory than its structure, wherever its weights are.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from converter.checkpoints.tensor_file import DTYPES
from converter.errors import PackageError
from converter.paths import is_inside
from converter.recipes import Load, RecipeTensor
from converter.records import ExportedGraph, TensorInfo
from converter.weights.binding import INLINE, initializers
from converter.weights.model_file import varint

Span = tuple[int, int]
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_FIXED = {1: 8, 5: 4}  # wire type -> bytes


def read_graphs(folder: Path, stems: Sequence[str]) -> tuple[ExportedGraph, ...]:
    """The graphs `<stem>.onnx` of a folder. Weights of a kibibyte and more are recipes that read their file.

    Raises PackageError for a damaged file, and for weights outside of the folder.
    """
    return tuple(ExportedGraph(stem, _read(folder / f"{stem}.onnx")) for stem in stems)


def _read(path: Path) -> ir.Model:
    try:
        with path.open("rb") as file:
            proto, spans = _without_data(file, path.stat().st_size)
        model = ir.from_proto(proto)
    except (OSError, DecodeError, ValueError, EOFError) as error:
        raise PackageError(f"{path} is not an ONNX file: {error}", remedy="convert again") from error
    for value in initializers(model):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = _recipe(value, path, spans)
    return model


def _recipe(value: ir.Value, path: Path, spans: Mapping[str, Span]) -> RecipeTensor:
    tensor = value.const_value
    assert isinstance(tensor, ir.ExternalTensor)
    name = str(value.name)
    dtype = tensor.dtype.numpy()
    if tensor.dtype.bitwidth % 8 or dtype not in _NAMES:
        raise PackageError(f"{path.name}: initializer {name!r} is {tensor.dtype}, which is quantized already")
    shape = tuple(tensor.shape.numpy())
    file, span = path, spans.get(name)
    if span is None:
        file = _inside(path, str(tensor.location))
        span = (tensor.offset or 0, tensor.length or tensor.nbytes)
    return RecipeTensor(Load(TensorInfo(name, _NAMES[dtype], shape, file, *span)), name=name)


def _inside(path: Path, location: str) -> Path:
    if not is_inside(location):
        raise PackageError(f"{path} keeps weights outside the package, in {location!r}; they are not read")
    return path.parent / location


def _without_data(file: BufferedReader, size: int) -> tuple[onnx.ModelProto, dict[str, Span]]:
    """The model with its large initializers marked as external, and where their bytes lie in the file."""
    model, spans = onnx.ModelProto(), dict[str, Span]()
    while file.tell() < size:
        number, wire, length = _tag(file)
        if number == onnx.ModelProto.GRAPH_FIELD_NUMBER and wire == 2:
            model.graph.MergeFrom(_graph(file, file.tell() + length, spans))
        else:
            model.MergeFromString(_raw(number, wire, length, file))
    return model, spans


def _graph(file: BufferedReader, end: int, spans: dict[str, Span]) -> onnx.GraphProto:
    graph = onnx.GraphProto()
    while file.tell() < end:
        number, wire, length = _tag(file)
        if number == onnx.GraphProto.INITIALIZER_FIELD_NUMBER and wire == 2:
            graph.initializer.append(_initializer(file, file.tell() + length, spans))
        else:
            graph.MergeFromString(_raw(number, wire, length, file))
    return graph


def _initializer(file: BufferedReader, end: int, spans: dict[str, Span]) -> onnx.TensorProto:
    tensor, span = onnx.TensorProto(), None
    while file.tell() < end:
        number, wire, length = _tag(file)
        if number == onnx.TensorProto.RAW_DATA_FIELD_NUMBER and wire == 2 and length >= INLINE:
            span = (file.tell(), length)
            file.seek(length, 1)
        else:
            tensor.MergeFromString(_raw(number, wire, length, file))
    if span is not None:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="embedded")
        spans[tensor.name] = span
    return tensor


def _tag(file: BufferedReader) -> tuple[int, int, int]:
    """Number and wire type of the next field, and the bytes of its value."""
    key = _read_varint(file)
    number, wire = key >> 3, key & 7
    if wire == 2:
        return number, wire, _read_varint(file)
    if wire == 0:
        start = file.tell()
        _read_varint(file)
        length = file.tell() - start
        file.seek(start)
        return number, wire, length
    if wire not in _FIXED:
        raise ValueError(f"field {number} has the unknown wire type {wire}")
    return number, wire, _FIXED[wire]


def _raw(number: int, wire: int, length: int, file: BufferedReader) -> bytes:
    """A whole field, encoded again."""
    body = file.read(length)
    if len(body) < length:
        raise EOFError("the file ends too soon")
    head = varint(number << 3 | wire)
    return head + (varint(length) if wire == 2 else b"") + body


def _read_varint(file: BufferedReader) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise EOFError("the file ends too soon")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
