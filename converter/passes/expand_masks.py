"""Masks with one row for all queries get a row for each: onnxruntime's Attention asks for it, ONNX's does not."""

from __future__ import annotations

import onnx_ir as ir


def expand_masks(model: ir.Model) -> bool:
    """Expand (..., 1, keys) to (..., queries, keys) where it is the mask of an Attention.

    As of onnxruntime 1.31 a mask must have as many rows as there are queries, though it may have one head for all.
    """
    modified = False
    for node in list(model.graph):
        if node.op_type != "Attention" or node.domain or len(node.inputs) < 4:
            continue
        queries, mask = node.inputs[0], node.inputs[3]
        if queries is None or mask is None or not _one_row(mask) or queries.shape is None:
            continue
        axis = (
            1 if len(queries.shape) == 3 else 2
        )  # (batch, queries, heads * size) or (batch, heads, queries, size)
        node.replace_input_with(3, _expanded(node, mask, queries, axis))
        modified = True
    return modified


def _one_row(mask: ir.Value) -> bool:
    return mask.shape is not None and len(mask.shape) >= 2 and mask.shape[-2] == 1


def _expanded(node: ir.Node, mask: ir.Value, queries: ir.Value, axis: int) -> ir.Value:
    assert mask.shape is not None and queries.shape is not None and node.graph is not None
    rank = len(mask.shape)
    sizes = ir.node("Shape", [queries], {"start": axis, "end": axis + 1})
    ones = [
        ir.node("Constant", [], {"value": ir.tensor([1] * count, dtype=ir.DataType.INT64)})
        for count in (rank - 2, 1)
    ]
    parts = (
        [ones[0].outputs[0], sizes.outputs[0], ones[1].outputs[0]]
        if rank > 2
        else [sizes.outputs[0], ones[1].outputs[0]]
    )
    target = ir.node("Concat", parts, {"axis": 0})
    expand = ir.node("Expand", [mask, target.outputs[0]])
    result = expand.outputs[0]
    result.shape = ir.Shape([*mask.shape[:-2], queries.shape[axis], mask.shape[-1]])
    result.type = mask.type
    made = [sizes, *(ones if rank > 2 else ones[1:]), target, expand]
    for one in made:
        one.metadata_props.update(node.metadata_props)
    node.graph.insert_before(node, made)
    return result
