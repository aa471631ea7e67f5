"""Graphs of half precision take and give fp32: callers need not know what the graph computes in."""

from __future__ import annotations

import onnx_ir as ir

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def float_interface(model: ir.Model) -> bool:
    """Declare every half-precision graph input and output as fp32, with a Cast on the inside."""
    graph = model.graph
    modified = False
    for index, value in enumerate(list(graph.inputs)):
        if value.dtype in HALVES:
            _cast_input(graph, index, value)
            modified = True
    for index, value in enumerate(list(graph.outputs)):
        if value.dtype in HALVES:
            _cast_output(graph, index, value)
            modified = True
    return modified


def _cast_input(graph: ir.Graph, index: int, inner: ir.Value) -> None:
    """The name stays with the interface; the half-precision value inside gets a new one."""
    half = inner.dtype
    assert half is not None
    outer = ir.Value(name=inner.name, shape=inner.shape, type=ir.TensorType(ir.DataType.FLOAT))
    inner.name = f"{inner.name}_half"
    graph.inputs[index] = outer
    node = ir.node("Cast", [outer], attributes={"to": ir.AttrInt64("to", half)})
    shape = None if inner.shape is None else inner.shape.copy()  # passes rename sizes in place
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(half), shape
    ir.convenience.replace_all_uses_with(inner, node.outputs[0])
    node.outputs[0].name = inner.name
    graph.insert_before(graph[0], node)


def _cast_output(graph: ir.Graph, index: int, inner: ir.Value) -> None:
    name = inner.name
    inner.name = f"{name}_half"
    node = ir.node("Cast", [inner], attributes={"to": ir.AttrInt64("to", ir.DataType.FLOAT)})
    outer = node.outputs[0]
    outer.name, outer.shape, outer.type = name, inner.shape, ir.TensorType(ir.DataType.FLOAT)
    graph.outputs[index] = outer
    graph.append(node)
