"""Scattered external data of any ONNX model, brought together in one file beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.errors import PackageError, UsageError
from converter.packages.merge_data import merge_data

RNG = np.random.default_rng(0)
A, B, C, D = (RNG.standard_normal((4, 4)).astype(np.float32) for _ in range(4))
X = RNG.standard_normal((2, 4)).astype(np.float32)


def outside(name: str, array: np.ndarray, location: str, **entries: object) -> TensorProto:
    """A tensor that refers to a file."""
    tensor = numpy_helper.from_array(array, name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def scattered(folder: Path, **replaced: TensorProto) -> Path:
    """`y = x @ (A + B + (C if true))` times an attribute's D: four tensors in three files, one twice."""
    folder.mkdir(exist_ok=True)
    (folder / "one").write_bytes(b"....." + A.tobytes())
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub" / "two").write_bytes(B.tobytes() + C.tobytes())
    (folder / "three").write_bytes(D.tobytes())
    tensors = {
        "a": outside("a", A, "one", offset=5, length=64),
        "b": outside("b", B, "sub/two", length=64),
        "c": outside("c", C, "sub/two", offset=64),
        "d": outside("d", D, "three", checksum="0123"),
        "again": outside("again", A, "one", offset=5, length=64),
    } | replaced
    branches = {
        name: helper.make_graph(
            [helper.make_node("Identity", [inner.name], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [4, 4])],
            [inner],
        )
        for name, inner in (("then_branch", tensors["c"]), ("else_branch", tensors["again"]))
    }
    nodes = [
        helper.make_node("Constant", [], ["d"], value=tensors["d"]),
        helper.make_node("If", ["yes"], ["chosen"], **branches),
        helper.make_node("Sum", ["a", "b", "chosen", "d"], ["total"]),
        helper.make_node("MatMul", ["x", "total"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in "xy")
    inside = numpy_helper.from_array(np.array(True), "yes")
    graph = helper.make_graph(nodes, "g", [x], [y], [tensors["a"], tensors["b"], inside])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_the_merged_model_computes_the_same_from_one_file(tmp_path: Path) -> None:
    written = merge_data(scattered(tmp_path / "in"), tmp_path / "out")
    assert written == [tmp_path / "out" / "model.onnx", tmp_path / "out" / "model.onnx_data"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.onnx", "model.onnx_data"]
    (result,) = ort.InferenceSession(written[0]).run(None, {"x": X})
    assert np.allclose(result, X @ (A + B + C + D), atol=1e-5)


def test_bytes_that_several_tensors_share_are_written_once(tmp_path: Path) -> None:
    _, data = merge_data(scattered(tmp_path / "in"), tmp_path / "out")
    content = data.read_bytes()
    assert content == A.tobytes() + B.tobytes() + D.tobytes() + C.tobytes()


def test_a_checksum_stays_with_its_tensor(tmp_path: Path) -> None:
    model, _ = merge_data(scattered(tmp_path / "in"), tmp_path / "out")
    constant = onnx.load(model, load_external_data=False).graph.node[0].attribute[0].t
    assert {entry.key for entry in constant.external_data} == {"location", "offset", "length", "checksum"}


def test_a_model_without_external_data_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["y"])], "g", [], [value], [numpy_helper.from_array(A, "a")]
    )
    onnx.save(helper.make_model(graph, ir_version=8), path)
    assert merge_data(path, tmp_path / "out") == [tmp_path / "out" / "plain.onnx"]


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "sub/../../secret", "", "link", "C:\\x"])
def test_data_outside_the_models_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    path = scattered(tmp_path / "in", b=outside("b", B, location))
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(PackageError, match=r"'b' has its data at .*outside"):
        merge_data(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_hub_caches_links_are_followed(tmp_path: Path) -> None:
    scattered(tmp_path / "blobs")
    snapshot = tmp_path / "snapshots" / "abc" / "onnx"
    snapshot.mkdir(parents=True)
    for name in ("model.onnx", "one", "sub", "three"):
        (snapshot / name).symlink_to(Path("../../../blobs") / name)
    assert len(merge_data(snapshot / "model.onnx", tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (outside("b", B, "gone"), "'b' has its data in gone, which is missing"),
        (outside("b", B, "three", offset=1), "three ends at byte 64, tensor 'b' at 65"),
        (outside("b", B, "three", length=60), "'b' takes 64 bytes, not 60"),
        (outside("b", B, "three", offset=-4), "'b' takes 64 bytes"),
        (outside("b", B, "three", offset="x"), "'b' has a broken reference"),
    ],
)
def test_a_reference_that_does_not_fit_is_named(tmp_path: Path, tensor: TensorProto, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        merge_data(scattered(tmp_path / "in", b=tensor), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is no protobuf")
    for name in ("text.onnx", "missing.onnx"):
        with pytest.raises(PackageError, match=name):
            merge_data(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx_data"])
def test_an_existing_target_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        merge_data(scattered(tmp_path / "in"), tmp_path / "out")
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path = scattered(tmp_path / "in")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("converter.packages.merge_data._refer", broken)
    with pytest.raises(KeyboardInterrupt):
        merge_data(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
