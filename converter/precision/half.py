"""fp16 weights and arithmetic behind an fp32 interface, by conversion of the finished graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.arrays import FLOAT16, FLOAT32
from converter.passes.float_io import float_interface
from converter.precision.exact import keep_exact
from converter.recipes import Cast, RecipeTensor
from converter.weights.binding import initializers

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
_LARGEST = float(np.finfo(np.float16).max)
# Operators of which some inputs stay fp32 by the standard: https://onnx.ai/onnx/operators/
_FLOAT_INPUTS = {"Resize": (1, 2)}


def to_half(model: ir.Model) -> None:
    """Turn the floats in the graph into fp16, and give it back its fp32 inputs and outputs.

    Positions and sums of squares stay in fp32 (`keep_exact`).
    A weight beyond fp16's range is a WeightError when it is written; constants that stand for infinity
    become fp16's largest number.
    """
    exact = keep_exact(model)
    kept = _float_inputs(model, exact)
    for value in initializers(model):
        if value not in kept:
            _halve(value)
    for graph in model.graphs():
        for value in graph.inputs:
            _retype(value)
        for node in graph:
            if node in exact:
                continue
            for name, attribute in node.attributes.items():
                _halve_attribute(node, name, attribute)
            for output in node.outputs:
                _retype(output)
    float_interface(model)


def _float_inputs(model: ir.Model, exact: set[ir.Node]) -> set[ir.Value]:
    found = {value for node in exact for value in node.inputs if value is not None and value.is_initializer()}
    for node in model.graph.all_nodes():
        for index in _FLOAT_INPUTS.get(node.op_type, ()) if node.domain == "" else ():
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is not None:
                found.add(value)
    return found


def _halve(value: ir.Value) -> None:
    tensor = value.const_value
    if isinstance(tensor, RecipeTensor):
        if tensor.recipe.dtype == FLOAT32:
            value.const_value = RecipeTensor(Cast(tensor.recipe, FLOAT16), name=value.name)
    elif tensor is not None and tensor.dtype == _FLOAT:
        value.const_value = _rounded(tensor)
    _retype(value)


def _rounded(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    values = tensor.numpy()
    bounded = np.where(np.isfinite(values), np.clip(values, -_LARGEST, _LARGEST), values)
    return ir.Tensor(bounded.astype(np.float16), name=tensor.name)


def _retype(value: ir.Value) -> None:
    if value.dtype == _FLOAT:
        value.type = ir.TensorType(_HALF)


def _halve_attribute(node: ir.Node, name: str, attribute: ir.Attr) -> None:
    if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == _FLOAT:
        node.attributes[name] = ir.AttrTensor(name, _rounded(attribute.as_tensor()))
    elif name in ("to", "dtype") and attribute.type == ir.AttributeType.INT and attribute.as_int() == _FLOAT:
        node.attributes[name] = ir.AttrInt64(name, int(_HALF))
