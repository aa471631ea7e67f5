"""What stays in fp32 in a graph of halves, as models themselves keep it: positions, and sums of squares.

Halves hold whole numbers up to 2048 and three digits. Angles of later positions would be noise, logarithms of distances
would round to other buckets, and squares of activations beyond 255 would be infinite.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from converter.passes.standard import hidden_weights
from converter.recipes import RecipeTensor

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
_INTEGERS = {ir.DataType.INT64, ir.DataType.INT32}
_LARGEST = float(np.finfo(np.float16).max)
# What turns a mean of squares into a factor; its result is as small as a half can be.
_AFTER_MEAN = {"Add", "Max", "Sqrt", "Reciprocal", "Pow", "Div"}


def keep_exact(model: ir.Model) -> set[ir.Node]:
    """Put Casts around the nodes that stay in fp32. Returns these with their Casts, for nobody to turn into halves."""
    if any(value.dtype is None for node in model.graph.all_nodes() for value in node.outputs):
        with hidden_weights(model):
            common.ShapeInferencePass()(model)
    kept: dict[ir.Node | None, None] = {}
    for graph in model.graphs():
        for node in graph:
            kept.update(dict.fromkeys(_positions(node)))
            kept.update(dict.fromkeys(_squares(node)))
    nodes = [node for node in kept if node is not None]
    around = [cast for node in nodes for cast in _surround(node, kept)]
    return {*nodes, *around}


def _positions(node: ir.Node) -> Iterable[ir.Node]:
    """Of angles, and of floats that become whole numbers: all that makes them, where that is whole numbers again."""
    to = node.attributes.get("to")
    rounds = node.op_type == "Cast" and to is not None and to.as_int() in _INTEGERS
    if node.domain or not (rounds or node.op_type in ("Cos", "Sin")):
        return ()
    found: dict[ir.Node, None] = {node: None}
    waiting = [node]
    while waiting:
        for value in waiting.pop().inputs:
            if value is None or value.dtype not in (_FLOAT, None):
                continue
            made = value.producer()
            if value.dtype is None:
                return ()
            if made is None:
                if not _is_small(value):
                    return ()
            elif any(
                True for name in made.attributes if made.attributes[name].type == ir.AttributeType.GRAPH
            ):
                return ()
            elif made not in found:
                found[made] = None
                waiting.append(made)
    # A Cast of what is no float, or of a constant, has nothing to keep.
    return found if len(found) > 1 else ()


def _is_small(value: ir.Value) -> bool:
    """Whether it is a list of numbers that halves can hold, and neither an input nor a matrix or table."""
    tensor = value.const_value
    if not value.is_initializer() or tensor is None or sum(size != 1 for size in tensor.shape.numpy()) > 1:
        return False
    return isinstance(tensor, RecipeTensor) or bool((np.abs(tensor.numpy()) <= _LARGEST).all())


def _squares(node: ir.Node) -> Iterable[ir.Node]:
    """A mean or sum of squares, and what makes a factor of it."""
    source = node.inputs[0] if node.inputs else None
    square = None if source is None else source.producer()
    if node.op_type not in ("ReduceMean", "ReduceSum") or square is None or not _is_square(square):
        return
    if {value.dtype for value in (square.inputs[0], *square.outputs, *node.outputs) if value} != {_FLOAT}:
        return
    yield square
    yield node
    while len(uses := [use.node for use in node.outputs[0].uses()]) == 1 and uses[0].op_type in _AFTER_MEAN:
        (node,) = uses
        others = [value for value in node.inputs[:2] if value is not None and value.producer() is None]
        if len(node.inputs) > 1 and not others:
            return
        yield node


def _is_square(node: ir.Node) -> bool:
    if node.op_type == "Mul":
        return node.inputs[0] is node.inputs[1]
    power = node.inputs[1].const_value if node.op_type == "Pow" and node.inputs[1] is not None else None
    return power is not None and power.size == 1 and float(power.numpy().item()) == 2


def _surround(node: ir.Node, kept: Collection[ir.Node | None]) -> Iterator[ir.Node]:
    """Give a node that is kept fp32 inputs, and those that are not what they read of it in fp16."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    for index, value in enumerate(node.inputs):
        made = None if value is None else value.producer()
        if value is None or value.dtype != _FLOAT or made in kept:
            continue
        if made is None and value.is_initializer():
            node.replace_input_with(index, _copy(value))
            continue
        cast = _cast(value, _FLOAT, f"{value.name}/exact_{node.outputs[0].name}_{index}")
        graph.insert_before(node, cast)
        node.replace_input_with(index, cast.outputs[0])
        yield cast
    for value in node.outputs:
        readers = [use for use in value.uses() if use.node not in kept]
        if value.dtype == _FLOAT and readers:
            cast = _cast(value, _HALF, f"{value.name}/half")
            graph.insert_after(node, cast)
            for use in readers:
                use.node.replace_input_with(use.idx, cast.outputs[0])
            yield cast


def _copy(value: ir.Value) -> ir.Value:
    """A constant that stays in fp32, beside the one that may be read in fp16."""
    graph, name = value.graph, f"{value.name}/exact"
    assert graph is not None
    if name not in graph.initializers:
        twin = ir.Value(name=name, shape=value.shape, type=value.type, const_value=value.const_value)
        graph.register_initializer(twin)
    return graph.initializers[name]


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": int(to)})
    node.outputs[0].name = name
    node.outputs[0].shape, node.outputs[0].type = value.shape, ir.TensorType(to)
    return node
