"""Recipes: what each expression computes, in blocks of any size, and which recipes are the same."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from converter.arrays import flat_boxes, row_blocks
from converter.checkpoints.tensor_file import read_header
from converter.errors import CheckpointError, WeightError
from converter.recipes import (
    AddLowRank,
    Cast,
    Concat,
    Constant,
    Load,
    Parameter,
    RecipeTensor,
    Reshape,
    Slice,
    Stack,
    Transpose,
    WeightRecipe,
    bind,
    blocks,
    read,
    simplify,
)
from converter.records import TensorInfo
from converter.weights import expressions

F32, F16, BF16 = np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)


def values(*shape: int, dtype: np.dtype = F32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def loads(folder: Path, **tensors: np.ndarray) -> dict[str, Load]:
    save_file(tensors, folder / "model.safetensors")
    return {name: Load(info) for name, info in read_header(folder / "model.safetensors").items()}


def assert_computes(recipe: WeightRecipe, expected: np.ndarray, max_bytes: int = 64) -> None:
    """The recipe's value is `expected` bit for bit: read whole, in blocks, and in its simplest form."""
    assert (recipe.shape, recipe.dtype) == (expected.shape, expected.dtype)
    wanted = np.ascontiguousarray(expected).tobytes()
    assert read(recipe).tobytes() == wanted
    assert b"".join(block.tobytes() for block in blocks(recipe, max_bytes)) == wanted
    assert read(simplify(recipe)).tobytes() == wanted


# --- values -------------------------------------------------------------------------------------------------


def test_each_expression_is_what_numpy_computes(tmp_path: Path) -> None:
    a, b, scalar = values(37, 53), values(5, 6, 7, dtype=BF16), np.float32(3.5)
    load = loads(tmp_path, a=a, b=b, scalar=np.array(scalar), empty=np.zeros((0, 4), F16))
    assert_computes(load["a"], a)
    assert_computes(load["scalar"], np.array(scalar))
    assert_computes(load["empty"], np.zeros((0, 4), F16))
    assert_computes(Transpose(load["a"], (1, 0)), a.T)
    assert_computes(Transpose(load["b"], (2, 0, 1)), b.transpose(2, 0, 1))
    assert_computes(Slice(load["a"], 1, 5, 20), a[:, 5:20])
    assert_computes(Reshape(load["a"], (53, 37)), a.reshape(53, 37))
    assert_computes(Concat((load["a"], Slice(load["a"], 1, 3, 9)), 1), np.concatenate([a, a[:, 3:9]], 1))
    assert_computes(Stack((load["b"], load["b"]), 1), np.stack([b, b], 1))
    assert_computes(Stack((load["scalar"], load["scalar"]), 0), np.stack([scalar, scalar]))
    assert_computes(Constant.of(a.T), a.T)


def test_expressions_nest(tmp_path: Path) -> None:
    a, b = values(12, 10), values(3, 4, 10, dtype=BF16)
    load = loads(tmp_path, a=a, b=b)
    turned = Reshape(Transpose(load["b"], (2, 0, 1)), (6, 20))
    assert_computes(turned, b.transpose(2, 0, 1).reshape(6, 20))
    assert_computes(Slice(turned, 1, 3, 17), b.transpose(2, 0, 1).reshape(6, 20)[:, 3:17])
    joined = Concat((Cast(Reshape(load["b"], (12, 10)), F32), load["a"]), 0)
    assert_computes(
        Transpose(joined, (1, 0)), np.concatenate([b.reshape(12, 10).astype(F32), a], dtype=F32).T
    )
    stacked = Transpose(Stack((load["b"], load["b"]), 3), (3, 0, 2, 1))
    assert_computes(stacked, np.stack([b, b], 3).transpose(3, 0, 2, 1))


@pytest.mark.parametrize("scratch", [16, 200, 1 << 20])
@pytest.mark.parametrize("run", [8, 1 << 16])
def test_the_value_does_not_depend_on_how_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scratch: int, run: int
) -> None:
    monkeypatch.setattr(expressions, "SCRATCH", scratch)
    monkeypatch.setattr(expressions, "_RUN", run)
    a, b = values(17, 23), values(4, 5, 6, dtype=BF16)
    load = loads(tmp_path, a=a, b=b)
    for max_bytes in (4, 50, 1000):
        assert_computes(Transpose(load["a"], (1, 0)), a.T, max_bytes)
        assert_computes(Transpose(load["b"], (1, 2, 0)), b.transpose(1, 2, 0), max_bytes)
        assert_computes(Slice(Reshape(load["b"], (20, 6)), 1, 1, 5), b.reshape(20, 6)[:, 1:5], max_bytes)


def test_a_large_transpose_is_turned_in_squares(tmp_path: Path) -> None:
    """Sides that are no multiple of a square's."""
    a = values(300, 515, dtype=BF16)
    load = loads(tmp_path, a=a)
    assert_computes(Cast(Transpose(load["a"], (1, 0)), F32), a.T.astype(F32), 1 << 20)
    cube = values(3, 200, 150)
    experts = loads(tmp_path, cube=cube)["cube"]
    assert_computes(Transpose(experts, (0, 2, 1)), cube.transpose(0, 2, 1), 1 << 20)


def test_blocks_are_runs_of_rows_no_larger_than_asked(tmp_path: Path) -> None:
    load = loads(tmp_path, a=values(10, 8))["a"]
    found = [block.shape for block in blocks(load, 100)]
    assert found == [(3, 8), (3, 8), (3, 8), (1, 8)]
    assert all(block.flags.c_contiguous for block in blocks(Transpose(load, (1, 0)), 100))


def test_a_row_larger_than_a_block_is_cut(tmp_path: Path) -> None:
    a = values(2, 10, 8)
    load = loads(tmp_path, a=a)["a"]
    assert max(block.nbytes for block in blocks(load, 100)) <= 100
    assert_computes(load, a, 100)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), max_size=4), st.integers(1, 90), st.data())
def test_blocks_and_boxes_cover_an_array_once_and_in_order(
    shape: list[int], max_bytes: int, data: st.DataObject
) -> None:
    array = np.arange(math.prod(shape)).reshape(shape)
    cut = [
        array[tuple(slice(*pair) for pair in region)].reshape(-1)
        for region in row_blocks(shape, 8, max_bytes)
    ]
    assert np.concatenate(cut).tolist() == list(range(array.size))
    start = data.draw(st.integers(0, array.size))
    stop = data.draw(st.integers(start, array.size))
    boxes = [array[tuple(slice(*pair) for pair in box)].reshape(-1) for box in flat_boxes(shape, start, stop)]
    assert [value for box in boxes for value in box] == list(range(start, stop))


# --- dtypes -------------------------------------------------------------------------------------------------


def test_bfloat16_to_float32_is_exact_for_every_bit_pattern(tmp_path: Path) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(BF16)
    recipe = Cast(loads(tmp_path, every=every)["every"], F32)
    expected = np.arange(1 << 16, dtype=np.uint32) << 16
    assert np.array_equal(read(recipe).view(np.uint32), expected)


@pytest.mark.parametrize("source", [F32, BF16])
def test_a_value_beyond_float16_is_an_error_that_names_the_tensor(tmp_path: Path, source: np.dtype) -> None:
    a = values(4, 4, dtype=source)
    a[2, 1] = 70000
    with pytest.raises(WeightError, match=r"float16.*beyond.*'a'") as caught:
        read(Cast(loads(tmp_path, a=a)["a"], F16))
    assert "bf16" in caught.value.remedy


def test_a_double_beyond_float32_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="beyond the range of float32"):
        read(Cast(loads(tmp_path, a=np.array([1e300]))["a"], F32))


def test_an_infinity_that_is_in_the_checkpoint_stays_one(tmp_path: Path) -> None:
    a = np.array([1, np.inf, -np.inf], F32)
    assert_computes(Cast(loads(tmp_path, a=a)["a"], F16), a.astype(F16))


def test_casts_round_one_after_the_other(tmp_path: Path) -> None:
    a = values(9, 9)
    load = loads(tmp_path, a=a)["a"]
    assert_computes(Cast(Cast(load, F16), F32), a.astype(F16).astype(F32))


def test_a_low_rank_update_is_added_in_float32(tmp_path: Path) -> None:
    base, a, b = values(20, 12, dtype=BF16), values(3, 12, seed=1), values(20, 3, seed=2)
    load = loads(tmp_path, base=base, a=a, b=b)
    merged = AddLowRank(load["base"], load["a"], load["b"], 0.5)
    expected = base.astype(F32) + 0.5 * (b @ a)
    assert (merged.shape, merged.dtype) == ((20, 12), BF16)
    assert np.allclose(read(merged).astype(F32), expected, atol=0.02)
    exact = AddLowRank(Cast(load["base"], F32), load["a"], load["b"], 0.5)
    assert np.allclose(read(exact), expected, atol=1e-5)
    assert np.allclose(read(Transpose(exact, (1, 0))), expected.T, atol=1e-5)
    assert np.allclose(np.concatenate(list(blocks(exact, 100))), expected, atol=1e-5)


def test_a_dtype_that_numpy_lacks_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'packed' is stored as F4"):
        Load(TensorInfo("packed", "F4", (2, 2), tmp_path / "x", 0, 2))


# --- validation ---------------------------------------------------------------------------------------------


def test_impossible_expressions_are_refused_when_they_are_made(tmp_path: Path) -> None:
    load = loads(tmp_path, a=values(3, 4), b=values(4, 3), c=values(3, 4, dtype=F16))
    a, b, c = load["a"], load["b"], load["c"]
    impossible = [
        lambda: Transpose(a, (0, 0)),
        lambda: Reshape(a, (5, 2)),
        lambda: Slice(a, 1, 2, 5),
        lambda: Slice(a, 2, 0, 1),
        lambda: Concat((a, b), 0),
        lambda: Concat((a, c), 0),
        lambda: Concat((), 0),
        lambda: Stack((a, b), 0),
        lambda: Stack((a, a), 3),
        lambda: AddLowRank(a, a, b, 1.0),
    ]
    for make in impossible:
        with pytest.raises(WeightError):
            make()


# --- binding ------------------------------------------------------------------------------------------------


def test_binding_replaces_parameters_and_casts_to_the_graphs_dtype(tmp_path: Path) -> None:
    load = loads(tmp_path, a=(a := values(3, 4, dtype=BF16)))["a"]
    bound = bind(Transpose(Parameter("weight", (3, 4), F32), (1, 0)), {"weight": load})
    assert bound == Cast(Transpose(load, (1, 0)), F32)
    assert_computes(bound, a.T.astype(F32))


def test_binding_adds_no_cast_where_the_dtype_is_right(tmp_path: Path) -> None:
    load = loads(tmp_path, a=values(3, 4))["a"]
    assert bind(Parameter("weight", (3, 4), F32), {"weight": load}) == load


def test_a_parameter_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    load = loads(tmp_path, stored=values(3, 4))["stored"]
    with pytest.raises(WeightError, match=r"'weight' has shape \(4, 4\).*\(3, 4\).*'stored'"):
        bind(Parameter("weight", (4, 4), F32), {"weight": load})


@pytest.mark.parametrize("stored", [np.int8, np.uint8, ml_dtypes.float8_e4m3fn])
def test_quantized_weights_are_refused(tmp_path: Path, stored: type) -> None:
    """Their scales are tensors of their own, which no cast knows of."""
    load = loads(tmp_path, q=np.ones((3, 4), stored))["q"]
    with pytest.raises(WeightError, match=r"'weight' is float32, the checkpoint stores .*'q'"):
        bind(Parameter("weight", (3, 4), F32), {"weight": load})


def test_a_parameter_without_a_source_is_named() -> None:
    with pytest.raises(WeightError, match="'weight' has no tensor"):
        bind(Parameter("weight", (4, 4), F32), {})


def test_an_unbound_parameter_cannot_be_read() -> None:
    with pytest.raises(WeightError, match="'weight' is not bound"):
        read(Parameter("weight", (4, 4), F32))


def test_equal_values_written_differently_are_equal_recipes(tmp_path: Path) -> None:
    a = loads(tmp_path, a=values(4, 6, 8, dtype=BF16))["a"]
    assert simplify(Cast(a, BF16)) == a
    assert simplify(Transpose(a, (0, 1, 2))) == a
    assert simplify(Transpose(Transpose(a, (1, 2, 0)), (2, 0, 1))) == a
    assert simplify(Reshape(Reshape(a, (24, 8)), (4, 6, 8))) == a
    assert simplify(Slice(a, 0, 0, 4)) == a
    assert simplify(Slice(Slice(a, 1, 1, 5), 1, 2, 3)) == Slice(a, 1, 3, 4)
    assert simplify(Concat((a,), 1)) == a
    assert simplify(Cast(Cast(a, F32), F16)) == Cast(a, F16)
    assert simplify(Transpose(Cast(a, F32), (1, 0, 2))) == simplify(Cast(Transpose(a, (1, 0, 2)), F32))
    assert len({simplify(Cast(a, BF16)), a}) == 1


def test_a_cast_that_loses_values_is_not_dropped(tmp_path: Path) -> None:
    a = loads(tmp_path, a=values(4))["a"]
    assert simplify(Cast(Cast(a, F16), F32)) == Cast(Cast(a, F16), F32)


# --- in a graph ---------------------------------------------------------------------------------------------


def test_a_recipe_tensor_looks_like_a_tensor_without_values() -> None:
    tensor = RecipeTensor(Parameter("weight", (3, 4), BF16), name="w")
    assert (tensor.name, tensor.dtype, tensor.shape, tensor.nbytes) == ("w", ir.DataType.BFLOAT16, [3, 4], 24)
    for use in (tensor.numpy, tensor.tobytes, lambda: np.asarray(tensor)):
        with pytest.raises(WeightError, match="'w' was asked for its values"):
            use()


def test_a_recipe_tensor_can_be_copied() -> None:
    tensor = RecipeTensor(Parameter("weight", (3, 4), F32), name="w")
    twin = copy.copy(tensor)
    twin.name = "other"
    assert (tensor.name, twin.name, twin.recipe) == ("w", "other", tensor.recipe)
