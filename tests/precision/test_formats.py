"""How weights are stored in fewer bits: right to half a step, and the same whatever they are cut into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.errors import PackageError, UsageError
from converter.precision import packed
from converter.precision.columns import ColumnQuantized
from converter.precision.formats import Blocks, Columns, NormalFloat, Plan
from converter.precision.half import to_half
from converter.precision.packed import BlockQuantized, NormalFloatQuantized, RowQuantized
from converter.precision.statistics import Points, Statistics
from converter.precision.stored import read_graphs
from converter.recipes import Constant, read
from converter.records import ExportedGraph
from converter.request import SILENT
from converter.weights.writing import bind_graphs, write_graphs


def weights(rows: int, columns: int) -> Any:
    """The same for the same shape, whatever ran before."""
    return np.random.default_rng((rows, columns)).standard_normal((rows, columns)).astype(np.float32)


def lookup_and_product(folder: Path, *, external: bool = False, depth: int = 48) -> Path:
    """ids -> a table of 100 rows -> a (depth, 24) matrix -> out, as `model.onnx`."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["looked_up"]),
            helper.make_node("MatMul", ["looked_up", "matrix"], ["out"]),
        ],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["rows", 24])],
        [
            numpy_helper.from_array(weights(100, depth), "table"),
            numpy_helper.from_array(weights(depth, 24), "matrix"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=external, location="model.onnx_data", size_threshold=0)
    return path


def computed(path: Path) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": np.arange(100)})[0]


def observed(path: Path) -> Statistics:
    """What enters the product when every row is looked up."""
    graphs = read_graphs(path.parent, ["model"])
    statistics = Statistics(Points.of(graphs))
    table: Any = graphs[0].model.graph.initializers["table"].const_value
    statistics.observe("model", {"looked_up": read(table.recipe)})
    return statistics


def rewritten(path: Path, plan: Plan) -> Path:
    (graph,) = read_graphs(path.parent, ["model"])
    plan.informed(observed(path) if plan.calibrates else None, frozenset()).apply(graph.model)
    made = ExportedGraph("changed", graph.model)
    write_graphs(bind_graphs([made], {}, path.parent, external_data="auto"), SILENT.stage)
    return path.parent / "changed.onnx"


@pytest.mark.parametrize("external", [False, True], ids=["embedded", "external"])
def test_a_written_graph_is_read_back_without_its_weights(tmp_path: Path, external: bool) -> None:
    path = lookup_and_product(tmp_path, external=external)
    (graph,) = read_graphs(tmp_path, ["model"])
    with pytest.raises(Exception, match="asked for its values"):
        graph.model.graph.initializers["table"].const_value.numpy()  # type: ignore[union-attr]
    tables = [entry for entry in onnx.load(path).graph.initializer if entry.name == "table"]
    recipe: Any = graph.model.graph.initializers["table"].const_value
    assert np.array_equal(read(recipe.recipe), numpy_helper.to_array(tables[0]))


def test_a_truncated_graph_is_refused(tmp_path: Path) -> None:
    path = lookup_and_product(tmp_path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(PackageError, match=r"model\.onnx is not an ONNX file"):
        read_graphs(tmp_path, ["model"])


@pytest.mark.parametrize(
    ("plan", "error"),
    [
        (Plan(Blocks(8)), 0.02),
        (Plan(Blocks(8, symmetric=False)), 0.02),
        (Plan(Blocks(4, size=16, symmetric=False)), 0.15),
        (Plan(Columns(signed=True)), 0.03),
        (Plan(Columns(signed=False)), 0.03),
        (Plan(tables=False, half=True), 0.002),
        (Plan(Blocks(4, symmetric=False), half=True), 0.2),
        (Plan(NormalFloat(size=32)), 0.2),
        (Plan(Columns(per_channel=False)), 0.03),
        (Plan(Columns(reduce_range=True)), 0.04),
        (Plan(Columns(activations="row")), 0.03),
        (Plan(Columns(activations="row", smooth=0.5)), 0.03),
        (Plan(Columns(activations="static")), 0.04),
        (Plan(Columns(activations="static", symmetric=True, per_channel=False)), 0.04),
    ],
    ids=[
        "blocks8",
        "asymmetric",
        "blocks4",
        "int8",
        "uint8",
        "fp16",
        "q4f16",
        "nf4",
        "by tensor",
        "7 bits",
        "by row",
        "smoothed",
        "static",
        "static symmetric",
    ],
)
@pytest.mark.parametrize("depth", [48, 64])
def test_a_rewritten_graph_computes_nearly_the_same(
    tmp_path: Path, plan: Plan, error: float, depth: int
) -> None:
    path = lookup_and_product(tmp_path, depth=depth)
    expected, found = computed(path), computed(rewritten(path, plan))
    assert np.linalg.norm(found - expected) < error * np.linalg.norm(expected)


@pytest.mark.parametrize("plan", [Plan(Blocks(8)), Plan(Columns())], ids=["blocks8", "int8"])
def test_a_matrix_of_less_than_a_kibibyte_is_quantized_too(tmp_path: Path, plan: Plan) -> None:
    """A small model of a stranger's has no other; its values lie in the graph and not in a recipe."""
    path = lookup_and_product(tmp_path, depth=8)
    expected, changed = computed(path), rewritten(path, plan)
    assert "MatMul" not in {node.op_type for node in onnx.load(changed).graph.node}
    assert np.linalg.norm(computed(changed) - expected) < 0.03 * np.linalg.norm(expected)


def test_an_exception_of_a_plan_is_left_alone(tmp_path: Path) -> None:
    path = lookup_and_product(tmp_path)
    changed = onnx.load(rewritten(path, Plan(Blocks(8), exceptions={"matrix": None})))
    assert "MatMul" in {node.op_type for node in changed.graph.node}
    assert "MatMulNBits" not in {node.op_type for node in changed.graph.node}


@pytest.mark.parametrize(
    "recipe",
    [
        BlockQuantized(Constant.of(weights(70, 40)), Blocks(4, symmetric=False), "data"),
        BlockQuantized(Constant.of(weights(70, 40)), Blocks(8), "scales"),
        NormalFloatQuantized(Constant.of(weights(70, 40)), NormalFloat(), "data"),
        NormalFloatQuantized(Constant.of(weights(70, 41)), NormalFloat(), "scales"),
        RowQuantized(Constant.of(weights(70, 40)), "data"),
        ColumnQuantized(Constant.of(weights(70, 40)), Columns(signed=True), "data"),
        ColumnQuantized(Constant.of(weights(70, 40)), Columns(signed=False), "zero_points"),
    ],
    ids=["blocks", "scales", "nf4", "nf4 scales", "rows", "columns", "zero points"],
)
def test_strips_make_the_same_bytes_as_the_whole(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(recipe)
    monkeypatch.setattr(packed, "STRIP", 1000)
    assert np.array_equal(read(recipe), whole)


def test_a_row_of_zeros_stays_one() -> None:
    table = weights(3, 8)
    table[1] = 0
    data, scales = (read(RowQuantized(Constant.of(table), part)) for part in ("data", "scales"))
    assert not data[1].any()
    assert np.isfinite(scales).all()


def test_fp16_keeps_the_interface_and_bounds_what_stands_for_infinity(tmp_path: Path) -> None:
    least = numpy_helper.from_array(np.array(np.finfo(np.float32).min), "least")
    graph = helper.make_graph(
        [helper.make_node("Max", ["x", "least"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [least],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    to_half(model)
    assert [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)] == [ir.DataType.FLOAT] * 2
    bounded = model.graph.initializers["least"].const_value
    assert bounded is not None
    assert float(bounded.numpy()) == -65504


@pytest.mark.parametrize("turned", [0, 1])
def test_a_product_with_a_bias_is_one_too(tmp_path: Path, turned: int) -> None:
    matrix = weights(24, 48) if turned else weights(48, 24)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["looked_up"]),
            helper.make_node("Gemm", ["looked_up", "matrix", "bias"], ["out"], transB=turned),
        ],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["rows", 24])],
        [
            numpy_helper.from_array(weights(100, 48), "table"),
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(weights(1, 24)[0], "bias"),
        ],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    expected = computed(path)
    for form in (Blocks(8), Columns(activations="row")):
        changed = rewritten(path, Plan(form))
        assert "Gemm" not in {node.op_type for node in onnx.load(changed).graph.node}
        assert np.linalg.norm(computed(changed) - expected) < 0.03 * np.linalg.norm(expected)


def test_a_token_with_large_values_does_not_coarsen_the_others(tmp_path: Path) -> None:
    path = lookup_and_product(tmp_path)
    model = onnx.load(path)
    table = numpy_helper.to_array(model.graph.initializer[0]).copy()
    table[7] *= 300
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    onnx.save(model, path)
    expected = np.delete(computed(path), 7, axis=0)
    error = {
        kind: np.linalg.norm(
            np.delete(computed(rewritten(path, Plan(Columns(activations=kind)))), 7, axis=0) - expected
        )
        for kind in ("tensor", "row")
    }
    assert error["row"] < 0.03 * np.linalg.norm(expected)
    assert error["tensor"] > 10 * error["row"]


def test_what_calibration_never_saw_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = lookup_and_product(tmp_path)
    (graph,) = read_graphs(path.parent, ["model"])
    blind = Statistics(Points.of([graph]))
    with pytest.raises(UsageError, match="saw nothing enter the matrix 'matrix'"):
        Plan(Columns(smooth=0.5)).informed(blind, frozenset()).apply(graph.model)


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_methods_of_calibration_find_the_range_of_plain_values(tmp_path: Path, method: Any) -> None:
    graphs = read_graphs(lookup_and_product(tmp_path).parent, ["model"])
    statistics = Statistics(Points.of(graphs), method)
    for seed in range(4):
        drawn = np.random.default_rng(seed).uniform(-1, 3, (200, 48)).astype(np.float32)
        statistics.observe("model", {"looked_up": drawn})
    _, scale, zero = statistics.static("matrix", Columns(activations="static"))
    assert scale == pytest.approx(4 / 255, rel=0.1)
    assert abs(zero - 64) < 8
