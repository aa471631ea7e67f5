"""A mask with one row for all queries: ONNX's Attention takes it, onnxruntime's does after the pass."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from converter.passes.expand_masks import expand_masks

FLOAT = ir.TensorType(ir.DataType.FLOAT)
HEADS, WIDTH = 3, 4


def value(name: str, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=FLOAT)


def attention(rows: int | str) -> ir.Model:
    takes = [value(name, "batch", HEADS, "queries", WIDTH) for name in ("q",)]
    takes += [value(name, "batch", HEADS, "keys", WIDTH) for name in ("k", "v")]
    takes.append(value("mask", "batch", 1, rows, "keys"))
    node = ir.node("Attention", takes)
    node.outputs[0].name, node.outputs[0].type = "result", FLOAT
    node.outputs[0].shape = takes[0].shape
    graph = ir.Graph(takes, node.outputs, nodes=[node], opset_imports={"": 23}, name="main_graph")
    return ir.Model(graph, ir_version=10)


def run(model: ir.Model, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """What onnxruntime gives, and softmax(q k / sqrt(width) + mask) v."""
    draw = np.random.default_rng(0).standard_normal
    q = draw((2, HEADS, queries, WIDTH), np.float32)
    k, v = (draw((2, HEADS, 6, WIDTH), np.float32) for _ in range(2))
    mask = np.where(np.arange(6) < np.array([[4], [5]]), 0, -np.inf).astype(np.float32)[:, None, None]
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    (found,) = session.run(None, {"q": q, "k": k, "v": v, "mask": mask})
    weights = np.exp(q @ k.swapaxes(2, 3) / WIDTH**0.5 + mask)
    return found, weights / weights.sum(axis=-1, keepdims=True) @ v


@pytest.mark.parametrize("queries", [1, 5])
def test_one_row_serves_all_queries(queries: int) -> None:
    model = attention(1)
    assert expand_masks(model)
    found, wanted = run(model, queries)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_onnxruntime_still_needs_it() -> None:
    with pytest.raises(Exception, match="Attention"):
        run(attention(1), 5)


def test_a_mask_with_a_row_for_each_query_stays() -> None:
    model = attention("queries")
    assert not expand_masks(model) and len(model.graph) == 1
