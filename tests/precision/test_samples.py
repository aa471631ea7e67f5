"""Samples that a user gives: read as they are, all of them used for what was asked, refused where they cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.errors import UsageError
from converter.precision.quantize import quantize_package
from converter.precision.samples import read_samples
from converter.precision.settings import Settings

Make = Callable[..., Path]


def test_a_mark_of_windows_editors_is_no_part_of_the_first_text(tmp_path: Path) -> None:
    for name, content in (("a.txt", "one\r\ntwo\r\n"), ("a.jsonl", '"one"\r\n{"text": "two"}\r\n')):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert read_samples(tmp_path / name, 2).items == ("one", "two")


def test_a_json_line_ends_where_json_says(tmp_path: Path) -> None:
    """JSON leaves Unicode's line separators as they are within a string."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps("one\u2028and a half", ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_samples(path, 1).items == ("one\u2028and a half",)


@pytest.mark.parametrize("line", ['{"txt": "b"}', '{"x": [["a"]]}', "[1, 2]", "3", "{}"])
def test_the_line_that_is_no_sample_is_named_by_its_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'"a text"\n\n\n{line}\n')
    with pytest.raises(UsageError, match="line 4 is neither a text nor an object of arrays"):
        read_samples(path, None)


@pytest.mark.xdist_group("judging")
def test_a_pair_of_graphs_is_calibrated_on_all_samples_that_were_given(
    package_of: Make, tmp_path: Path
) -> None:
    """Every third was used, of what a user gave as well."""
    texts = tmp_path / "texts.txt"
    texts.write_text("a first text\nanother one\nthe third\nand a fourth\n")
    others = tmp_path / "others.txt"
    others.write_text("of these\nthere are\nfour as\nwell\n")
    given = {"calibration": str(texts), "evaluation": str(others), "static": "minmax"}
    (row,) = quantize_package(package_of("t5"), ["int8"], output=tmp_path / "p", **given).rows
    assert row.calibration is not None
    assert row.calibration["samples"] == 4
    assert row.quality is not None
    assert row.quality.samples == 4


def summing(folder: Path) -> Path:
    """x (rows, 48) and a whole number -> y (rows, 24)."""
    matrix = np.random.default_rng(0).standard_normal((48, 24)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "matrix"], ["product"]),
        helper.make_node("Cast", ["n"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["product", "float"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 48]),
        helper.make_tensor_value_info("n", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 24]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:2], ends[2:], [numpy_helper.from_array(matrix, "matrix")])
    path = folder / "summing.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def arrays(path: Path, count: int) -> str:
    draw = np.random.default_rng(1)
    feeds = [{"x": draw.standard_normal((3, 48)).tolist(), "n": [index]} for index in range(count)]
    path.write_text("".join(f"{json.dumps(feed)}\n" for feed in feeds))
    return str(path)


def test_as_many_arrays_calibrate_as_were_asked_for(tmp_path: Path) -> None:
    """Of 20, 10 of which calibrated, 20 could be asked for."""
    path, lines = summing(tmp_path), arrays(tmp_path / "twenty.jsonl", 20)
    given: dict[str, Any] = {"calibration": lines, "static": "minmax", "precisions": ["int8"]}
    (row,) = quantize_package(path, output=tmp_path / "p", num_samples=7, **given).rows
    assert row.calibration is not None
    assert row.calibration["samples"] == 7
    assert row.quality is not None
    assert row.quality.samples == 10
    with pytest.raises(UsageError, match="10 calibration samples are there, but 11 were asked for"):
        quantize_package(path, output=tmp_path / "q", num_samples=11, **given)
    others = arrays(tmp_path / "others.jsonl", 20)
    (row,) = quantize_package(path, output=tmp_path / "r", num_samples=20, evaluation=others, **given).rows
    assert row.calibration is not None
    assert row.calibration["samples"] == 20


def test_evaluation_samples_that_would_be_passed_over_are_refused(tmp_path: Path) -> None:
    path, lines = summing(tmp_path), arrays(tmp_path / "some.jsonl", 4)
    texts = tmp_path / "texts.txt"
    texts.write_text("a text\nanother\n")
    with pytest.raises(UsageError, match=r"--evaluation .*some\.jsonl holds feeds") as caught:
        quantize_package(path, ["int8"], output=tmp_path / "p", evaluation=lines)
    assert "--calibration with JSON lines of arrays by input name as well" in (caught.value.remedy or "")
    with pytest.raises(UsageError, match=r"--evaluation .*texts\.txt holds texts, and --calibration"):
        quantize_package(path, ["int8"], output=tmp_path / "p", calibration=lines, evaluation=str(texts))


@pytest.mark.parametrize(("other", "shared"), [("texts.txt", 3), ("more.txt", 1)])
def test_what_recipes_are_chosen_by_does_not_judge_them(other: str, shared: int, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a first text\nanother one\nthe third\n")
    (tmp_path / "more.txt").write_text("a fourth\nanother one\n")
    settings = Settings.of(calibration=tmp_path / "texts.txt", evaluation=tmp_path / other)
    with pytest.raises(UsageError, match=rf"--evaluation .* holds {shared} of the samples of --calibration"):
        settings.samples()
