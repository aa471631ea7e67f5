"""Attention that splits the heads itself: Reshape and Transpose around it go.

The operator of opset 23 takes (batch, sequence, heads * width) as well as (batch, heads, sequence, width); its kernels
read the first with strides, where nothing has to be copied. https://onnx.ai/onnx/operators/onnx__Attention.html
"""

from __future__ import annotations

import onnx_ir as ir

_SWAP = [0, 2, 1, 3]
_SWITCHES = ("q_num_heads", "kv_num_heads")


def flatten_attention(model: ir.Model) -> bool:
    """Where queries, keys and values are split right before and the result is joined right after."""
    modified = False
    for node in list(model.graph):
        if node.op_type != "Attention" or node.domain or _SWITCHES[0] in node.attributes:
            continue
        if any(value is not None for value in node.inputs[4:]):
            continue  # a past has its heads split, and what is added to it had better be alike
        whole = [_unsplit(value) for value in node.inputs[:3]]
        joined = _joined(node.outputs[0])
        if joined is None or any(value is None for value in whole):
            continue
        heads = [_heads(value) for value in node.inputs[:2]]
        for index, value in enumerate(whole):
            node.replace_input_with(index, value)
        for name, count in zip(_SWITCHES, heads, strict=True):
            node.attributes[name] = ir.AttrInt64(name, count)
        result = node.outputs[0]
        result.shape, result.type = joined.shape, joined.type
        if joined.is_graph_output():
            result.name, joined.name = joined.name, result.name
        ir.convenience.replace_all_uses_with(joined, result, replace_graph_outputs=True)
        modified = True
    return modified


def _heads(value: ir.Value | None) -> int:
    assert value is not None and value.shape is not None
    heads = value.shape[1]
    assert isinstance(heads, int)
    return heads


def _unsplit(value: ir.Value | None) -> ir.Value | None:
    """(batch, sequence, heads * width) that `value` (batch, heads, sequence, width) is made of by moving axes only."""
    turn = _producer(value, "Transpose")
    split = None if turn is None or not _swaps(turn) else _producer(turn.inputs[0], "Reshape")
    whole = None if split is None else split.inputs[0]
    if value is None or whole is None or not _same_elements(whole.shape, value.shape):
        return None
    return whole


def _joined(value: ir.Value) -> ir.Value | None:
    """The one thing made of a result (batch, heads, sequence, width): its heads side by side again."""
    same = _only_user(value, "Reshape")
    if same is not None and value.shape is not None and same.outputs[0].shape == value.shape:
        value = same.outputs[0]  # a Reshape that changes nothing, as some models write it
    turn = _only_user(value, "Transpose")
    join = None if turn is None or not _swaps(turn) else _only_user(turn.outputs[0], "Reshape")
    if join is None or not _same_elements(join.outputs[0].shape, value.shape):
        return None
    return join.outputs[0]


def _same_elements(whole: ir.Shape | None, split: ir.Shape | None) -> bool:
    """Whether (batch, sequence, heads * width) and (batch, heads, sequence, width) are known and fit."""
    if whole is None or split is None or len(whole) != 3 or len(split) != 4:
        return False
    heads, width = split[1], split[3]
    if not isinstance(heads, int) or not isinstance(width, int):
        return False
    return whole[0] == split[0] and whole[1] == split[2] and whole[2] == heads * width


def _swaps(node: ir.Node) -> bool:
    perm = node.attributes.get("perm")
    return perm is not None and list(perm.as_ints()) == _SWAP


def _producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == operator and not node.domain else None


def _only_user(value: ir.Value, operator: str) -> ir.Node | None:
    users = [usage.node for usage in value.uses()]
    if len(users) != 1 or value.is_graph_output():
        return None
    return users[0] if users[0].op_type == operator and not users[0].domain else None
