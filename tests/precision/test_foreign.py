"""ONNX files that other exporters made: older opsets, weights in other places, branches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.errors import PackageError, ParityError, UsageError
from converter.packages.package import inspect_package
from converter.precision.quantize import quantize_package

DEPTH, WIDTH = 50, 70


def weight(name: str, depth: int, width: int, seed: int = 0) -> onnx.TensorProto:
    values = np.random.default_rng(seed).standard_normal((depth, width)) / depth**0.5
    return numpy_helper.from_array(values.astype(np.float32), name)


def floats(name: str, width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width])


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 17,
    ir_version: int = 8,
    **external: Any,
) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.checker.check_model(model)
    onnx.save(model, path, **external)
    return path


def product(path: Path, **how: Any) -> Path:
    """x (rows, 50) -> product -> y (rows, 70)."""
    nodes = [helper.make_node("MatMul", ["x", "matrix"], ["y"])]
    return save(
        path, nodes, [floats("x", DEPTH)], [floats("y", WIDTH)], [weight("matrix", DEPTH, WIDTH)], **how
    )


def run(path: Path, feed: dict[str, Any]) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)[0]


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_every_format_of_8_bits_is_written_for_older_opsets(opset: int, tmp_path: Path) -> None:
    """ReduceMax takes its axes as an input only since opset 18: q8 made a graph that nothing opens."""
    path = product(tmp_path / "old.onnx", opset=opset)
    report = quantize_package(
        path, ["q8", "int8", "q4"], output=tmp_path / "p", keep="cosine=0.9", prefer="speed"
    )
    assert report.kept == ("q8", "int8", "q4")
    assert len(report.rows[0].tried) >= 7


def tied(path: Path, opset: int) -> Path:
    """ids -> rows of a table -> their products with it."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Transpose", ["table"], ["turned"]),
        helper.make_node("MatMul", ["rows", "turned"], ["y"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])
    scores = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", 90])
    return save(path, nodes, [ids], [scores], [weight("table", 90, DEPTH)], opset=opset)


@pytest.mark.parametrize("opset", [11, 17])
def test_a_tied_table_is_looked_up_in_older_opsets(opset: int, tmp_path: Path) -> None:
    """Unsqueeze takes its axes as an input only since opset 13."""
    path = tied(tmp_path / "tied.onnx", opset)
    quantize_package(path, ["q8", "q4", "uint8"], output=tmp_path / "p", unjudged=True)
    ids = np.array([[3, 89, 0]])
    full = run(path, {"ids": ids}).ravel()
    for suffix in ("quantized", "q4", "uint8"):
        found = run(tmp_path / f"p/onnx/tied_{suffix}.onnx", {"ids": ids}).ravel()
        assert full @ found / np.linalg.norm(full) / np.linalg.norm(found) > 0.98, suffix


def test_what_an_old_opset_cannot_say_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = product(tmp_path / "old.onnx", opset=12)
    with pytest.raises(UsageError, match="by column needs opset 13, and the graph has 12"):
        quantize_package(path, ["int8"], output=tmp_path / "p", static="minmax")
    quantize_package(path, ["int8"], output=tmp_path / "p", static="minmax", per_channel=False)
    ancient = product(tmp_path / "ancient.onnx", opset=10)
    with pytest.raises(PackageError, match="opset 10, which has no operators for integers"):
        quantize_package(ancient, ["int8"], output=tmp_path / "q")


def in_constants(folder: Path) -> Path:
    nodes = [
        helper.make_node("Constant", [], ["matrix"], value=weight("matrix", DEPTH, WIDTH)),
        helper.make_node("MatMul", ["x", "matrix"], ["y"]),
    ]
    return save(folder / "ranker.onnx", nodes, [floats("x", DEPTH)], [floats("y", WIDTH)])


def among_inputs(folder: Path) -> Path:
    nodes = [helper.make_node("MatMul", ["x", "matrix"], ["y"])]
    inputs = [floats("x", DEPTH), helper.make_tensor_value_info("matrix", TensorProto.FLOAT, [DEPTH, WIDTH])]
    weights = [weight("matrix", DEPTH, WIDTH)]
    return save(folder / "ranker.onnx", nodes, inputs, [floats("y", WIDTH)], weights, ir_version=3, opset=11)


def in_a_file_of_any_name(folder: Path) -> Path:
    external = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    return product(folder / "ranker.onnx", **external)


@pytest.mark.parametrize("make", [in_constants, among_inputs, in_a_file_of_any_name])
def test_weights_are_found_wherever_an_exporter_left_them(make: Any, tmp_path: Path) -> None:
    path = make(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    report = quantize_package(path, ["q8", "fp16"], output=tmp_path / "p", keep="cosine=0.9")
    assert report.kept == ("q8", "fp16")
    assert report.rows[0].ratio < 0.5
    assert report.rows[1].ratio < 0.6
    assert inspect_package(tmp_path / "p").intact
    assert {
        file.name: (tmp_path / "p/onnx" / file.name).read_bytes()
        for file in tmp_path.iterdir()
        if file.is_file()
    } == before
    feed = {"x": np.ones((3, DEPTH), np.float32)}
    for suffix in ("quantized", "fp16"):
        assert np.allclose(run(tmp_path / f"p/onnx/ranker_{suffix}.onnx", feed), run(path, feed), atol=0.05)


def branch(name: str, seed: int) -> onnx.GraphProto:
    """Own weights, called the same in each branch, and one that is outside of all branches."""
    nodes = [
        helper.make_node("MatMul", ["x", "own"], ["a"]),
        helper.make_node("MatMul", ["a", "shared"], [name]),
    ]
    return helper.make_graph(nodes, name, [], [floats(name, 200)], [weight("own", 200, 200, seed)])


@pytest.fixture
def branches(tmp_path: Path) -> Path:
    """As merged decoders have them that other exporters make."""
    nodes = [
        helper.make_node("MatMul", ["x", "shared"], ["before"]),
        helper.make_node(
            "If", ["first"], ["chosen"], then_branch=branch("yes", 1), else_branch=branch("no", 2)
        ),
        helper.make_node("Add", ["before", "chosen"], ["y"]),
    ]
    inputs = [floats("x", 200), helper.make_tensor_value_info("first", TensorProto.BOOL, [1])]
    return save(tmp_path / "merged.onnx", nodes, inputs, [floats("y", 200)], [weight("shared", 200, 200)])


def test_branches_share_what_their_weights_become(branches: Path, tmp_path: Path) -> None:
    """A matrix that two branches read was stored once in each, and q8 failed, since nothing is seen in branches."""
    lines = tmp_path / "inputs.jsonl"
    draw = np.random.default_rng(3)
    feeds = [{"x": draw.standard_normal((2, 200)).tolist(), "first": [bool(index % 2)]} for index in range(8)]
    lines.write_text("".join(f"{json.dumps(feed)}\n" for feed in feeds))
    names = ["q8", "int8", "q4", "fp16"]
    report = quantize_package(
        branches, names, output=tmp_path / "p", calibration=str(lines), keep="cosine=0.98", trials=20
    )
    assert report.kept == tuple(names)
    ratios = {row.name: row.ratio for row in report.rows}
    assert ratios["int8"] < 0.28
    assert ratios["q4"] < 0.22
    assert not [trial for trial in report.rows[0].tried if "smoothed" in trial.plan.label]
    for first in (True, False):
        feed = {"x": np.float32(feeds[0]["x"]), "first": np.array([first])}
        found = run(tmp_path / "p/onnx/merged_int8.onnx", feed)
        assert np.abs(found - run(branches, feed)).max() < 0.15


def test_a_copy_of_fp32_is_no_precision(tmp_path: Path) -> None:
    """It keeps any budget, and was written under the name of one."""
    path = product(tmp_path / "one.onnx")
    report = quantize_package(path, ["bnb4"], output=tmp_path / "p", keep="cosine=0.9999999")
    assert not report.kept
    with pytest.raises(ParityError, match="bnb4: nothing smaller than fp32 keeps the budget"):
        report.require_passed()
    assert not (tmp_path / "p").exists()
