"""Fusions compute the same in fewer nodes, from the level on that they belong to, and never look at a weight."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from converter.additions import GraphPass, Level
from converter.errors import UsageError
from converter.passes.fusions import fuse_for_onnxruntime, fuse_standard
from converter.passes.simplified import simplify_smaller
from converter.recipes import Parameter, RecipeTensor
from converter.registry import load_registry
from converter.request import Optimization
from converter.tracing.build import passes_for

WIDTH = 8
FLOAT = ir.TensorType(ir.DataType.FLOAT)


def weight(name: str) -> ir.Value:
    recipe = Parameter(name, (WIDTH,), np.dtype(np.float32))
    return ir.Value(
        name=name, shape=ir.Shape((WIDTH,)), type=FLOAT, const_value=RecipeTensor(recipe, name=name)
    )


def number(name: str, value: float) -> ir.Value:
    tensor = ir.tensor(np.float32(value), name=name)
    return ir.Value(name=name, shape=ir.Shape(()), type=FLOAT, const_value=tensor)


def rows(name: str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(("batch_size", "sequence_length", WIDTH)), type=FLOAT)


def model(takes: list[ir.Value], nodes: list[ir.Node], holds: list[ir.Value], opset: int = 23) -> ir.Model:
    for node in nodes:
        node.outputs[0].type = FLOAT
        node.metadata_props["pkg.torch.onnx.name_scopes"] = f"['', 'layers.0', '{node.op_type}']"
    nodes[-1].outputs[0].name = "result"
    nodes[-1].outputs[0].shape = takes[0].shape
    graph = ir.Graph(
        takes,
        nodes[-1].outputs,
        nodes=nodes,
        initializers=holds,
        opset_imports={"": opset},
        name="main_graph",
    )
    return ir.Model(graph, ir_version=10)


def root_mean_square(opset: int = 23) -> ir.Model:
    """As transformers writes it: x * rsqrt(mean(x^2) + eps) * weight."""
    x, scale = rows("x"), weight("norm.weight")
    two, small = number("two", 2.0), number("small", 1e-6)
    axes = ir.Value(
        name="axes", shape=ir.Shape((1,)), type=ir.TensorType(ir.DataType.INT64), const_value=ir.tensor([-1])
    )
    square = ir.node("Pow", [x, two])
    mean = ir.node(
        "ReduceMean", [square.outputs[0], axes], attributes={"keepdims": 1, "noop_with_empty_axes": 0}
    )
    total = ir.node("Add", [mean.outputs[0], small])
    root = ir.node("Sqrt", total.outputs)
    inverse = ir.node("Reciprocal", root.outputs)
    scaled = ir.node("Mul", [x, inverse.outputs[0]])
    result = ir.node("Mul", [scale, scaled.outputs[0]])
    nodes = [square, mean, total, root, inverse, scaled, result]
    return model([x], nodes, [scale, two, small, axes], opset)


def sum_and_norm() -> ir.Model:
    x, y, scale, shift = rows("x"), rows("y"), weight("norm.weight"), weight("norm.bias")
    total = ir.node("Add", [x, y])
    result = ir.node("LayerNormalization", [total.outputs[0], scale, shift], attributes={"axis": -1})
    return model([x, y], [total, result], [scale, shift])


def with_values(graph: ir.Model) -> onnxruntime.InferenceSession:
    """The graph with seeded weights, opened."""
    draw = np.random.default_rng(0)
    for value in graph.graph.initializers.values():
        if isinstance(value.const_value, RecipeTensor):
            value.const_value = ir.tensor(draw.standard_normal(WIDTH).astype(np.float32), name=value.name)
    content = ir.to_proto(graph).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def computes(graph: ir.Model) -> np.ndarray:
    session, draw = with_values(graph), np.random.default_rng(1)
    feed = {
        entry.name: draw.standard_normal((3, 5, WIDTH)).astype(np.float32) for entry in session.get_inputs()
    }
    return cast(np.ndarray, session.run(None, feed)[0])


def operators(graph: ir.Model) -> list[str]:
    return [node.op_type for node in graph.graph]


def test_root_mean_square_becomes_one_operator_of_the_standard() -> None:
    graph = root_mean_square()
    assert fuse_standard(graph)
    assert operators(graph) == ["RMSNormalization"]
    np.testing.assert_allclose(computes(graph), computes(root_mean_square()), atol=1e-6)


def test_older_opsets_have_no_such_operator() -> None:
    graph = root_mean_square(opset=18)
    assert not fuse_standard(graph)
    assert "RMSNormalization" not in operators(graph)


def test_onnxruntime_normalizes_a_sum_in_one_operator() -> None:
    graph = sum_and_norm()
    assert fuse_for_onnxruntime(graph)
    assert operators(graph) == ["SkipLayerNormalization"]
    assert graph.graph.opset_imports["com.microsoft"] == 1
    np.testing.assert_allclose(computes(graph), computes(sum_and_norm()), atol=1e-6)


def test_a_sum_that_is_read_besides_stays_beside_its_normalization() -> None:
    def normalized_first() -> ir.Model:
        """norm(x + y) + (x + y): the residual stream of a layer that normalizes first."""
        graph = sum_and_norm()
        total, norm = graph.graph
        added = ir.node("Add", [norm.outputs[0], total.outputs[0]])
        added.outputs[0].shape, added.outputs[0].type = norm.outputs[0].shape, norm.outputs[0].type
        added.outputs[0].name = "twice"
        graph.graph.append(added)
        graph.graph.outputs[0] = added.outputs[0]
        return graph

    graph = normalized_first()
    fuse_for_onnxruntime(graph)
    assert operators(graph) == ["Add", "LayerNormalization", "Add"]
    np.testing.assert_allclose(computes(graph), computes(normalized_first()), atol=1e-6)


def test_onnxsim_is_taken_where_it_is_smaller_with_weights_and_scopes_kept() -> None:
    graph = root_mean_square()
    assert simplify_smaller(graph)
    assert len(operators(graph)) < len(operators(root_mean_square()))
    assert isinstance(graph.graph.initializers["norm.weight"].const_value, RecipeTensor)
    assert [value.name for value in graph.graph.inputs] == ["x"]
    assert all("layers.0" in node.metadata_props["pkg.torch.onnx.name_scopes"] for node in graph.graph)
    np.testing.assert_allclose(computes(graph), computes(root_mean_square()), atol=1e-6)


def test_onnxsim_is_left_where_it_is_not_smaller() -> None:
    graph = sum_and_norm()
    assert not simplify_smaller(graph)
    assert isinstance(graph.graph.initializers["norm.bias"].const_value, RecipeTensor)
    assert [value.name for value in graph.graph.inputs] == ["x", "y"]
    assert operators(graph) == ["Add", "LayerNormalization"]


@pytest.mark.parametrize(
    ("level", "has", "has_not"),
    [
        ("none", set(), {"inline-functions"}),
        ("basic", {"inline-functions", "fold-transposes"}, {"onnxsim", "fuse-standard", "fuse-onnxruntime"}),
        ("extended", {"fold-transposes", "onnxsim", "fuse-standard"}, {"fuse-onnxruntime"}),
        ("ort", {"fold-transposes", "fuse-standard", "fuse-onnxruntime"}, set()),
    ],
)
def test_each_level_has_the_passes_of_those_before(
    level: Optimization, has: set[str], has_not: set[str]
) -> None:
    passes = load_registry({"CONVERTER_PLUGINS": ""}).passes
    names = {entry.name for entry in passes_for(level, passes)}
    assert has <= names
    assert not has_not & names


def test_a_pass_of_an_unknown_level_is_refused() -> None:
    with pytest.raises(UsageError, match="level 'most'"):
        GraphPass("mine", lambda graph: False, level=cast(Level, "most"))


def test_a_sequence_is_not_described_as_a_tensor(tmp_path: Path) -> None:
    """onnxruntime opened no RT-DETR at `extended`: its boxes are split into a sequence."""
    nodes = [
        onnx.helper.make_node("SplitToSequence", ["x"], ["parts"], axis=1),
        onnx.helper.make_node("SequenceAt", ["parts", "first"], ["y"]),
    ]
    values = [onnx.helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in (("x", 4), ("y", 1))]
    first = onnx.numpy_helper.from_array(np.array(0), "first")
    graph = onnx.helper.make_graph(nodes, "boxes", values[:1], values[1:], [first])
    opset = onnx.helper.make_opsetid("", 23)
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10))
    fuse_standard(model)
    ir.save(model, tmp_path / "model.onnx")
    assert onnxruntime.InferenceSession(tmp_path / "model.onnx").get_outputs()[0].name == "y"
