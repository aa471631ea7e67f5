"""Arithmetic that a model does in bfloat16 by itself, while all else is float32: onnxruntime has it on GPUs only."""

from __future__ import annotations

import onnx_ir as ir

from converter.recipes import RecipeTensor

BFLOAT16 = ir.DataType.BFLOAT16
# What torch computes in float32 and rounds: the same here, bit by bit.
ARITHMETIC = {
    "Abs",
    "Add",
    "Div",
    "Exp",
    "Log",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Pow",
    "Reciprocal",
    "Sqrt",
    "Sub",
}
COMPARISONS = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}


def widen_bfloat16(model: ir.Model) -> bool:
    """Do bfloat16 arithmetic in float32 and round the result. Graphs with weights in bfloat16 stay as they are."""
    weights = (value.const_value for value in model.graph.initializers.values())
    if any(isinstance(tensor, RecipeTensor) and tensor.dtype == BFLOAT16 for tensor in weights):
        return False
    modified = False
    for node in list(model.graph):
        if node.domain or node.op_type not in ARITHMETIC | COMPARISONS:
            continue
        narrow = [
            place for place, value in enumerate(node.inputs) if value is not None and value.dtype == BFLOAT16
        ]
        if narrow:
            _widen(node, narrow)
            modified = True
    return modified


def _widen(node: ir.Node, narrow: list[int]) -> None:
    """Cast the inputs at these places, and the result back where it was as narrow."""
    assert node.graph is not None
    for place in narrow:
        source = node.inputs[place]
        assert source is not None
        cast = _cast(source, ir.DataType.FLOAT, node)
        node.graph.insert_before(node, cast)
        node.replace_input_with(place, cast.outputs[0])
    result = node.outputs[0]
    if result.dtype == BFLOAT16:
        result.type = ir.TensorType(ir.DataType.FLOAT)
        back = _cast(result, BFLOAT16, node)
        node.graph.insert_after(node, back)
        users = [(user, place) for user, place in result.uses() if user is not back]
        for user, place in users:
            user.replace_input_with(place, back.outputs[0])


def _cast(value: ir.Value, kind: ir.DataType, beside: ir.Node) -> ir.Node:
    cast = ir.node("Cast", [value], {"to": int(kind)})
    cast.metadata_props.update(beside.metadata_props)
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(kind), value.shape
    return cast
