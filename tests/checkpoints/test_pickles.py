"""Checkpoints that are pickles: refused, read without running code, and turned into safetensors."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from converter.checkpoint import open_checkpoint, pickle_to_safetensors
from converter.errors import CheckpointError
from converter.recipes import Load, read


def pickled(folder: Path, tensors: dict[str, torch.Tensor], **options: bool) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    torch.save(tensors, folder / "pytorch_model.bin", **options)
    return folder


def raw_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


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
    pickled(tmp_path, {"other": torch.zeros(2)})
    save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    assert set(open_checkpoint(tmp_path).tensors) == {"a"}
