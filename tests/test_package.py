"""The package folder: refused targets, one-step replacement, companions, the record and its inspection."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from converter.checkpoints.companions import copy_companions
from converter.errors import PackageError, UsageError
from converter.packages.package import inspect_package, stage_package, write_record


def make_package(target: Path, content: str = "new", overwrite: bool = False) -> Path:
    with stage_package(target, overwrite=overwrite) as staging:
        (staging.folder / "onnx").mkdir()
        (staging.folder / "onnx" / "data.bin").write_text(content)
        write_record(staging.folder, {})
    return target


def content(package: Path) -> str:
    return (package / "onnx" / "data.bin").read_text()


def only_child(folder: Path) -> str:
    (child,) = folder.iterdir()
    return child.name


# --- the target ------------------------------------------------------------------------------------------


def test_package_when_target_and_its_parents_are_absent(tmp_path: Path) -> None:
    make_package(tmp_path / "models" / "mini")
    assert content(tmp_path / "models" / "mini") == "new"
    assert only_child(tmp_path / "models") == "mini"


def test_package_when_target_is_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "mini").mkdir()
    assert content(make_package(tmp_path / "mini")) == "new"


def test_existing_package_is_refused_without_overwrite(tmp_path: Path) -> None:
    make_package(tmp_path / "mini", "old")
    with pytest.raises(UsageError, match="--overwrite"):
        make_package(tmp_path / "mini")
    assert content(tmp_path / "mini") == "old"


@pytest.mark.parametrize("can_swap", [True, False])
def test_overwrite_replaces_the_whole_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_swap: bool
) -> None:
    if not can_swap:
        monkeypatch.setattr("converter.packages.exchange.swap", lambda first, second: False)
    make_package(tmp_path / "mini", "old")
    (tmp_path / "mini" / "notes.txt").write_text("goes too")
    make_package(tmp_path / "mini", overwrite=True)
    assert content(tmp_path / "mini") == "new"
    assert not (tmp_path / "mini" / "notes.txt").exists()
    assert only_child(tmp_path) == "mini"


def test_folder_that_is_no_package_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(UsageError, match="package of this converter"):
        make_package(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_folder_filled_by_somebody_during_the_run_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not empty"), stage_package(tmp_path / "mini"):
        (tmp_path / "mini").mkdir()
        (tmp_path / "mini" / "theirs.txt").write_text("theirs")
    assert only_child(tmp_path / "mini") == "theirs.txt"
    assert only_child(tmp_path) == "mini"


def test_target_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mini").write_text("a file")
    with pytest.raises(UsageError, match="is a file"):
        make_package(tmp_path / "mini", overwrite=True)


@pytest.mark.parametrize("name", ["..", ".", "/"])
def test_target_above_the_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"working directory|home"):
        make_package(Path(name), overwrite=True)


def test_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="home directory"):
        make_package(Path("~"), overwrite=True)


@pytest.mark.parametrize("target", ["checkpoint", ".", "checkpoint/onnx"])
def test_target_in_touch_with_the_checkpoint_is_refused(tmp_path: Path, target: str) -> None:
    source = tmp_path / "checkpoint"
    source.mkdir()
    with (
        pytest.raises(UsageError, match="checkpoint"),
        stage_package(tmp_path / target, overwrite=True, source=source),
    ):
        pytest.fail("work began")


def test_link_to_a_package_stays_a_link(tmp_path: Path) -> None:
    make_package(tmp_path / "v1", "old")
    (tmp_path / "latest").symlink_to("v1")
    make_package(tmp_path / "latest", overwrite=True)
    assert (tmp_path / "latest").is_symlink()
    assert content(tmp_path / "v1") == "new"


def test_circular_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError):
        make_package(tmp_path / "loop")


def test_second_run_on_a_target_in_work_is_refused(tmp_path: Path) -> None:
    with stage_package(tmp_path / "mini") as staging:
        with pytest.raises(UsageError, match=f"another run .process {os.getpid()}."):
            make_package(tmp_path / "mini")
        make_package(tmp_path / "other")
        assert staging.folder.is_dir()


def test_name_that_extends_another_target_is_left_alone(tmp_path: Path) -> None:
    """A live run on `a.converter-b` must survive the clean-up of a run on `a`."""
    with stage_package(tmp_path / "a.converter-b") as staging:
        make_package(tmp_path / "a")
        assert staging.folder.is_dir()


def test_folder_that_only_looks_like_scratch_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / ".mini.converter-abcdefgh"
    theirs.mkdir()
    (theirs / "mine.txt").write_text("mine")
    make_package(tmp_path / "mini")
    assert (theirs / "mine.txt").exists()


def test_modes_follow_the_umask_whatever_the_writer_left(tmp_path: Path) -> None:
    with stage_package(tmp_path / "mini") as staging:
        data = staging.folder / "model.onnx_data"
        data.touch(mode=0o600)
        (staging.folder / "onnx").mkdir(mode=0o700)
    umask = os.umask(0)
    os.umask(umask)
    modes = [
        stat.S_IMODE((tmp_path / "mini" / name).stat().st_mode) for name in (".", "onnx", "model.onnx_data")
    ]
    assert modes == [0o755 & ~umask, 0o755 & ~umask, 0o644 & ~umask]


# --- failure ---------------------------------------------------------------------------------------------


def fail_in(target: Path, overwrite: bool = False, keep_failed: bool = False) -> None:
    staged = stage_package(target, overwrite=overwrite, keep_failed=keep_failed)
    with pytest.raises(RuntimeError), staged as staging:
        (staging.folder / "half.onnx").write_text("half")
        raise RuntimeError("parity failed")


def test_failure_leaves_nothing_not_even_the_parents_it_made(tmp_path: Path) -> None:
    fail_in(tmp_path / "models" / "mini")
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_the_old_package(tmp_path: Path) -> None:
    make_package(tmp_path / "mini", "old")
    fail_in(tmp_path / "mini", overwrite=True)
    assert content(tmp_path / "mini") == "old"
    assert only_child(tmp_path) == "mini"


def test_failed_package_is_kept_beside_the_target_on_request(tmp_path: Path) -> None:
    for _ in range(2):  # the second replaces the first
        fail_in(tmp_path / "mini", keep_failed=True)
    assert only_child(tmp_path) == "mini.failed"
    assert "parity failed" in (tmp_path / "mini.failed" / "FAILED").read_text()
    assert (tmp_path / "mini.failed" / "half.onnx").exists()


def test_failed_package_does_not_displace_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "mini.failed").mkdir()
    (tmp_path / "mini.failed" / "theirs.txt").write_text("theirs")
    with pytest.raises(RuntimeError) as caught, stage_package(tmp_path / "mini", keep_failed=True):
        raise RuntimeError("broken")
    assert only_child(tmp_path / "mini.failed") == "theirs.txt"
    assert "could not be kept" in caught.value.__notes__[0]


# --- companions ------------------------------------------------------------------------------------------


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
    (tmp_path / "checkpoint" / "config.json").write_text('{"vision_config": {}}')
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
