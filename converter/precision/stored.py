"""The graphs of a finished package, read back: structure in memory, weights as recipes over the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common as common
from google.protobuf.message import DecodeError

from converter.checkpoints.tensor_file import DTYPES
from converter.errors import PackageError
from converter.packages.skim import Span, skim
from converter.paths import is_inside
from converter.recipes import Load, RecipeTensor
from converter.records import ExportedGraph, TensorInfo
from converter.weights.binding import initializers

# The first that lets a weight be no input.
_IR_VERSION = 4
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read_graphs(folder: Path, stems: Sequence[str]) -> tuple[ExportedGraph, ...]:
    """The graphs `<stem>.onnx` of a folder. Weights of a kibibyte and more are recipes that read their file.

    Raises PackageError for a damaged file, and for weights outside of the folder.
    """
    return tuple(ExportedGraph(stem, _read(folder / f"{stem}.onnx")) for stem in stems)


def _read(path: Path) -> ir.Model:
    try:
        proto, spans = skim(path)
        model = ir.from_proto(proto)
    except (OSError, DecodeError, ValueError, EOFError) as error:
        raise PackageError(f"{path} is not an ONNX file: {error}", remedy="convert again") from error
    for value in initializers(model):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = _recipe(value, path, spans)
    _gather_weights(model)
    return model


def _gather_weights(model: ir.Model) -> None:
    """Other exporters leave weights as Constant nodes, within branches, or listed among the inputs (IR 3)."""
    steps = ir.passes.Sequential(
        common.LiftConstantsToInitializersPass(),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.RemoveInitializersFromInputsPass(),
    )
    steps(model)
    model.ir_version = max(model.ir_version, _IR_VERSION)


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
