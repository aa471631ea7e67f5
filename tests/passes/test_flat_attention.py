"""Attention whose heads are split by the operator: fewer nodes, the same numbers, grouped heads included."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from converter.passes.flat_attention import flatten_attention
from converter.passes.standard import remove_unused

FLOAT = ir.TensorType(ir.DataType.FLOAT)
BATCH, LENGTH, WIDTH = "batch_size", "sequence_length", 8


def value(name: str, *shape: Any) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=FLOAT)


def numbers(name: str, *values: int) -> ir.Value:
    tensor = ir.tensor(np.array(values, np.int64), name=name)
    return ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(ir.DataType.INT64), const_value=tensor)


def attention(
    queries: int = 6,
    keys: int = 2,
    *,
    keep_split: bool = False,
    perm: tuple[int, ...] = (0, 2, 1, 3),
    reshaped: bool = False,
) -> ir.Model:
    """Queries, keys and values (batch, sequence, heads * 8) -> the same of the result, heads split on the way."""
    inputs, holds, nodes, split = [], [], [], []
    for name, heads in (("q", queries), ("k", keys), ("v", keys)):
        whole, size = value(name, BATCH, LENGTH, heads * WIDTH), numbers(f"{name}_size", 0, 0, heads, WIDTH)
        parts = ir.node("Reshape", [whole, size])
        turned = ir.node("Transpose", parts.outputs, {"perm": [0, 2, 1, 3]})
        parts.outputs[0].shape = ir.Shape((BATCH, LENGTH, heads, WIDTH))
        turned.outputs[0].shape = ir.Shape((BATCH, heads, LENGTH, WIDTH))
        inputs.append(whole)
        holds.append(size)
        nodes += [parts, turned]
        split.append(turned.outputs[0])
    found = ir.node("Attention", split, {"scale": 0.3, "is_causal": 1})
    found.outputs[0].shape = ir.Shape((BATCH, queries, LENGTH, WIDTH))
    nodes.append(found)
    if reshaped:
        size = numbers("same_size", 0, 0, 0, WIDTH)
        nodes.append(ir.node("Reshape", [found.outputs[0], size]))
        nodes[-1].outputs[0].shape = found.outputs[0].shape
        holds.append(size)
    back = ir.node("Transpose", nodes[-1].outputs, {"perm": list(perm)})
    size = numbers("joined_size", 0, 0, queries * WIDTH)
    joined = ir.node("Reshape", [back.outputs[0], size])
    joined.outputs[0].shape = ir.Shape((BATCH, LENGTH, queries * WIDTH))
    nodes += [back, joined]
    for node in nodes:
        node.outputs[0].type = FLOAT
    joined.outputs[0].name = "result"
    outputs = [joined.outputs[0]]
    if keep_split:
        found.outputs[0].name = "split"
        outputs.append(found.outputs[0])
    graph = ir.Graph(
        inputs, outputs, nodes=nodes, initializers=[*holds, size], opset_imports={"": 23}, name="g"
    )
    return ir.Model(graph, ir_version=10)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def computed(model: ir.Model, queries: int, keys: int, length: int) -> Any:
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    draw = np.random.default_rng(0)
    sizes = {"q": queries, "k": keys, "v": keys}
    feed = {
        name: draw.standard_normal((3, length, heads * WIDTH)).astype(np.float32)
        for name, heads in sizes.items()
    }
    return session.run(["result"], feed)[0]


@pytest.mark.parametrize(("queries", "keys"), [(6, 6), (6, 2), (5, 1)], ids=["each", "grouped", "one"])
@pytest.mark.parametrize("length", [1, 7])
def test_heads_are_split_by_the_operator(queries: int, keys: int, length: int) -> None:
    model = attention(queries, keys)
    assert flatten_attention(model)
    remove_unused(model)
    assert operators(model) == ["Attention"]
    assert [output.name for output in model.graph.outputs] == ["result"]
    found = computed(model, queries, keys, length)
    np.testing.assert_allclose(found, computed(attention(queries, keys), queries, keys, length), atol=1e-6)
    assert not flatten_attention(model)


def test_a_reshape_that_changes_nothing_is_looked_through() -> None:
    model = attention(reshaped=True)
    assert flatten_attention(model)
    remove_unused(model)
    assert operators(model) == ["Attention"]
    found = computed(model, 6, 2, 5)
    np.testing.assert_allclose(found, computed(attention(reshaped=True), 6, 2, 5), atol=1e-6)


def test_a_result_that_is_used_split_stays_as_it_is() -> None:
    assert not flatten_attention(attention(keep_split=True))


def test_axes_that_are_moved_otherwise_stay_as_they_are() -> None:
    assert not flatten_attention(attention(perm=(0, 1, 2, 3)))


def test_keys_that_something_was_done_to_stay_as_they_are() -> None:
    model = attention()
    node = next(node for node in model.graph if node.op_type == "Attention")
    key = node.inputs[1]
    assert key is not None
    turned = ir.node("Neg", [key])
    turned.outputs[0].shape, turned.outputs[0].type = key.shape, FLOAT
    model.graph.insert_before(node, turned)
    node.replace_input_with(1, turned.outputs[0])
    assert not flatten_attention(model)
