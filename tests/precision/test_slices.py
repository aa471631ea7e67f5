"""Large graphs are run slice by slice: the same numbers, a slice's weights in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.packages.package import inspect_package
from converter.precision import sliced
from converter.precision.compare import Rows
from converter.precision.judge import Judge
from converter.precision.quantize import main_stems, quantize_package
from converter.precision.sessions import ONNX, Sessions
from converter.precision.sliced import SlicedSessions
from converter.precision.slices import cut
from converter.precision.statistics import Points, Statistics
from converter.precision.stored import read_graphs

pytestmark = pytest.mark.xdist_group("judging")
Make = Callable[..., Path]
WIDTH = 16


def chain(path: Path) -> onnx.ModelProto:
    """Four products, whose table is also looked up, and one that nobody wants; the last one's weights are turned."""
    draw = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(draw.standard_normal((WIDTH, WIDTH)).astype(np.float32), name)
        for name in ("table", "w1", "w2", "w3", "spare")
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x0"]),
        helper.make_node("MatMul", ["x0", "w1"], ["y1"]),
        helper.make_node("Tanh", ["y1"], ["z1"]),
        helper.make_node("Add", ["z1", "x0"], ["x1"]),
        helper.make_node("MatMul", ["x1", "w2"], ["y2"]),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Mul", ["y2", "half"], ["x2"]),
        helper.make_node("MatMul", ["x2", "w3"], ["x3"]),
        helper.make_node("MatMul", ["x3", "spare"], ["spared"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x3", "turned"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH])
            for name in ("logits", "spared", "x3")
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return model


def test_a_graph_is_cut_where_fewest_values_cross(tmp_path: Path) -> None:
    graph = chain(tmp_path / "model.onnx").graph
    sizes = dict.fromkeys(("table", "w1", "w2", "w3", "spare"), 100)
    parts = cut(graph, sizes, ["logits"], ["y2"], most=200)
    assert [sorted(part.weights) for part in parts] == [["table", "w1"], ["w2", "w3"], ["table"]]
    assert [part.inputs for part in parts] == [("ids",), ("x1",), ("x3",)], "x1 alone, not x0 and y1"
    assert [part.outputs for part in parts] == [("x1",), ("x3", "y2"), ("logits",)]
    assert [sorted(part.drop) for part in parts[1:]] == [["x1", "x2", "y2"], ["x3"]]
    assert "Transpose" in [node.op_type for node in parts[2].nodes], (
        "computed from weights, in the slice that reads it"
    )
    assert "spared" not in [name for part in parts for node in part.nodes for name in node.output]
    assert len(cut(graph, sizes, ["logits"], most=10**6)) == 1


@pytest.mark.parametrize("embedded", [True, False], ids=["weights inside", "data file"])
def test_slices_give_what_the_whole_graph_gives(
    embedded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ONNX).mkdir()
    path = tmp_path / ONNX / "model.onnx"
    model = chain(path)
    if not embedded:
        onnx.save(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    monkeypatch.setattr(sliced, "SLICE", 2 * WIDTH * WIDTH * 4)
    feeds = [{"ids": np.arange(count)} for count in (1, 3, 7)]
    points = Points.of(read_graphs(path.parent, ["model"]))
    seen = [Statistics(points), Statistics(points)]
    found = [
        list(kind(tmp_path, statistics=statistics).run_all("model", feeds))
        for kind, statistics in zip((Sessions, SlicedSessions), seen, strict=True)
    ]
    for whole, parts in zip(*found, strict=True):
        assert set(whole) == set(parts) == {"logits", "spared", "x3"}, "also what enters a matrix"
        for name in whole:
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, atol=1e-5)
    assert seen[0].highs.keys() == seen[1].highs.keys()
    for name in seen[0].peaks:
        np.testing.assert_allclose(seen[1].peaks[name], seen[0].peaks[name], rtol=1e-5)


@pytest.mark.parametrize("arch", ["qwen2", "t5"])
def test_large_models_are_judged_in_slices_alike(
    arch: str, package_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = package_of(arch)
    record = inspect_package(package).record
    judge = Judge.of(package, record, main_stems(record))
    samples = judge.evaluation[:8]
    whole = judge.task.run(Sessions(package), samples)
    monkeypatch.setattr(sliced, "SLICE", 64 * 2**10)
    parts = judge.task.run(SlicedSessions(package), samples, whole)
    quality = judge.task.compare(whole, parts)
    assert quality.values["cosine_min"] > 1 - 1e-6
    assert quality.values["top1"] > 0.99


def test_a_large_model_is_calibrated_and_quantized_in_slices(
    package_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Sequence[str]] = []
    monkeypatch.setattr(sliced, "SLICE", 64 * 2**10)
    monkeypatch.setattr("converter.precision.judge.LARGE", 0)
    original = SlicedSessions._open_slice

    def counted(self: SlicedSessions, file: Any, part: Any, like: Any) -> Any:
        opened.append(sorted(part.weights))
        return original(self, file, part, like)

    monkeypatch.setattr(SlicedSessions, "_open_slice", counted)
    monkeypatch.setattr(
        "converter.precision.sessions.open_session", lambda *_: pytest.fail("a whole graph was opened")
    )
    report = quantize_package(
        package_of("qwen2"), ["int8"], output=tmp_path / "p", num_samples=8, trials=1, static="minmax"
    )
    (row,) = report.rows
    assert report.kept == ("int8",)
    assert row.quality is not None
    assert row.quality.values["cosine"] > 0.7, "scales of the wrong values would give noise"
    assert row.latency is not None
    assert len({tuple(names) for names in opened}) > 4


def test_what_is_kept_of_logits_is_no_view_of_them() -> None:
    """Of each passage of a judged decoder the places of all logits in order stayed in memory: 154 MB."""
    rows = Rows.of(np.random.default_rng(0).standard_normal((3, 2000), np.float32), targets=[1, 2, 3])
    for kept in (rows.values, rows.columns, rows.first, rows.loss):
        assert kept.base is None or kept.base.nbytes <= 2 * rows.columns.nbytes
