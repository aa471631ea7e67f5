"""Tables that are output projections as well: stored once, their rows looked up in standard operators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.precision.formats import Blocks, Columns, Plan
from converter.precision.statistics import Points, Statistics
from converter.precision.stored import read_graphs
from converter.records import ExportedGraph
from converter.request import SILENT
from converter.weights.writing import bind_graphs, write_graphs

ROWS = 101
# What WebAssembly has of onnxruntime's own operators; a lookup in blocks is not among it.
IN_BROWSERS = {"MatMulNBits", "MatMulIntegerToFloat"}


@dataclass(frozen=True)
class Tied:
    """ids -> rows of a table; x -> x times the same table, turned. `table` is (ROWS, depth)."""

    path: Path
    table: Any

    @classmethod
    def write(cls, folder: Path, depth: int, rank: int = 1) -> Tied:
        table = np.random.default_rng(depth).standard_normal((ROWS, depth)).astype(np.float32)
        nodes = [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("Transpose", ["table"], ["turned"]),
            helper.make_node("MatMul", ["x", "turned"], ["products"]),
        ]
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [None] * rank)
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", depth])
        outputs = [
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None] * rank + [depth]),
            helper.make_tensor_value_info("products", TensorProto.FLOAT, ["batch", ROWS]),
        ]
        graph = helper.make_graph(nodes, "g", [ids, x], outputs, [numpy_helper.from_array(table, "table")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, folder / "model.onnx")
        return cls(folder / "model.onnx", table)

    def rewritten(self, plan: Plan) -> Path:
        (graph,) = read_graphs(self.path.parent, ["model"])
        statistics = Statistics(Points.of([graph]))
        statistics.observe("model", {"x": self.table})
        plan.informed(statistics, frozenset()).apply(graph.model)
        made = [ExportedGraph("changed", graph.model)]
        write_graphs(bind_graphs(made, {}, self.path.parent, external_data="auto"), SILENT.stage)
        return self.path.parent / "changed.onnx"


def computed(path: Path, ids: Any, x: Any) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": ids, "x": x})


@pytest.mark.parametrize("depth", [64, 40], ids=["whole blocks", "padded"])
@pytest.mark.parametrize(
    "form",
    [
        Blocks(8),
        Blocks(4, symmetric=False),
        Blocks(4, size=16, symmetric=False),
        Columns(),
        Columns(signed=False, activations="row", smooth=0.5),
        Columns(per_channel=False, activations="static"),
        Columns(signed=False, per_channel=False),
    ],
    ids=["8 bits", "4 bits", "blocks of 16", "int8", "uint8 smoothed", "by tensor static", "uint8 by tensor"],
)
def test_a_tied_table_is_stored_once(tmp_path: Path, form: Blocks | Columns, depth: int) -> None:
    model = Tied.write(tmp_path, depth)
    feeds = np.arange(ROWS), model.table
    changed = model.rewritten(Plan(form))
    graph = onnx.load(changed).graph
    assert {node.op_type for node in graph.node if node.domain} <= IN_BROWSERS
    stored = sum(len(entry.raw_data) for entry in graph.initializer)
    assert stored < 1.7 * ROWS * -(-depth // 32) * 32 * getattr(form, "bits", 8) // 8
    for expected, found in zip(computed(model.path, *feeds), computed(changed, *feeds), strict=True):
        assert np.linalg.norm(found - expected) < 0.2 * np.linalg.norm(expected)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 2, 3), (0,)])
@pytest.mark.parametrize(
    "form",
    [
        Blocks(8, accuracy_level=0),
        Blocks(8, symmetric=False, accuracy_level=0),
        Blocks(4, size=16, accuracy_level=0),
        Blocks(4, size=16, symmetric=False, accuracy_level=0),
    ],
    ids=lambda form: form.label,
)
def test_a_row_in_blocks_is_what_the_kernel_multiplies_with(
    tmp_path: Path, form: Blocks, shape: tuple[int, ...]
) -> None:
    """Times the unit matrix, onnxruntime's product gives the table as its own kernel reads it: three blocks a row."""
    changed = Tied.write(tmp_path, 40, len(shape)).rewritten(Plan(form))
    ids = np.arange(np.prod(shape, dtype=int)).reshape(shape) * 7 % ROWS
    rows, products = computed(changed, ids, np.eye(40, dtype=np.float32))
    assert rows.shape == (*shape, 40)
    np.testing.assert_allclose(rows, products.T[ids], atol=1e-6)


def test_a_table_whose_matrix_stays_in_float_stays_with_it(tmp_path: Path) -> None:
    changed = onnx.load(Tied.write(tmp_path, 64).rewritten(Plan(None)))
    assert [entry.name for entry in changed.graph.initializer] == ["table"]


def test_rows_in_blocks_are_unpacked_in_halves_too(tmp_path: Path) -> None:
    model = Tied.write(tmp_path, 40)
    feeds = np.arange(ROWS), model.table
    changed = model.rewritten(Plan(Blocks(4, size=16, symmetric=False), half=True))
    for expected, found in zip(computed(model.path, *feeds), computed(changed, *feeds), strict=True):
        assert np.linalg.norm(found - expected) < 0.2 * np.linalg.norm(expected)
