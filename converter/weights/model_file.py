"""An ONNX file, written as protobuf by hand where it holds weights, so that they are never in memory at once.

A message may have its fields in any order, and a length-delimited field is a tag, a length and that many
bytes: the graph, its initializers and their data are such fields.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftSubgraphInitializersToMainGraphPass

from converter.errors import PackageError, WeightError
from converter.recipes import RecipeTensor, WeightRecipe
from converter.request import Advance
from converter.weights.binding import DataLayout, StoredTensor, append_tensor, initializers, naming
from converter.weights.hashed_file import HashedFile

# A protobuf message ends at 2 GiB - 1; a mebibyte is left to what other tools may add to the graph.
EMBEDDED_LIMIT = 2**31 - 2**20


def write_model(model: ir.Model, path: Path, *, embed: bool, advance: Advance | None = None) -> str:
    """Write a model to one .onnx file and return the file's SHA-256.

    With `embed`, weights that are still recipes are streamed into the file; else there must be none, and what
    lies in a data file is referred to. Memory: the graph without weights, and a few blocks. Recipes of
    subgraphs are lifted into the main graph. The same model gives the same bytes.
    """
    plan = _plan(model)
    if plan.tensors and not embed:
        raise WeightError(
            f"{path.name}: initializer {plan.tensors[0].name!r} has no value yet",
            remedy="write the data file first",
        )
    if plan.size > EMBEDDED_LIMIT:
        raise PackageError(
            f"{path.name} would have {plan.size} bytes: protobuf is limited to 2 GiB",
            remedy="write the weights to a data file (--external-data always)",
        )
    with HashedFile(path) as file:
        file.write(plan.model)
        file.write(_field(onnx.ModelProto.GRAPH_FIELD_NUMBER, plan.graph_size))
        file.write(plan.graph)
        for tensor in plan.tensors:
            file.write(tensor.head)
            with naming(tensor.name):
                append_tensor(file, tensor.recipe, plan.size, advance)
    return file.hexdigest


def embedded_size(model: ir.Model) -> int:
    """Bytes of the file that `write_model(embed=True)` would write."""
    return _plan(model).size


def embedded_layout(model: ir.Model, path: Path) -> DataLayout:
    """Where the weights lie in the file that `write_model(embed=True)` wrote of a model: for `check_data`."""
    plan = _plan(model)
    position = plan.size - plan.graph_size + len(plan.graph)
    stored: list[StoredTensor] = []
    for tensor in plan.tensors:
        position += len(tensor.head)
        stored.append(StoredTensor(tensor.name, tensor.recipe, position))
        position += tensor.recipe.nbytes
    return DataLayout(path, plan.size, "", tuple(stored))


@dataclass(frozen=True)
class _Streamed:
    """An initializer of the graph whose data is written after its `head`, the encoded rest of it."""

    name: str
    head: bytes
    recipe: WeightRecipe


@dataclass(frozen=True)
class _Plan:
    """The encoded parts of a file: the model without its graph, the graph without what is streamed."""

    model: bytes
    graph: bytes
    tensors: tuple[_Streamed, ...]

    @property
    def graph_size(self) -> int:
        return len(self.graph) + sum(len(tensor.head) + tensor.recipe.nbytes for tensor in self.tensors)

    @property
    def size(self) -> int:
        return (
            len(self.model)
            + len(_field(onnx.ModelProto.GRAPH_FIELD_NUMBER, self.graph_size))
            + self.graph_size
        )


def _plan(model: ir.Model) -> _Plan:
    if any(
        isinstance(value.const_value, RecipeTensor)
        for graph in model.graph.subgraphs()
        for value in graph.initializers.values()
    ):
        LiftSubgraphInitializersToMainGraphPass()(model)
    with _without_values(model) as recipes:
        proto = ir.to_proto(model)
    kept: list[onnx.TensorProto] = []
    tensors: list[_Streamed] = []
    for initializer in proto.graph.initializer:
        recipe = recipes.get(initializer.name)
        if recipe is None:
            kept.append(initializer)
        else:
            tensors.append(_Streamed(initializer.name, _head(initializer, recipe.nbytes), recipe))
    graph = onnx.GraphProto()
    graph.CopyFrom(proto.graph)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    proto.ClearField("graph")
    return _Plan(
        proto.SerializeToString(deterministic=True),
        graph.SerializeToString(deterministic=True),
        tuple(tensors),
    )


@contextmanager
def _without_values(model: ir.Model) -> Iterator[dict[str, WeightRecipe]]:
    """Within, recipe initializers refer to nowhere and serialise without data. Gives their recipes."""
    hidden = [
        (value, value.const_value)
        for value in initializers(model)
        if isinstance(value.const_value, RecipeTensor)
    ]
    try:
        for value, tensor in hidden:
            value.const_value = ir.ExternalTensor(
                "", None, None, tensor.dtype, shape=tensor.shape, name=str(value.name)
            )
        yield {str(value.name): tensor.recipe for value, tensor in hidden}
    finally:
        for value, tensor in hidden:
            value.const_value = tensor


def _head(initializer: onnx.TensorProto, nbytes: int) -> bytes:
    """An initializer's field in the graph, up to and without its data."""
    fields = onnx.TensorProto()
    fields.CopyFrom(initializer)
    fields.ClearField("external_data")
    fields.ClearField("data_location")
    body: bytes = fields.SerializeToString(deterministic=True) + _field(
        onnx.TensorProto.RAW_DATA_FIELD_NUMBER, nbytes
    )
    return _field(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, len(body) + nbytes) + body


def _field(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return varint(number << 3 | 2) + varint(length)


def varint(value: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, lowest first; the high bit says that more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
