"""When two pieces of graph are the same but for the names of their values."""

from __future__ import annotations

import ast
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from converter.passes.strip_metadata import SCOPES
from converter.recipes import RecipeTensor

EXACT = (ir.AttributeType.INT, ir.AttributeType.INTS, ir.AttributeType.STRING, ir.AttributeType.STRINGS)


def same_tensor(left: ir.TensorProtocol | None, right: ir.TensorProtocol | None) -> bool:
    """Equal recipes, or equal dtype, shape and bits."""
    if left is None or right is None:
        return left is right
    if isinstance(left, RecipeTensor) and isinstance(right, RecipeTensor):
        return left.recipe == right.recipe
    if isinstance(left, RecipeTensor) or isinstance(right, RecipeTensor):
        return False
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def same_attributes(left: Mapping[str, ir.Attr], right: Mapping[str, ir.Attr]) -> bool:
    """Equal names, types and values. Attributes that hold graphs count as different."""
    return left.keys() == right.keys() and all(_same_attribute(left[name], right[name]) for name in left)


def _same_attribute(left: ir.Attr, right: ir.Attr) -> bool:
    if left.type != right.type or left.ref_attr_name != right.ref_attr_name:
        return False
    if left.type == ir.AttributeType.TENSOR:
        return same_tensor(left.as_tensor(), right.as_tensor())
    if left.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS):
        return np.array_equal(left.value, right.value, equal_nan=True)
    return left.type in EXACT and bool(left.value == right.value)


def same_operator(left: ir.Node, right: ir.Node) -> bool:
    """Equal operator, attributes and numbers of inputs and outputs."""
    return (
        left.op_identifier() == right.op_identifier()
        and len(left.inputs) == len(right.inputs)
        and len(left.outputs) == len(right.outputs)
        and same_attributes(left.attributes, right.attributes)
    )


def module_scopes(node: ir.Node) -> tuple[str, ...]:
    """Paths of the modules that were running when the node was traced, outermost first."""
    scopes = node.metadata_props.get(SCOPES)
    return tuple(ast.literal_eval(scopes)[:-1]) if scopes else ()


def same_graph(left: ir.Model, right: ir.Model) -> list[str]:
    """Differences between two models, walked node by node; empty when they differ in names of values only.

    Names of graph inputs and outputs count, and so do recipes, constants and module scopes. The order of nodes that do
    not depend on each other does not.
    """
    one, two = left.graph, right.graph
    differences = _interface(one, two)
    pairs: dict[ir.Value, ir.Value] = dict(zip(one.inputs, two.inputs, strict=False))
    for index, (first, second) in enumerate(zip(one, _in_order_of(one, two), strict=False)):
        where = f"node {index} ({first.op_type} {first.name}, {second.op_type} {second.name})"
        if not same_operator(first, second):
            return [*differences, f"{where}: operators or attributes differ"]
        if module_scopes(first) != module_scopes(second):
            differences.append(f"{where}: scopes {module_scopes(first)} and {module_scopes(second)}")
        for a, b in zip(first.inputs, second.inputs, strict=True):
            if not _paired(a, b, pairs):
                differences.append(f"{where}: takes {a.name if a else None} and {b.name if b else None}")
        pairs.update(zip(first.outputs, second.outputs, strict=True))
    if len(one) != len(two):
        differences.append(f"{len(one)} nodes and {len(two)}")
    if len(set(pairs.values())) != len(pairs):
        differences.append("values are shared in one graph that are not shared in the other")
    for a, b in zip(one.outputs, two.outputs, strict=False):
        if not _paired(a, b, pairs):
            differences.append(f"output {a.name} is computed differently")
    return differences


def _in_order_of(one: ir.Graph, two: ir.Graph) -> list[ir.Node]:
    """The nodes of `two` in the order in which `one` computes the same, or as they are where the two do not match."""
    alike: dict[int, list[ir.Node]] = {}
    for node, key in _keys(two):
        alike.setdefault(key, []).append(node)
    try:
        ordered = [alike[key].pop(0) for _, key in _keys(one)]
    except (KeyError, IndexError):
        return list(two)
    return ordered if len(ordered) == len(two) else list(two)


def _keys(graph: ir.Graph) -> list[tuple[ir.Node, int]]:
    """Each node with a number that is equal for nodes that compute the same from the inputs, by operators alone."""
    known: dict[ir.Value | None, object] = {value: value.name for value in graph.inputs}
    keys = []
    for node in graph:
        inputs = tuple(known.get(value, value is None) for value in node.inputs)
        own = "|".join(
            sorted(
                f"{name}={attribute.value}"
                for name, attribute in node.attributes.items()
                if attribute.type in EXACT
            )
        )
        key = hash((node.op_identifier(), inputs, own, module_scopes(node)))
        known.update({value: (key, place) for place, value in enumerate(node.outputs)})
        keys.append((node, key))
    return keys


def _paired(a: ir.Value | None, b: ir.Value | None, pairs: dict[ir.Value, ir.Value]) -> bool:
    """Whether the two stand for each other; initializers are paired when they are first met."""
    if a is None or b is None:
        return a is b
    initial = a.is_initializer() and b.is_initializer()
    if a not in pairs and initial and same_tensor(a.const_value, b.const_value):
        pairs[a] = b
    return pairs.get(a) is b


def _interface(one: ir.Graph, two: ir.Graph) -> list[str]:
    differences = []
    for kind, first, second in (("inputs", one.inputs, two.inputs), ("outputs", one.outputs, two.outputs)):
        names, others = [value.name for value in first], [value.name for value in second]
        if names != others:
            differences.append(f"{kind} {names} and {others}")
        for a, b in zip(first, second, strict=False):
            if (a.dtype, a.shape) != (b.dtype, b.shape):
                differences.append(f"{a.name}: {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    return differences
