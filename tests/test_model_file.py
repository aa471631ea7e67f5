"""An .onnx file with its weights streamed into it, or beside it."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from safetensors.numpy import save_file

from converter.checkpoints.tensor_file import read_header
from converter.errors import PackageError, WeightError
from converter.recipes import Load, Parameter, RecipeTensor, Transpose, WeightRecipe
from converter.records import ExportedGraph
from converter.weights import model_file
from converter.weights.binding import bind_graph, check_data, plan_data_file
from converter.weights.model_file import embedded_layout, embedded_size, write_model

F32 = np.dtype(np.float32)
WEIGHT = np.random.default_rng(0).standard_normal((24, 40)).astype(F32)
BIAS = np.random.default_rng(1).standard_normal(24).astype(F32)
X = np.random.default_rng(2).standard_normal((3, 40)).astype(F32)
EXPECTED = X @ WEIGHT.T + BIAS


def initializer(name: str, recipe: WeightRecipe) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(recipe.shape), type=ir.TensorType(ir.DataType.FLOAT))
    value.const_value = RecipeTensor(recipe, name)
    return value


def linear(folder: Path, *, bound: bool = True) -> ir.Model:
    """`y = x @ weight.T + bias`, with the weights in a checkpoint."""
    x = ir.Value(name="x", shape=ir.Shape(["batch", 40]), type=ir.TensorType(ir.DataType.FLOAT))
    weight = initializer("weight_t", Transpose(Parameter("weight", (24, 40), F32), (1, 0)))
    bias = initializer("bias", Parameter("bias", (24,), F32))
    product = ir.node("MatMul", [x, weight])
    total = ir.node("Add", [product.outputs[0], bias], metadata_props={"scope": "linear"})
    y = total.outputs[0]
    y.name, y.shape, y.type = "y", ir.Shape(["batch", 24]), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [x], [y], nodes=[product, total], initializers=[weight, bias], opset_imports={"": 18}, name="g"
    )
    model = ir.Model(graph, ir_version=8, metadata_props={"made": "here"})
    if bound:
        bind_graph(ExportedGraph("model", model), mapping(folder))
    return model


def mapping(folder: Path) -> dict[str, WeightRecipe]:
    save_file({"weight": WEIGHT, "bias": BIAS}, folder / "model.safetensors")
    return {name: Load(info) for name, info in read_header(folder / "model.safetensors").items()}


def run(path: Path) -> np.ndarray:
    (result,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": X})
    return result


def test_a_self_contained_file_opens_everywhere_and_computes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    digest = write_model(linear(tmp_path), path, embed=True)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = onnx.load(path)
    onnx.checker.check_model(loaded, full_check=True)
    assert np.array_equal(onnx.numpy_helper.to_array(loaded.graph.initializer[0]), WEIGHT.T)
    assert loaded.metadata_props[0].key == "made"
    assert loaded.graph.node[1].metadata_props[0].value == "linear"
    assert np.allclose(run(path), EXPECTED, atol=1e-5)


def test_it_says_what_onnx_itself_would_say(tmp_path: Path) -> None:
    """The same message as the library's own serialization of the same model with its weights in memory."""
    write_model(linear(tmp_path), tmp_path / "streamed.onnx", embed=True)
    model = linear(tmp_path)
    for name, array in (("weight_t", WEIGHT.T), ("bias", BIAS)):
        model.graph.initializers[name].const_value = ir.tensor(np.ascontiguousarray(array), name=name)
    assert onnx.load(tmp_path / "streamed.onnx") == ir.to_proto(model)


def test_the_size_is_known_beforehand(tmp_path: Path) -> None:
    model = linear(tmp_path, bound=False)
    expected = embedded_size(model)
    bind_graph(ExportedGraph("model", model), mapping(tmp_path))
    write_model(model, tmp_path / "model.onnx", embed=True)
    assert (tmp_path / "model.onnx").stat().st_size == expected == embedded_size(model)


def test_embedded_weights_are_checked_like_a_data_file(tmp_path: Path) -> None:
    model, path = linear(tmp_path), tmp_path / "model.onnx"
    write_model(model, path, embed=True)
    layout = embedded_layout(model, path)
    assert check_data(layout) == 2
    content = bytearray(path.read_bytes())
    content[layout.tensors[1].offset + 4 * 11] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightError, match=r"'bias' differs.*\(11,\)"):
        check_data(layout)


def test_weights_beside_the_model_are_found_wherever_the_folder_is(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    model = linear(tmp_path)
    plan_data_file([ExportedGraph("model", model)], folder / "model.onnx_data").write()
    write_model(model, folder / "model.onnx", embed=False)
    folder.rename(tmp_path / "moved")
    onnx.checker.check_model(str(tmp_path / "moved" / "model.onnx"), full_check=True)
    assert np.allclose(run(tmp_path / "moved" / "model.onnx"), EXPECTED, atol=1e-5)
    assert b"made/" not in (tmp_path / "moved" / "model.onnx").read_bytes()


@pytest.mark.parametrize("embed", [True, False])
def test_writing_twice_gives_the_same_bytes(tmp_path: Path, embed: bool) -> None:
    for name in ("first", "second"):
        model = linear(tmp_path)
        if not embed:
            plan_data_file([ExportedGraph("model", model)], tmp_path / "data").write()
        write_model(model, tmp_path / name, embed=embed)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_weight_without_a_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="'weight_t' has no value yet"):
        write_model(linear(tmp_path), tmp_path / "model.onnx", embed=False)


def test_an_unbound_weight_cannot_be_embedded(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"'weight_t'.*'weight' is not bound"):
        write_model(linear(tmp_path, bound=False), tmp_path / "model.onnx", embed=True)


def test_a_file_past_protobufs_limit_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = linear(tmp_path)
    monkeypatch.setattr(model_file, "EMBEDDED_LIMIT", embedded_size(model) - 1)
    with pytest.raises(PackageError, match="2 GiB"):
        write_model(model, tmp_path / "model.onnx", embed=True)
    assert not (tmp_path / "model.onnx").exists()


def test_a_weight_of_a_subgraph_is_embedded_too(tmp_path: Path) -> None:
    def branch(name: str, recipe: WeightRecipe) -> ir.Graph:
        copied = ir.node("Identity", [initializer(f"{name}_weight", recipe)])
        made = copied.outputs[0]
        made.name, made.shape, made.type = name, ir.Shape([24]), ir.TensorType(ir.DataType.FLOAT)
        assert copied.inputs[0] is not None
        return ir.Graph([], [made], nodes=[copied], initializers=[copied.inputs[0]], name=name)

    bias = Parameter("bias", (24,), F32)
    flag = ir.Value(name="flag", shape=ir.Shape([]), type=ir.TensorType(ir.DataType.BOOL))
    choose = ir.node("If", [flag], {"then_branch": branch("yes", bias), "else_branch": branch("no", bias)})
    y = choose.outputs[0]
    y.name, y.shape, y.type = "y", ir.Shape([24]), ir.TensorType(ir.DataType.FLOAT)
    model = ir.Model(ir.Graph([flag], [y], nodes=[choose], opset_imports={"": 18}, name="g"), ir_version=8)
    bind_graph(ExportedGraph("model", model), mapping(tmp_path))
    write_model(model, tmp_path / "model.onnx", embed=True)
    (result,) = ort.InferenceSession(tmp_path / "model.onnx").run(None, {"flag": np.array(True)})
    assert np.array_equal(result, BIAS)


def test_memory_does_not_grow_with_the_weights(tmp_path: Path) -> None:
    save_file({"large": np.zeros((4096, 2048), np.float16)}, tmp_path / "model.safetensors")
    recipe = Load(read_header(tmp_path / "model.safetensors")["large"])
    value = initializer("large", Parameter("large", recipe.shape, F32))
    model = ir.Model(ir.Graph([], [], nodes=[], initializers=[value], name="g"), ir_version=8)
    bind_graph(ExportedGraph("model", model), {"large": recipe})
    tracemalloc.start()
    write_model(model, tmp_path / "model.onnx", embed=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "model.onnx").stat().st_size > 32 << 20
    assert peak < 28 << 20
