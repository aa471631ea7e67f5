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

from converter.errors import PackageError
from converter.precision import formats
from converter.precision.dynamic import quantize_products
from converter.precision.formats import BlockQuantized, Blocks, ColumnQuantized, Columns, Plan, RowQuantized
from converter.precision.half import to_half
from converter.precision.nbits import drop_unused, quantize_matrices, quantize_tables
from converter.precision.stored import read_graphs
from converter.recipes import Constant, read
from converter.records import ExportedGraph
from converter.request import SILENT
from converter.writing import bind_graphs, write_graphs

RANDOM = np.random.default_rng(3)


def weights(rows: int, columns: int) -> Any:
    return RANDOM.standard_normal((rows, columns)).astype(np.float32)


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


def rewritten(path: Path, plan: Plan) -> Path:
    (graph,) = read_graphs(path.parent, ["model"])
    if plan.half:
        to_half(graph.model)
    else:
        quantize_matrices(graph.model, plan)
        quantize_products(graph.model, plan)
        quantize_tables(graph.model)
    drop_unused(graph.model)
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
    ],
    ids=["blocks8", "asymmetric", "blocks4", "int8", "uint8", "fp16"],
)
@pytest.mark.parametrize("depth", [48, 64])
def test_a_rewritten_graph_computes_nearly_the_same(
    tmp_path: Path, plan: Plan, error: float, depth: int
) -> None:
    path = lookup_and_product(tmp_path, depth=depth)
    expected, found = computed(path), computed(rewritten(path, plan))
    assert np.linalg.norm(found - expected) < error * np.linalg.norm(expected)


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
        RowQuantized(Constant.of(weights(70, 40)), "data"),
        ColumnQuantized(Constant.of(weights(70, 40)), Columns(signed=True), "data"),
        ColumnQuantized(Constant.of(weights(70, 40)), Columns(signed=False), "zero_points"),
    ],
    ids=["blocks", "scales", "rows", "columns", "zero points"],
)
def test_strips_make_the_same_bytes_as_the_whole(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(recipe)
    monkeypatch.setattr(formats, "STRIP", 1000)
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
