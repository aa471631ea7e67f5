"""What is in a package: companions, the record and its inspection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from converter.checkpoints.companions import copy_companions
from converter.errors import PackageError

# --- companions ------------------------------------------------------------------------------------------
from converter.packages.package import inspect_package, write_record


def write_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def test_companions_are_what_a_client_needs_and_no_weights_or_code(tmp_path: Path) -> None:
    wanted = [
        "1_Pooling/config.json",
        "LICENSE",
        "config.json",
        "merges.txt",
        "modules.json",
        "tokenizer.json",
    ]
    wanted += ["chat_template.jinja", "spiece.model"]
    unwanted = ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "modeling_x.py"]
    unwanted += [
        "trainer_state.json",
        "onnx/config.json",
        ".git/config.json",
        "converter.json",
        "2_Dense/model.bin",
    ]
    write_files(tmp_path / "checkpoint", *wanted, *unwanted)
    copied, notes = copy_companions(tmp_path / "checkpoint", tmp_path / "package")
    assert copied == sorted(wanted)
    assert notes == []
    assert all((tmp_path / "package" / name).is_file() for name in wanted)


def test_absent_companions_are_noted(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    config = tmp_path / "checkpoint" / "config.json"
    config.write_text('{"image_size": 24}')
    assert copy_companions(config.parent, tmp_path / "images")[1] == ["the checkpoint has no processor files"]
    config.write_text('{"vision_config": {}, "text_config": {"vocab_size": 601}}')
    copied, notes = copy_companions(tmp_path / "checkpoint", tmp_path / "package")
    assert copied == ["config.json"]
    assert notes == ["the checkpoint has no tokenizer files", "the checkpoint has no processor files"]


def test_links_of_the_hub_cache_become_files_and_others_are_not_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    write_files(tmp_path, "models--a--b/blobs/abc", "secret.json")
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    (snapshot / "tokenizer.json").symlink_to(tmp_path / "secret.json")
    copied, notes = copy_companions(snapshot, tmp_path / "package")
    assert copied == ["config.json"]
    assert not (tmp_path / "package" / "config.json").is_symlink()
    assert "tokenizer.json is a link that leaves the checkpoint: not copied" in notes


# --- record and inspection -------------------------------------------------------------------------------


def write_graph(path: Path, location: str | None = None) -> None:
    """x (batch_size, 3) + w (3): 12 bytes of weights, in `location` or in the file."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    if location is not None:
        weight.ClearField("float_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "add",
        [value("x", TensorProto.FLOAT, ["batch_size", 3])],
        [value("y", TensorProto.FLOAT, ["batch_size", 3])],
        [weight],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    write_graph(folder / "onnx" / "model.onnx", "model.onnx_data")
    (folder / "onnx" / "model.onnx_data").write_bytes(bytes(12))
    write_record(folder, {"task": "feature-extraction"})
    return folder


def test_inspection_describes_an_intact_package(package: Path) -> None:
    info = inspect_package(package)
    assert info.intact
    assert info.record["task"] == "feature-extraction"
    (graph,) = info.graphs
    assert (graph.opset, graph.ir_version, graph.nodes, graph.initializer_bytes) == (18, 10, 1, 12)
    assert [(value.name, value.dtype, value.shape) for value in graph.inputs] == [
        ("x", "float", ("batch_size", 3))
    ]
    assert graph.data_files == ("model.onnx_data",)


def test_inspection_survives_moving_the_folder(package: Path, tmp_path: Path) -> None:
    package.rename(tmp_path / "elsewhere")
    inspect_package(tmp_path / "elsewhere").require_intact()


def test_inspection_tells_altered_missing_and_extra_files(package: Path) -> None:
    (package / "onnx" / "model.onnx_data").write_bytes(b"x" * 12)
    (package / "onnx" / "model.onnx").unlink()
    (package / "README.md").write_text("later")
    info = inspect_package(package)
    assert info.altered == ("onnx/model.onnx_data",)
    assert info.missing == ("onnx/model.onnx",)
    assert info.extra == ("README.md",)
    with pytest.raises(PackageError, match=r"model\.onnx is missing.*model\.onnx_data was altered"):
        info.require_intact()
    assert inspect_package(package, hashes=False).altered == ()


def edit_record(package: Path, **changes: object) -> None:
    record = json.loads((package / "converter.json").read_text())
    (package / "converter.json").write_text(json.dumps({**record, **changes}))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "onnx/../../x", "C:\\x", "..\\x", ""])
def test_record_that_names_files_outside_is_refused(package: Path, name: str) -> None:
    edit_record(package, files={name: {"bytes": 1, "sha256": "0"}})
    with pytest.raises(PackageError, match="outside"):
        inspect_package(package)


@pytest.mark.parametrize("location", ["../../w", "/etc/passwd", "escape"])
def test_graph_with_data_outside_is_refused(package: Path, tmp_path: Path, location: str) -> None:
    (package / "onnx" / "escape").symlink_to(tmp_path / "secret")
    write_graph(package / "onnx" / "model.onnx", location)
    write_record(package, {})
    with pytest.raises(PackageError, match="outside the package"):
        inspect_package(package)


def test_newer_format_is_refused(package: Path) -> None:
    edit_record(package, format_version=2)
    with pytest.raises(PackageError, match="upgrade"):
        inspect_package(package)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": "1"}', "\0", '{"format_version": 1}'])
def test_damaged_record_is_refused(package: Path, text: str) -> None:
    (package / "converter.json").write_text(text)
    with pytest.raises(PackageError):
        inspect_package(package)


def test_folder_without_record_is_refused(package: Path) -> None:
    (package / "converter.json").unlink()
    with pytest.raises(PackageError, match=r"has no converter\.json"):
        inspect_package(package)


def test_graph_that_is_garbage_is_refused(package: Path) -> None:
    for garbage in (b"\xff" * 40, b""):
        (package / "onnx" / "model.onnx").write_bytes(garbage)
        write_record(package, {})
        with pytest.raises(PackageError, match=r"model\.onnx"):
            inspect_package(package)


def test_record_is_strict_json_with_sorted_keys_and_known_hashes(tmp_path: Path) -> None:
    write_files(tmp_path, "onnx/model.onnx_data", "config.json")
    record = {"parity": {"worst": float("inf")}, "axes": ("a", "b")}
    sizes = write_record(tmp_path, record, known_hashes={"model.onnx_data": "f" * 64})
    text = (tmp_path / "converter.json").read_text()
    written = json.loads(text, parse_constant=pytest.fail)
    assert list(written) == sorted(written)
    assert written["parity"] == {"worst": "inf"}
    assert written["files"]["onnx/model.onnx_data"]["sha256"] == "f" * 64
    assert sizes == {"config.json": 2, "onnx/model.onnx_data": 2}


def test_importing_the_package_room_stays_light() -> None:
    script = "import sys, converter.packages.package, converter.checkpoints.download; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "transformers", "onnx", "onnx_ir", "onnxruntime", "huggingface_hub"} & set(loaded)
