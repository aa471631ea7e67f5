"""An .onnx file read without the weights inside of it.

The protobuf fields are walked and large data is skipped, so that a graph costs no more memory than its structure,
wherever its weights are. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from io import BufferedReader
from pathlib import Path

import onnx

EMBEDDED = "embedded"  # where skipped data is said to lie
INLINE = 1024  # bytes from which on data is skipped
Span = tuple[int, int]
_FIXED = {1: 8, 5: 4}  # wire type -> bytes


def skim(path: Path) -> tuple[onnx.ModelProto, dict[str, Span]]:
    """The model, its large initializers marked as external, and where their bytes lie in the file: offset, length.

    Raises OSError, EOFError, ValueError or protobuf's DecodeError for what is no ONNX file.
    """
    with path.open("rb") as file:
        return _without_data(file, path.stat().st_size)


def _without_data(file: BufferedReader, size: int) -> tuple[onnx.ModelProto, dict[str, Span]]:
    """The model with its large initializers marked as external, and where their bytes lie in the file."""
    model, spans = onnx.ModelProto(), dict[str, Span]()
    while file.tell() < size:
        start = file.tell()
        number, wire, length = _tag(file)
        if number == onnx.ModelProto.GRAPH_FIELD_NUMBER and wire == 2:
            model.graph.MergeFrom(_graph(file, file.tell() + length, spans))
        else:
            model.MergeFromString(_raw(start, length, file))
    return model, spans


def _graph(file: BufferedReader, end: int, spans: dict[str, Span]) -> onnx.GraphProto:
    graph = onnx.GraphProto()
    while file.tell() < end:
        start = file.tell()
        number, wire, length = _tag(file)
        if number == onnx.GraphProto.INITIALIZER_FIELD_NUMBER and wire == 2:
            graph.initializer.append(_initializer(file, file.tell() + length, spans))
        else:
            graph.MergeFromString(_raw(start, length, file))
    return graph


def _initializer(file: BufferedReader, end: int, spans: dict[str, Span]) -> onnx.TensorProto:
    tensor, span = onnx.TensorProto(), None
    while file.tell() < end:
        start = file.tell()
        number, wire, length = _tag(file)
        if number == onnx.TensorProto.RAW_DATA_FIELD_NUMBER and wire == 2 and length >= INLINE:
            span = (file.tell(), length)
            file.seek(length, 1)
        else:
            tensor.MergeFromString(_raw(start, length, file))
    if span is not None:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=EMBEDDED)
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


def _raw(start: int, length: int, file: BufferedReader) -> bytes:
    """A whole field that starts there, and whose value of so many bytes comes next."""
    whole = file.tell() - start + length
    file.seek(start)
    field = file.read(whole)
    if len(field) < whole:
        raise EOFError("the file ends too soon")
    return field


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
