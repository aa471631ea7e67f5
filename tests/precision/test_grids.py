"""Weights that training rounded to 4 bits are stored in just these, and any others as always."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.precision.formats import Blocks, Plan, read_plan
from converter.precision.grids import trained_for
from converter.precision.quantize import quantize_package
from converter.recipes import Constant

PLANS = [Plan(Blocks(4, symmetric=False)), Plan(Blocks(4, size=16, symmetric=False)), Plan(Blocks(8))]
Array = np.ndarray[Any, Any]


def ordinary(depth: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((depth, width)).astype(np.float32)


def rounded(weights: Array, size: int = 32) -> Array:
    """As llama.cpp's Q4_0 has it: in each block the largest weight is -8 times the scale, a half."""
    depth, width = weights.shape
    blocks = np.pad(weights, ((0, -depth % size), (0, 0))).T.reshape(width, -1, size)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scales = (largest / -8).astype(np.float16).astype(np.float32)
    levels = np.clip(np.round(blocks / np.where(scales, scales, 1)), -8, 7)
    found: Array = (levels * scales).reshape(width, -1)[:, :depth].T
    return found


@pytest.mark.parametrize("shape", [(96, 40), (70, 33), (64, 7)])
def test_blocks_around_zero_are_taken_where_weights_lie_in_them(shape: tuple[int, int]) -> None:
    exact = [Constant.of(rounded(ordinary(*shape, seed))) for seed in range(11)]
    assert trained_for(PLANS, exact) == [Plan(Blocks(4)), PLANS[-1]]
    stored = [Constant.of(rounded(ordinary(*shape)).astype(ml_dtypes.bfloat16).astype(np.float32))]
    assert trained_for(PLANS, stored) == [Plan(Blocks(4)), PLANS[-1]]
    fine = [Constant.of(rounded(ordinary(*shape), size=16))]
    assert trained_for(PLANS, fine) == [Plan(Blocks(4, size=16)), PLANS[-1]]


@pytest.mark.parametrize("most", [1, 7])
def test_grids_that_are_the_same_on_both_sides_are_seen_too(most: int) -> None:
    """One is BitNet's. onnxruntime's kernels round to -8 to 7, where the largest weight would be 7/8."""
    levels = np.clip(np.round(ordinary(96, 40) * (most + 1) / 2), -most, most)
    levels[::16] = most  # in each block
    form = Blocks(4, narrow=True)
    assert trained_for(PLANS, [Constant.of(levels * np.float32(0.037))]) == [Plan(form), PLANS[-1]]
    assert read_plan(Plan(form).to_json()) == Plan(form)


def test_other_weights_are_tried_as_always() -> None:
    assert trained_for(PLANS, [Constant.of(ordinary(96, 40))]) == PLANS
    mostly = [
        Constant.of(ordinary(96, 40)),
        Constant.of(ordinary(96, 40)),
        Constant.of(rounded(ordinary(96, 40))),
    ]
    assert trained_for(PLANS, mostly) == PLANS
    eight = [Plan(Blocks(8))]
    assert trained_for(eight, [Constant.of(rounded(ordinary(96, 40)))]) == eight


def test_a_model_trained_in_4_bits_loses_nothing_by_q4(tmp_path: Path) -> None:
    """The search had taken blocks with zero points, which the weights do not lie in: a cosine of 0.992 for MiniLM."""
    matrix = rounded(ordinary(64, 48))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("x", 64), ("y", 48))
    ]
    node = helper.make_node("MatMul", ["x", "matrix"], ["y"])
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(matrix, "matrix")])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    options: dict[str, Any] = {"output": tmp_path / "p", "accuracy_level": 0, "keep": ("cosine=0.9999999",)}
    (row,) = quantize_package(path, ["q4"], **options).rows
    assert row.passed and row.plan == Plan(Blocks(4, accuracy_level=0))
    assert "q4: the weights lie in 4 bits in blocks of 32, accuracy level 0 already" in row.notes
