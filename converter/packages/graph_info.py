"""What an .onnx file is like from outside. Its weights are not loaded, wherever they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converter.errors import PackageError
from converter.paths import is_inside, stays_inside

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Value:
    """An input or output: a dimension is a size, the name of an axis, or `?`."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphInfo:
    """One graph file. `initializer_bytes` counts all weights; `data_files` are relative to the file."""

    file: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    opset: int
    ir_version: int
    nodes: int
    initializers: int
    initializer_bytes: int
    data_files: tuple[str, ...]


def read_graph(folder: Path, name: str) -> GraphInfo:
    """Describe `folder/name`. Raises PackageError for a damaged file and for data outside of `folder`."""
    from google.protobuf.message import DecodeError

    from converter.packages.skim import skim

    path = folder / name
    try:
        model, inside = skim(path)
    except (DecodeError, OSError, ValueError, EOFError) as error:
        raise PackageError(f"{path} is not an ONNX file: {error}", remedy="convert again") from error
    if not model.ir_version:
        raise PackageError(f"{path} is empty", remedy="convert again")
    graphs = [model.graph, *_subgraphs(model.graph.node)]
    weights = {tensor.name for tensor in model.graph.initializer}  # older files list them as inputs too
    nodes = [node for graph in graphs for node in graph.node]
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    for function in model.functions:
        inner = [function.node, *(graph.node for graph in _subgraphs(function.node))]
        nodes += [node for group in inner for node in group]
    constants = [attribute.t for node in nodes for attribute in node.attribute if attribute.HasField("t")]
    return GraphInfo(
        file=name,
        inputs=tuple(_value(value) for value in model.graph.input if value.name not in weights),
        outputs=tuple(map(_value, model.graph.output)),
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        ir_version=model.ir_version,
        nodes=len(nodes),
        initializers=len(tensors),
        initializer_bytes=sum(map(tensor_bytes, tensors)),
        data_files=_data_files(
            folder, name, [tensor for tensor in (*tensors, *constants) if tensor.name not in inside]
        ),
    )


def _subgraphs(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield graph
                yield from _subgraphs(graph.node)


def _value(value: onnx.ValueInfoProto) -> Value:
    import onnx

    tensor = value.type.tensor_type
    sizes = tensor.shape.dim
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in sizes)
    return Value(value.name, onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), shape)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor's values."""
    from onnx_ir import DataType

    return math.ceil(math.prod(map(int, tensor.dims)) * DataType(tensor.data_type).itemsize)


def _data_files(folder: Path, name: str, tensors: Sequence[onnx.TensorProto]) -> tuple[str, ...]:
    external = [tensor for tensor in tensors if tensor.data_location == tensor.EXTERNAL]
    locations = {
        entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"
    }
    for location in locations:
        if not is_inside(location) or not stays_inside(folder / Path(name).parent / location, folder):
            raise PackageError(
                f"{folder / name} keeps weights outside the package, in {location!r}; they are not read",
                remedy="do not use this file unless you trust who made it",
            )
    return tuple(sorted(locations))
