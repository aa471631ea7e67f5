"""Opening checkpoints: what is indexed, and how each kind of damage is told."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from converter.checkpoint import open_checkpoint, pickle_to_safetensors, read_block
from converter.checkpoints.tensor_file import read_header
from converter.errors import CheckpointError
from converter.recipes import Load, read

WEIGHTS = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.arange(5, dtype=np.int64)}


def checkpoint(folder: Path, **tensors: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    save_file(tensors or WEIGHTS, folder / "model.safetensors")
    return folder


def sharded(folder: Path, **places: str) -> Path:
    """Two shards, `a` in the first and `b` in the second, and an index that says `places`."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    for number, name in enumerate(WEIGHTS, start=1):
        save_file({name: WEIGHTS[name]}, folder / f"model-{number}.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"} | places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def pickled(folder: Path, tensors: dict[str, torch.Tensor], **options: bool) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    torch.save(tensors, folder / "pytorch_model.bin", **options)
    return folder


def raw_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


# --- reading ------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_its_config_and_where_its_tensors_lie(tmp_path: Path) -> None:
    found = open_checkpoint(checkpoint(tmp_path / "bert"))
    assert (found.source, found.revision, found.config["model_type"]) == ("bert", None, "bert")
    assert {name: info.shape for name, info in found.tensors.items()} == {"a": (3, 4), "b": (5,)}
    assert found.tensors["a"].dtype == "F32"


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    found = open_checkpoint(sharded(tmp_path), source="org/model", revision="main")
    assert (found.source, found.revision) == ("org/model", "main")
    for name, expected in WEIGHTS.items():
        assert np.array_equal(read_block(found.tensors[name], 0, len(expected)), expected)


def test_rows_are_read_by_position(tmp_path: Path) -> None:
    info = open_checkpoint(checkpoint(tmp_path)).tensors["a"]
    assert np.array_equal(read_block(info, 1, 3), WEIGHTS["a"][1:3])
    assert read_block(info, 2, 2).shape == (0, 4)
    with pytest.raises(CheckpointError, match="no rows 2 to 4"):
        read_block(info, 2, 4)


@pytest.mark.parametrize(
    "dtype", [np.bool_, np.float64, np.uint16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
)
def test_every_dtype_is_read_bit_for_bit(tmp_path: Path, dtype: type) -> None:
    expected = np.array([0, 1, 1, 0, 1], dtype)
    info = open_checkpoint(checkpoint(tmp_path, x=expected, scalar=expected[1:2].reshape(()))).tensors
    assert read_block(info["x"], 0, 5).tobytes() == expected.tobytes()
    assert read_block(info["scalar"], 0, 1).shape == ()


def test_a_hub_caches_links_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    checkpoint(blobs)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(Path("../../blobs") / name)
    assert set(open_checkpoint(snapshot).tensors) == {"a", "b"}


# --- what is not there --------------------------------------------------------------------------------------


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    cases: list[tuple[Callable[[Path], object], str]] = [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.write_text(""), "it is a file"),
        (lambda folder: folder.mkdir(), "no config.json"),
        (lambda folder: (checkpoint(folder) / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (checkpoint(folder) / "config.json").write_text("[]"), "not a JSON object"),
        (lambda folder: (checkpoint(folder) / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (sharded(folder) / "model-2.safetensors").unlink(), "lacks model-2.safetensors.*'b'"),
        (lambda folder: sharded(folder, c="model-1.safetensors"), "model-1.safetensors lacks tensor 'c'"),
    ]
    for number, (prepare, message) in enumerate(cases):
        prepare(tmp_path / str(number))
        with pytest.raises(CheckpointError, match=message) as caught:
            open_checkpoint(tmp_path / str(number))
        assert caught.value.remedy


def test_an_adapter_is_told_from_a_model(tmp_path: Path) -> None:
    (checkpoint(tmp_path) / "model.safetensors").rename(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert "merge it into its base model" in caught.value.remedy


@pytest.mark.parametrize("place", ["../model-1.safetensors", "/etc/passwd", "a/../../x", "..\\x", "C:x", ""])
def test_an_index_that_leaves_the_folder_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(CheckpointError, match="not inside the checkpoint"):
        open_checkpoint(sharded(tmp_path, c=place))


@pytest.mark.parametrize("content", ['{"weight_map": []}', '{"weight_map": {"a": 1}}', "{}", "[", "[]"])
def test_a_broken_index_is_an_error(tmp_path: Path, content: str) -> None:
    (sharded(tmp_path) / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"model.safetensors.index.json"):
        open_checkpoint(tmp_path)


# --- damaged files ------------------------------------------------------------------------------------------


def with_header(path: Path, header: object, data: bytes = bytes(8)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(start: int, stop: int, shape: object = (2,), dtype: object = "F16") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize("length", [0, 5, 8, 40, -1])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, length: int) -> None:
    path = checkpoint(tmp_path) / "model.safetensors"
    os.truncate(path, length if length >= 0 else path.stat().st_size - 1)
    with pytest.raises(CheckpointError, match=r"model.safetensors") as caught:
        open_checkpoint(tmp_path)
    assert "download" in caught.value.remedy


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"x": entry(0, 4), "y": entry(2, 6)}, "'y' overlaps 'x'"),
        ({"x": entry(0, 4)}, "4 bytes follow"),
        ({"x": entry(0, 2, shape=[1]), "y": entry(4, 8)}, "'y' leaves a gap after 'x'"),
        ({"x": entry(0, 4), "y": entry(4, 12, shape=[4])}, "'y' ends at"),
        ({"x": entry(0, 8)}, "'x' has 8 bytes, F16 of shape .* takes 4"),
        ({"x": entry(4, 0)}, "'x' has a broken header entry"),
        ({"x": entry(0, 4, shape=[-2])}, "'x' has a broken header entry"),
        ({"x": entry(0, 4, shape=[True, 2])}, "'x' has a broken header entry"),
        ({"x": entry(0, 4, dtype=3)}, "'x' has a broken header entry"),
        ({"x": 7}, "'x' has a broken header entry"),
        ([1], "not a JSON object"),
        (b"{", "not valid JSON"),
        (b"\xff\xff", "not valid JSON"),
        (b'{"x": 1, "x": 2}', "'x' occurs twice"),
    ],
)
def test_a_header_that_contradicts_itself_or_the_file_is_an_error(
    tmp_path: Path, header: object, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_header(with_header(tmp_path / "x.safetensors", header))


def test_a_file_that_shrinks_after_it_was_opened_is_an_error(tmp_path: Path) -> None:
    info = open_checkpoint(checkpoint(tmp_path)).tensors["a"]
    os.truncate(info.file, info.offset + 20)
    with pytest.raises(CheckpointError, match="ends within tensor 'a'"):
        read_block(info, 0, 3)


def test_metadata_of_any_kind_is_no_tensor(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt", "n": 1}, "x": entry(0, 8, shape=[4])}
    assert set(read_header(with_header(tmp_path / "x", header))) == {"x"}
    assert set(read_header(with_header(tmp_path / "y", header | {"__metadata__": None}))) == {"x"}


# --- pickles ------------------------------------------------------------------------------------------------


def some_tensors() -> dict[str, torch.Tensor]:
    table = torch.randn(5, 7)
    return {
        "table": table,
        "tied": table,
        "rows": table[1:3],
        "half": torch.arange(6.0).bfloat16(),
        "n": torch.tensor(3),
    }


def test_a_pickle_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="can run code") as caught:
        open_checkpoint(pickled(tmp_path, some_tensors()))
    assert "converter download" in caught.value.remedy
    assert "--allow-pickle" in caught.value.remedy


def test_an_allowed_pickle_is_read_by_position(tmp_path: Path) -> None:
    tensors = some_tensors()
    found = open_checkpoint(pickled(tmp_path, tensors), allow_pickle=True).tensors
    assert set(found) == set(tensors)
    for name, expected in tensors.items():
        assert found[name].file == tmp_path / "pytorch_model.bin"
        assert read(Load(found[name])).tobytes() == raw_bytes(expected)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_runs_code_is_refused_even_when_pickles_are_allowed(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    pickled(tmp_path, {})
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Payload()}))
    with pytest.raises(CheckpointError, match="cannot be read as tensors only"):
        open_checkpoint(tmp_path, allow_pickle=True)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_becomes_safetensors_with_shared_tensors_once(tmp_path: Path, zipped: bool) -> None:
    tensors = {**some_tensors(), "turned": torch.randn(3, 4).t()}
    folder = pickled(tmp_path / "from", tensors, _use_new_zipfile_serialization=zipped)
    written = pickle_to_safetensors(folder, tmp_path / "to")
    assert written == [tmp_path / "to" / "model.safetensors"]
    (tmp_path / "to" / "config.json").write_text("{}")
    found = open_checkpoint(tmp_path / "to").tensors
    assert set(found) == set(tensors)
    for name, expected in tensors.items():
        assert read(Load(found[name])).tobytes() == raw_bytes(expected)
    kept = load_file(written[0])
    assert ("tied" in kept) is not zipped
    assert torch.equal(kept["turned"], tensors["turned"])


def test_a_pickle_in_shards_becomes_shards_with_an_index(tmp_path: Path) -> None:
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    tensors = {"a": torch.randn(3), "b": torch.randn(4)}
    (tmp_path / "config.json").write_text("{}")
    for name, shard in zip(tensors, names, strict=True):
        torch.save({name: tensors[name]}, tmp_path / shard)
    index = {"weight_map": dict(zip(tensors, names, strict=True))}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert set(open_checkpoint(tmp_path, allow_pickle=True).tensors) == {"a", "b"}
    written = pickle_to_safetensors(tmp_path, tmp_path)
    assert [path.name for path in written] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    found = open_checkpoint(tmp_path).tensors
    assert {name: read(Load(info)).tobytes() for name, info in found.items()} == {
        name: raw_bytes(tensor) for name, tensor in tensors.items()
    }
    (tmp_path / names[1]).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {names[1]}"):
        pickle_to_safetensors(tmp_path, tmp_path)


@pytest.mark.parametrize("content", [{"state_dict": {"a": torch.zeros(2)}}, [torch.zeros(2)], {"a": 3}])
def test_a_pickle_that_is_no_table_of_tensors_is_refused(tmp_path: Path, content: object) -> None:
    pickled(tmp_path, content)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="not a plain table of tensors"):
        open_checkpoint(tmp_path, allow_pickle=True)


def test_a_truncated_pickle_is_an_error(tmp_path: Path) -> None:
    path = pickled(tmp_path, some_tensors()) / "pytorch_model.bin"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="cannot be read as tensors only"):
        open_checkpoint(tmp_path, allow_pickle=True)


def test_safetensors_go_before_a_pickle(tmp_path: Path) -> None:
    pickled(checkpoint(tmp_path), {"other": torch.zeros(2)})
    assert set(open_checkpoint(tmp_path).tensors) == {"a", "b"}
