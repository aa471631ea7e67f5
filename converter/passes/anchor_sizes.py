"""Each named size is read once, from the first graph input that has it.

torch reads a size that several inputs share from any of them, usually a late one such as the last layer's
past keys, and adds sizes in either order. What it chooses depends on the number of layers; after this pass
nothing does.
"""

from __future__ import annotations

import re

import onnx_ir as ir

COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min"})
ARITHMETIC = COMMUTATIVE | {"Sub", "Div", "Mod"}
SUM_OF_AXES = re.compile(r"[A-Za-z_]\w*(?: \+ [A-Za-z_]\w*)+")


def anchor_sizes(model: ir.Model) -> bool:
    """Redirect, then merge: equal sizes, and equal arithmetic on sizes and whole numbers, are one value."""
    graph = model.graph
    anchors = _anchors(graph)
    modified = False
    sizes: set[ir.Value] = set()
    known: dict[object, ir.Value] = {}
    for node in list(graph):
        modified |= _redirect(node, anchors)
        key = _key(node, sizes)
        if key is None:
            continue
        sizes.add(node.outputs[0])
        first = known.setdefault(key, node.outputs[0])
        if first is not node.outputs[0] and not node.outputs[0].is_graph_output():
            ir.convenience.replace_all_uses_with(node.outputs[0], first)
            graph.remove(node, safe=True)
            modified = True
    modified |= _sort_sums(graph)
    return _sort_reads(graph) or modified


def _sort_sums(graph: ir.Graph) -> bool:
    """Write the sizes of the outputs that are sums of axes in alphabetical order. Says if that changed any."""
    modified = False
    for value in graph.outputs:
        for axis, dim in enumerate(value.shape or ()):
            text = dim.value if isinstance(dim, ir.SymbolicDim) else None
            if value.shape is None or text is None or not SUM_OF_AXES.fullmatch(text):
                continue
            ordered = " + ".join(sorted(text.split(" + ")))
            if ordered != text:
                value.shape[axis], modified = ir.SymbolicDim(ordered), True
    return modified


def _sort_reads(graph: ir.Graph) -> bool:
    """Move the reading of sizes to the front, in the order of the inputs and their axes. Says if that changed it."""
    places = {value: place for place, value in enumerate(graph.inputs)}
    reads: list[tuple[tuple[int, int], list[ir.Node]]] = []
    for node in graph:
        axis, source = _axis(node), node.inputs[0] if node.inputs else None
        if axis is not None and source in places:
            squeezes = [use.node for use in node.outputs[0].uses() if _is_plain_squeeze(use.node)]
            reads.append(((places[source], axis), [node, *squeezes]))
    ordered = [node for _, nodes in sorted(reads, key=lambda read: read[0]) for node in nodes]
    if not ordered or all(first is second for first, second in zip(ordered, graph, strict=False)):
        return False
    graph.remove(ordered)
    graph.insert_before(graph[0], ordered)
    return True


def _is_plain_squeeze(node: ir.Node) -> bool:
    return node.op_type == "Squeeze" and not node.domain and len(node.inputs) == 1


def _anchors(graph: ir.Graph) -> dict[str, tuple[ir.Value, int]]:
    """Axis name -> the first input, and its dimension, of that name."""
    anchors: dict[str, tuple[ir.Value, int]] = {}
    for value in graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                anchors.setdefault(dim.value, (value, axis))
    return anchors


def _axis(node: ir.Node) -> int | None:
    """The one axis that a Shape node reads, if it reads one."""
    if node.op_type != "Shape" or node.domain or not {"start", "end"} <= node.attributes.keys():
        return None
    start, end = node.attributes["start"].as_int(), node.attributes["end"].as_int()
    return start if 0 <= start == end - 1 else None


def _redirect(node: ir.Node, anchors: dict[str, tuple[ir.Value, int]]) -> bool:
    axis = _axis(node)
    source = node.inputs[0] if node.inputs else None
    if axis is None or source is None or not source.is_graph_input() or source.shape is None:
        return False
    dim = source.shape[axis]
    anchor = anchors.get(dim.value) if isinstance(dim, ir.SymbolicDim) and dim.value is not None else None
    if anchor is None or anchor == (source, axis):
        return False
    node.replace_input_with(0, anchor[0])
    node.attributes["start"] = ir.AttrInt64("start", anchor[1])
    node.attributes["end"] = ir.AttrInt64("end", anchor[1] + 1)
    return True


def _key(node: ir.Node, sizes: set[ir.Value]) -> object | None:
    """Equal for nodes that compute the same size; None for nodes that compute something else."""
    axis, inputs = _axis(node), node.inputs
    if axis is not None and inputs[0] is not None and inputs[0].is_graph_input():
        return "Shape", inputs[0], axis
    operands = [_operand(value, sizes) for value in inputs]
    if node.domain or not any(value in sizes for value in inputs) or None in operands:
        return None
    if node.op_type == "Squeeze" and len(inputs) == 1 and not node.attributes:
        return "Squeeze", *operands
    if node.op_type in ARITHMETIC:
        attributes = tuple(
            (name, repr(attribute.value)) for name, attribute in sorted(node.attributes.items())
        )
        return (
            node.op_type,
            attributes,
            *(sorted(map(str, operands)) if node.op_type in COMMUTATIVE else operands),
        )
    return None


def _operand(value: ir.Value | None, sizes: set[ir.Value]) -> str | None:
    """The same text for the same size or whole number; None for anything else."""
    if value in sizes:
        return f"size {id(value)}"
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "Constant" or "value" not in producer.attributes:
        return None
    tensor = producer.attributes["value"].as_tensor()
    return f"{tensor.dtype} {tensor.numpy().tolist()}" if tensor.size == 1 else None
