"""What is computed in fp32 in a graph of halves. onnx's own evaluator computes in halves, as GPUs do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from converter.precision.quantize import quantize_package

POSITIONS = np.arange(4096, dtype=np.int64)


def halves(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    feed: dict[str, Any],
    result: str,
    kind: int,
    **weights: Any,
) -> tuple[Any, Any]:
    """What a graph computes in fp32, and as `fp16` makes it."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feed.items()
    ]
    output = helper.make_tensor_value_info(result, kind, None)
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = folder / "graph.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    quantize_package(path, ["fp16"], output=folder / "p", unjudged=True)
    found = ReferenceEvaluator(str(folder / "p/onnx/graph_fp16.onnx")).run(None, feed)[0]
    return ReferenceEvaluator(model).run(None, feed)[0], found


@pytest.mark.parametrize("function", ["Cos", "Sin"])
def test_late_positions_keep_their_angles(function: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["positions"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "frequency"], ["angles"]),
        helper.make_node(function, ["angles"], ["waves"]),
        helper.make_node("Mul", ["waves", "scale"], ["y"]),
    ]
    weights = {"frequency": np.float32([[0.3, 0.07]]), "scale": np.float32([1.1, 0.9])}
    feed = {"positions": POSITIONS[:, None]}
    full, found = halves(tmp_path, nodes, feed, "y", TensorProto.FLOAT, **weights)
    assert np.abs(full - found).max() < 2e-3


def test_distances_fall_into_the_same_buckets(tmp_path: Path) -> None:
    """Distances of 16, 32 and 64 were one off, and a small T5 in fp16 kept a cosine of 0.958; now it is 0.9999."""
    nodes = [
        helper.make_node("Cast", ["distances"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "eight"], ["ratio"]),
        helper.make_node("Log", ["ratio"], ["log"]),
        helper.make_node("Div", ["log", "width"], ["share"]),
        helper.make_node("Mul", ["share", "eight"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["y"], to=TensorProto.INT64),
    ]
    weights = {"eight": np.float32(8), "width": np.float32(np.log(16))}
    full, found = halves(tmp_path, nodes, {"distances": POSITIONS[8:]}, "y", TensorProto.INT64, **weights)
    assert (full == found).all()


@pytest.mark.parametrize("square", ["Mul", "Pow"])
def test_squares_of_large_activations_stay_finite(square: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node(square, ["x", "x" if square == "Mul" else "two"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "last"], ["mean"]),
        helper.make_node("Add", ["mean", "epsilon"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["root"]),
        helper.make_node("Reciprocal", ["root"], ["factor"]),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    weights = {"two": np.float32(2), "last": np.array([-1]), "epsilon": np.float32(1e-6)}
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32) * 900
    full, found = halves(tmp_path, nodes, {"x": x}, "y", TensorProto.FLOAT, **weights)
    assert np.abs(full - found).max() < 5e-3
