"""Opening checkpoints: what is indexed, and how each kind of damage is told."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from converter.additions import PackageBuild
from converter.checkpoint import open_checkpoint, read_block
from converter.checkpoints.tensor_file import read_header
from converter.errors import CheckpointError
from converter.registry import load_registry

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


@pytest.mark.parametrize(
    ("config", "tensor", "method"),
    [
        ({"quantization_config": {"quant_method": "mxfp4"}}, "experts.gate_up_proj_blocks", "mxfp4"),
        ({"quantization_config": {"quant_method": "fp8", "fmt": "e4m3"}}, "q_proj.weight_scale_inv", "fp8"),
        ({"quantization_config": {"load_in_4bit": True}}, "q_proj.weight.absmax", "bitsandbytes"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "q_proj.weight", "awq"),
        ({"compression_config": {"format": "int-quantized"}}, "q_proj.weight_scale", "compression_config"),
        ({}, "model.layers.0.mlp.down_proj.qweight", "GPTQ or AWQ"),
    ],
)
def test_weights_that_a_library_quantized_are_refused(
    config: dict[str, Any], tensor: str, method: str, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "small", **{tensor: WEIGHTS["a"]})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    with pytest.raises(CheckpointError, match=f"small is quantized already \\({method}\\)") as caught:
        open_checkpoint(folder)
    assert "checkpoint it was made from" in str(caught.value.remedy)


BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True}


def test_whole_weights_are_taken_whole_though_config_json_would_have_them_quantized_on_loading(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Fine-tunes of a model in 4 bits, once merged. transformers would quantize them anew, by a library for it."""
    folder = shutil.copytree(tiny_checkpoint("bert"), tmp_path / "merged")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": BITS}))
    opened, registry = open_checkpoint(folder), load_registry()
    original = registry.find("bert").source.original(opened, "feature-extraction", None)
    assert {parameter.dtype for parameter in original.parameters()} == {torch.float32}
    (tmp_path / "package").mkdir()
    build = PackageBuild(tmp_path / "package", {}, opened, (), previous=tmp_path)
    (companions,) = (entry for entry in registry.package_files if entry.name == "companions")
    assert "config.json asks for bitsandbytes on loading" in " ".join(companions.write(build) or ())
    assert json.loads((tmp_path / "package" / "config.json").read_text()) == config


@pytest.mark.parametrize("other", ["x.weight_scale", "x.input_scale", "x.weight.quant_map", "x.zero_point"])
def test_what_stands_beside_a_weight_says_that_it_is_not_whole(other: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "small", **{"x.weight": WEIGHTS["a"], other: WEIGHTS["a"]})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": BITS}))
    with pytest.raises(CheckpointError, match="is quantized already"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("kind", "path", "config", "remedy"),
    [
        ("CLIPModel", "0_CLIPModel", {"model_type": "clip"}, "--model .*0_CLIPModel"),
        ("StaticEmbedding", "0_StaticEmbedding", None, "only transformers become graphs"),
    ],
)
def test_modules_without_a_transformer_are_named(
    kind: str, path: str, config: dict[str, str] | None, remedy: str, tmp_path: Path
) -> None:
    listed = [{"type": f"sentence_transformers.models.{kind}", "path": path}]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    (tmp_path / path).mkdir()
    if config is not None:
        (tmp_path / path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"modules.json lists {kind}") as caught:
        open_checkpoint(tmp_path)
    assert re.search(remedy, str(caught.value.remedy))


def test_a_variant_alone_is_told_how_to_be_converted(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    with pytest.raises(CheckpointError, match="holds no weights") as caught:
        open_checkpoint(folder)
    assert "rename or link model.fp16.safetensors to model.safetensors" in str(caught.value.remedy)


def test_what_other_tools_read_is_told_from_a_damaged_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="pipeline of diffusers"):
        open_checkpoint(tmp_path)
    (checkpoint(tmp_path / "small") / "model.safetensors").rename(tmp_path / "small" / "small-Q4_K_M.gguf")
    with pytest.raises(CheckpointError, match="holds no weights") as caught:
        open_checkpoint(tmp_path / "small")
    assert "it has small-Q4_K_M.gguf, which transformers does not load" in str(caught.value.remedy)


def test_an_empty_entry_of_quantization_says_nothing(tmp_path: Path) -> None:
    (checkpoint(tmp_path) / "config.json").write_text('{"model_type": "bert", "quantization_config": null}')
    assert open_checkpoint(tmp_path).tensors.keys() == WEIGHTS.keys()


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
