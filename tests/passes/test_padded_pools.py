"""A pool of maxima behind padded zeros: onnxruntime up to 1.31 forgets the zeros, after the pass it does not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from converter.passes.padded_pools import keep_padded_zeros


def padded_pool(mode: str = "constant", fill: float = 0.0) -> ir.Model:
    """One value padded on every side, then the largest of each 2 x 2."""
    float32 = ir.TensorType(ir.DataType.FLOAT)
    image = ir.Value(name="image", shape=ir.Shape(("batch", 1, "height", "width")), type=float32)
    pads = ir.node("Constant", [], {"value": ir.tensor([0, 0, 1, 1, 0, 0, 1, 1], dtype=ir.DataType.INT64)})
    value = ir.node("Constant", [], {"value": ir.tensor(fill, dtype=ir.DataType.FLOAT)})
    pad = ir.node("Pad", [image, pads.outputs[0], value.outputs[0]], {"mode": mode})
    pool = ir.node("MaxPool", pad.outputs, {"kernel_shape": [2, 2]})
    pool.outputs[0].name, pool.outputs[0].type = "result", float32
    pool.outputs[0].shape = ir.Shape(("batch", 1, "rows", "columns"))
    nodes = [pads, value, pad, pool]
    graph = ir.Graph([image], pool.outputs, nodes=nodes, opset_imports={"": 23}, name="main_graph")
    return ir.Model(graph, ir_version=10)


def maxima(model: ir.Model) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    (found,) = session.run(None, {"image": np.full((1, 1, 2, 2), -3, np.float32)})
    return np.asarray(found)[0, 0]


def test_zeros_around_negative_values_are_the_maxima_at_the_edges() -> None:
    model = padded_pool()
    assert keep_padded_zeros(model)
    np.testing.assert_allclose(maxima(model), [[0, 0, 0], [0, -3, 0], [0, 0, 0]], atol=1e-30)


@pytest.mark.parametrize(("mode", "fill"), [("reflect", 0.0), ("constant", -7.0)])
def test_other_padding_stays_as_it_is(mode: str, fill: float) -> None:
    assert not keep_padded_zeros(padded_pool(mode, fill))
