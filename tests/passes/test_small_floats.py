"""Arithmetic in bfloat16 inside a float32 graph: onnxruntime's CPU has none of it, after the pass it needs none."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from converter.passes.small_floats import widen_bfloat16
from converter.recipes import Parameter, RecipeTensor

NARROW, WIDE = ir.TensorType(ir.DataType.BFLOAT16), ir.TensorType(ir.DataType.FLOAT)


def cast(value: ir.Value, kind: ir.TensorType) -> ir.Node:
    node = ir.node("Cast", [value], {"to": int(kind.dtype)})
    node.outputs[0].type, node.outputs[0].shape = kind, value.shape
    return node


def rounded_product() -> ir.Model:
    """float32 in, a product in bfloat16 as Falcon makes its ALiBi slopes, float32 out."""
    shape = ir.Shape(("rows",))
    inputs = [ir.Value(name=name, shape=shape, type=WIDE) for name in ("left", "right")]
    narrow = [cast(value, NARROW) for value in inputs]
    product = ir.node("Mul", [node.outputs[0] for node in narrow])
    product.outputs[0].type, product.outputs[0].shape = NARROW, shape
    wide = cast(product.outputs[0], WIDE)
    wide.outputs[0].name = "product"
    nodes = [*narrow, product, wide]
    graph = ir.Graph(inputs, wide.outputs, nodes=nodes, opset_imports={"": 23}, name="main_graph")
    return ir.Model(graph, ir_version=10)


def session(model: ir.Model) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())


def test_a_product_is_rounded_as_torch_rounds_it() -> None:
    model = rounded_product()
    assert widen_bfloat16(model) and not widen_bfloat16(model)
    left, right = torch.randn(2, 99, generator=torch.Generator().manual_seed(0))
    (found,) = session(model).run(None, {"left": left.numpy(), "right": right.numpy()})
    np.testing.assert_array_equal(found, (left.bfloat16() * right.bfloat16()).float().numpy())


def test_onnxruntime_still_needs_it() -> None:
    with pytest.raises(Exception, match="Could not find an implementation for Mul"):
        session(rounded_product())


def test_a_graph_with_weights_in_bfloat16_stays_as_it_is() -> None:
    model = rounded_product()
    weight = RecipeTensor(Parameter("weight", (2,), np.dtype(ir.DataType.BFLOAT16.numpy())), name="weight")
    model.graph.initializers["weight"] = ir.Value(name="weight", const_value=weight)
    assert not widen_bfloat16(model)
