"""Which architecture a folder is taken for: the one that opens it, or the one that owns its model type."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from safetensors.numpy import save_file

from converter import Architecture, ConverterError, Variant
from converter.checkpoint import read_header
from converter.errors import CheckpointError, PluginError, UsageError
from converter.records import Checkpoint
from converter.registry import Registry
from converter.request import ConversionRequest
from converter.selection import find_source

VARIANTS = {"scoring": (Variant("scores", ("model",), "scores"),)}


def layered(folder: Path, allow_pickle: bool) -> Checkpoint | None:
    """A layout of its own: `layers.json` and `layers.bin`, which is safetensors."""
    if not (folder / "layers.json").is_file():
        return None
    config = json.loads((folder / "layers.json").read_text())
    if "depth" not in config:
        raise CheckpointError("layers.json names no depth", remedy="write one")
    tensors = {f"layers/{name}": info for name, info in read_header(folder / "layers.bin").items()}
    return Checkpoint(folder, folder.name, None, config, tensors)


def broken(folder: Path, allow_pickle: bool) -> Checkpoint | None:
    raise KeyError("surprise")


def architecture(name: str, *model_types: str, **fields: object) -> Architecture:
    return Architecture(name, model_types, "made up", "", None, lambda *_: (), VARIANTS, **fields)  # type: ignore[arg-type]


def registry(*architectures: Architecture) -> Registry:
    return Registry(MappingProxyType({entry.name: entry for entry in architectures}))


PLAIN, LAYERED = architecture("plain", "plain"), architecture("layered", opens=layered)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of the layered architecture that is one of the plain as well."""
    (tmp_path / "config.json").write_text('{"model_type": "plain"}')
    (tmp_path / "layers.json").write_text('{"depth": 2}')
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    save_file({"b": np.zeros(4, np.float32)}, tmp_path / "layers.bin")
    return tmp_path


def found(folder: Path, known: Registry, arch: str = "auto") -> tuple[str, Checkpoint]:
    request = ConversionRequest(arch=arch, model=str(folder))
    named, checkpoint = find_source(request, known, folder)
    return named.name, checkpoint


def test_an_architecture_that_opens_a_folder_comes_before_the_owner_of_its_model_type(folder: Path) -> None:
    name, checkpoint = found(folder, registry(PLAIN, LAYERED))
    assert (name, checkpoint.source, dict(checkpoint.config)) == ("layered", folder.name, {"depth": 2})
    assert {name: info.name for name, info in checkpoint.tensors.items()} == {"layers/b": "layers/b"}


def test_the_owner_of_the_model_type_is_had_by_name(folder: Path) -> None:
    name, checkpoint = found(folder, registry(PLAIN, LAYERED), "plain")
    assert (name, set(checkpoint.tensors)) == ("plain", {"a"})


def test_a_folder_needs_no_config_json_where_its_architecture_does_not(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert found(folder, registry(PLAIN, LAYERED))[0] == "layered"
    assert found(folder, registry(PLAIN, LAYERED), "layered")[0] == "layered"


@pytest.mark.parametrize(
    ("known", "arch", "kind", "words"),
    [
        (registry(LAYERED, architecture("other", opens=layered)), "auto", UsageError, "layered, other"),
        (registry(LAYERED), "layered", CheckpointError, "names no depth"),
        (registry(LAYERED, architecture("bad", opens=broken)), "auto", PluginError, "'bad'.*surprise"),
    ],
    ids=["two claim it", "its own word for what is wrong", "a fault in a plugin"],
)
def test_what_goes_wrong_in_opening_is_named(
    known: Registry, arch: str, kind: type[ConverterError], words: str, folder: Path
) -> None:
    if kind is CheckpointError:
        (folder / "layers.json").write_text("{}")
    with pytest.raises(kind, match=words):
        found(folder, known, arch)


def test_a_folder_of_another_layout_is_refused_by_an_architecture_that_owns_no_model_type(
    folder: Path,
) -> None:
    (folder / "layers.json").unlink()
    with pytest.raises(UsageError, match=f"{folder.name} is not laid out as checkpoints of"):
        found(folder, registry(PLAIN, LAYERED), "layered")
    assert found(folder, registry(PLAIN, LAYERED))[0] == "plain"


def test_an_architecture_that_opens_folders_may_also_recognize_what_is_laid_out_as_usual(
    folder: Path,
) -> None:
    """Named or not: a conversion names it again in the process that traces."""
    (folder / "layers.json").unlink()
    both = architecture("layered", opens=layered, recognizes=lambda checkpoint: True)
    assert found(folder, registry(both), "layered")[0] == "layered"


def test_a_checkpoint_of_timm_is_told_from_one_without_a_model_type(folder: Path) -> None:
    (folder / "layers.json").unlink()
    (folder / "config.json").write_text('{"architecture": "vit_tiny", "pretrained_cfg": {}}')
    with pytest.raises(UsageError, match="is a checkpoint of timm"):
        found(folder, registry(PLAIN))
    (folder / "config.json").write_text('{"model_type": "plain", "pretrained_cfg": {}}')
    assert found(folder, registry(PLAIN))[0] == "plain"
