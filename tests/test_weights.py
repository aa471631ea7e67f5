"""From bound graphs to one data file: each weight once, in bounded memory, and right."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import save_file

from converter.checkpoints.tensor_file import read_header
from converter.errors import PackageError, WeightError
from converter.recipes import Load, Parameter, RecipeTensor, Transpose, WeightRecipe
from converter.records import ExportedGraph
from converter.request import Advance
from converter.weights.binding import DataLayout, bind_graph, check_data, plan_data_file
from converter.weights.hashed_file import BLOCK_BYTES

F32, F16, BF16 = np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)


def values(*shape: int, dtype: np.dtype = F32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def loads(folder: Path, **tensors: np.ndarray) -> dict[str, WeightRecipe]:
    save_file(tensors, folder / "model.safetensors")
    return {name: Load(info) for name, info in read_header(folder / "model.safetensors").items()}


def initializer(name: str, tensor: ir.TensorProtocol) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype))
    value.const_value = tensor
    return value


def graph(stem: str = "model", **tensors: WeightRecipe | np.ndarray) -> ExportedGraph:
    """A graph of nothing but initializers."""
    made = [
        initializer(
            name, RecipeTensor(tensor, name) if isinstance(tensor, WeightRecipe) else ir.tensor(tensor)
        )
        for name, tensor in tensors.items()
    ]
    return ExportedGraph(stem, ir.Model(ir.Graph([], [], nodes=[], initializers=made), ir_version=10))


def write_data_file(
    graphs: Sequence[ExportedGraph],
    path: Path,
    *,
    block_bytes: int = BLOCK_BYTES,
    advance: Advance | None = None,
) -> DataLayout:
    return plan_data_file(graphs, path, block_bytes=block_bytes).write(advance)


def stored(graph: ExportedGraph) -> Mapping[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in graph.model.graph.initializers.items()}


def external(graph: ExportedGraph) -> dict[str, int]:
    """Offsets of the initializers that lie in a data file."""
    tensors = {name: value.const_value for name, value in graph.model.graph.initializers.items()}
    return {name: tensor.offset for name, tensor in tensors.items() if isinstance(tensor, ir.ExternalTensor)}


# --- binding ------------------------------------------------------------------------------------------------


def test_binding_says_which_checkpoint_tensors_a_graph_uses(tmp_path: Path) -> None:
    mapping = loads(tmp_path, a=values(4, 4), b=values(4, 4), unused=values(2))
    bound = graph(y=Parameter("b", (4, 4), F32), x=Parameter("a", (4, 4), F32), z=Parameter("a", (4, 4), F32))
    assert bind_graph(bound, mapping) == ["a", "b"]


def test_a_missing_parameter_is_named_with_its_graph_and_near_misses(tmp_path: Path) -> None:
    mapping = loads(tmp_path, **{"layers.0.weight": values(4, 4)})
    unbound = graph("text_model", w=Parameter("layers.0.weigth", (4, 4), F32))
    with pytest.raises(
        WeightError, match=r"text_model, initializer 'w'.*'layers.0.weigth'.*'layers.0.weight'"
    ):
        bind_graph(unbound, mapping)


def test_the_recipes_of_subgraphs_are_bound_and_stored(tmp_path: Path) -> None:
    a = values(40, 40)
    inner_value = initializer("inner", RecipeTensor(Parameter("a", (40, 40), F32), "inner"))
    body = ir.Graph([], [], nodes=[], initializers=[inner_value], name="body")
    condition = initializer("condition", ir.tensor(np.array(True)))
    node = ir.node("If", [condition], {"then_branch": body})
    model = ir.Model(ir.Graph([], [], nodes=[node], initializers=[condition]), ir_version=10)
    outer = ExportedGraph("model", model)
    assert bind_graph(outer, loads(tmp_path, a=a)) == ["a"]
    write_data_file([outer], tmp_path / "data")
    assert np.array_equal(inner_value.const_value.numpy(), a)


# --- writing ------------------------------------------------------------------------------------------------


def test_weights_read_back_are_the_checkpoints_values(tmp_path: Path) -> None:
    a, b = values(60, 50, dtype=BF16), values(300)
    mapping = loads(tmp_path, a=a, b=b)
    both = graph(turned=Transpose(Parameter("a", (60, 50), F32), (1, 0)), b=Parameter("b", (300,), F32))
    bind_graph(both, mapping)
    layout = write_data_file([both], tmp_path / "data", block_bytes=512)
    found = stored(both)
    assert np.array_equal(found["turned"], a.T.astype(F32))
    assert np.array_equal(found["b"], b)
    assert layout.sha256 == hashlib.sha256((tmp_path / "data").read_bytes()).hexdigest()
    assert layout.size == (tmp_path / "data").stat().st_size
    assert check_data(layout) == 2


def test_equal_recipes_are_stored_once_across_graphs_and_names(tmp_path: Path) -> None:
    mapping = loads(tmp_path, a=values(32, 32))
    first, second = (
        graph("one", x=Parameter("a", (32, 32), F32)),
        graph("two", y=Parameter("a", (32, 32), F32)),
    )
    bind_graph(first, mapping)
    bind_graph(second, mapping)
    layout = write_data_file([first, second], tmp_path / "data")
    assert layout.size == 32 * 32 * 4
    assert external(first) == {"x": 0}
    assert external(second) == {"y": 0}


def test_tensors_of_equal_content_are_stored_once(tmp_path: Path) -> None:
    """A tied embedding that the checkpoint holds twice, and one that differs in its last value only."""
    a = values(100, 30)
    almost = a.copy()
    almost[60, 7] += 1
    mapping = loads(tmp_path, a=a, tied=a.copy(), almost=almost)
    three = graph(
        **{name: Transpose(Parameter(name, (100, 30), F32), (1, 0)) for name in ("a", "tied", "almost")}
    )
    bind_graph(three, mapping)
    layout = write_data_file([three], tmp_path / "data")
    offsets = external(three)
    assert offsets["a"] == offsets["tied"] != offsets["almost"]
    assert np.array_equal(stored(three)["almost"], almost.T)
    assert check_data(layout) == 3


def test_small_tensors_stay_in_the_graph_and_large_constants_leave_it(tmp_path: Path) -> None:
    bias, table = values(8), values(40, 40)
    mixed = graph(bias=Parameter("bias", (8,), F32), table=table, shape=np.array([1, -1]))
    bind_graph(mixed, loads(tmp_path, bias=bias))
    layout = write_data_file([mixed], tmp_path / "data")
    assert external(mixed) == {"table": 0}
    assert np.array_equal(stored(mixed)["bias"], bias)
    assert np.array_equal(stored(mixed)["table"], table)
    assert layout.size == table.nbytes


def test_without_a_large_tensor_there_is_no_file(tmp_path: Path) -> None:
    small = graph(bias=Parameter("bias", (8,), F32))
    bind_graph(small, loads(tmp_path, bias=values(8)))
    layout = write_data_file([small], tmp_path / "data")
    assert not layout.tensors
    assert check_data(layout) == 0
    assert not (tmp_path / "data").exists()


def test_large_tensors_start_on_a_page_and_the_padding_is_zero(tmp_path: Path) -> None:
    a, b, c = values(300, seed=1), values(200, 100, seed=2), values(301, seed=3)
    three = graph(a=a, b=b, c=c)
    write_data_file([three], tmp_path / "data")
    offsets = external(three)
    assert offsets == {"a": 0, "b": 4096, "c": 4096 + b.nbytes}
    assert not any((tmp_path / "data").read_bytes()[a.nbytes : 4096])


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    mapping = loads(tmp_path, a=values(64, 64, dtype=BF16), b=values(500))
    for name in ("first", "second"):
        one = graph(a=Parameter("a", (64, 64), F16), b=Parameter("b", (500,), F32))
        bind_graph(one, mapping)
        write_data_file([one], tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_progress_ends_at_all_of_it(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    layout = write_data_file(
        [graph(a=values(50, 50))],
        tmp_path / "data",
        block_bytes=1024,
        advance=lambda *call: calls.append(call),
    )
    assert calls[-1] == (layout.size, layout.size)
    assert calls == sorted(calls)
    assert len(calls) > 5


def test_the_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_data_file([graph(a=values(50, 50))], tmp_path / "data")
    finally:
        os.umask(before)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o644


def test_memory_does_not_grow_with_the_tensor(tmp_path: Path) -> None:
    mapping = loads(tmp_path, a=np.zeros((4096, 2048), F16))
    large = graph(a=Parameter("a", (4096, 2048), F32))
    bind_graph(large, mapping)
    tracemalloc.start()
    layout = write_data_file([large], tmp_path / "data", block_bytes=1 << 20)
    check_data(layout)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert layout.size == 32 << 20
    assert peak < 16 << 20


# --- faults -------------------------------------------------------------------------------------------------


def test_a_value_that_overflows_is_named_by_initializer_and_tensor(tmp_path: Path) -> None:
    mapping = loads(tmp_path, a=np.full((40, 40), 1e6, F32), small=np.full(3, 1e6, F32))
    for name, shape in (("a", (40, 40)), ("small", (3,))):
        half = graph(w=Parameter(name, shape, F16))
        bind_graph(half, mapping)
        with pytest.raises(WeightError, match=rf"initializer 'w'.*float16.*'{name}'"):
            write_data_file([half], tmp_path / "data")


def test_a_changed_byte_is_found_with_its_tensor_and_index(tmp_path: Path) -> None:
    mapping = loads(tmp_path, a=values(30, 30), b=values(40, 40))
    two = graph(a=Parameter("a", (30, 30), F32), b=Parameter("b", (40, 40), F32))
    bind_graph(two, mapping)
    layout = write_data_file([two], tmp_path / "data", block_bytes=1000)
    data = bytearray((tmp_path / "data").read_bytes())
    data[external(two)["b"] + (33 * 40 + 7) * 4 + 2] ^= 1
    (tmp_path / "data").write_bytes(data)
    with pytest.raises(WeightError, match=r"'b' differs.*\(33, 7\)"):
        check_data(layout)


def test_a_shortened_data_file_is_found(tmp_path: Path) -> None:
    layout = write_data_file([graph(a=values(50, 50))], tmp_path / "data")
    os.truncate(tmp_path / "data", layout.size - 1)
    with pytest.raises(WeightError, match="9999 bytes"):
        check_data(layout)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error_with_a_remedy() -> None:
    with pytest.raises(PackageError, match="No space left") as caught:
        write_data_file([graph(a=values(50, 50))], Path("/dev/full"))
    assert "room" in caught.value.remedy


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="No such file"):
        write_data_file([graph(a=values(50, 50))], tmp_path / "missing" / "data")
