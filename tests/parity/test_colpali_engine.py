"""Checkpoints as colpali-engine's releases wrote them: recognized, every weight in its place, adapters beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from converter import Size
from converter.checkpoint import open_checkpoint
from converter.checkpoints.lora import open_adapter
from converter.cli.main import run
from converter.errors import UsageError
from converter.parity.runners import run_original
from converter.recipes import read
from converter.registry import load_registry
from converter.request import ConversionRequest
from converter.seeding import seed_weights
from converter.selection import find_source
from converter.sources import merged

TASK = "feature-extraction"
GENERATES = "image-text-to-text"
Rename = Callable[[str], str]


def older_qwen(name: str) -> str:
    return name.replace("language_model.", "model.", 1)


def older_pali(name: str) -> str:
    return f"model.{name.replace('language_model.', 'language_model.model.', 1)}"


# class, backbone, architecture that takes it, how a release named the backbone's tensors, and the projection
LAYOUTS: list[tuple[str, str, str, Rename, str]] = [
    ("ColQwen2", "qwen2_vl", "colqwen2", older_qwen, "custom_text_proj"),
    ("ColQwen2", "qwen2_vl", "colqwen2", str, "custom_text_proj"),
    ("ColQwen2_5", "qwen2_5_vl", "colqwen2_5", older_qwen, "custom_text_proj"),
    ("ColPali", "paligemma", "colpali", older_pali, "custom_text_proj"),
    ("ColPali", "paligemma", "colpali", "model.model.{}".format, "custom_text_proj"),
    ("ColIdefics3", "idefics3", "colidefics3", "model.{}".format, "linear"),
]


def write(folder: Path, layout: tuple[str, str, str, Rename, str]) -> dict[str, torch.Tensor]:
    """The untouched backbone and a projection, under the names of that release; returns the tensors."""
    class_name, kind, architecture, rename, projection = layout
    source: Any = load_registry().find(architecture).source
    base = transformers.CONFIG_MAPPING[kind]()
    config = type(base).from_dict(merged(base.to_dict(), source.tinies[kind]))
    config.architectures = [class_name]
    backbone = transformers.AutoModel.from_config(config)
    linear = nn.Linear(config.get_text_config().hidden_size, 21)
    seed_weights(backbone, 3)
    seed_weights(linear, 4)
    tensors = {rename(name): tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    tensors |= {f"{projection}.{name}": tensor for name, tensor in linear.state_dict().items()}
    config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors


def adapter(folder: Path, base: Path, tensors: dict[str, torch.Tensor], projection: str) -> Path:
    """Rank 3 and alpha 7 over the decoder's queries and the projection."""
    generator = torch.Generator().manual_seed(5)
    factors = {}
    for name, weight in tensors.items():
        if name.endswith("q_proj.weight") or name == f"{projection}.weight":
            path = f"base_model.model.{name.removesuffix('.weight')}"
            factors[f"{path}.lora_A.weight"] = torch.randn(3, weight.shape[1], generator=generator) / 6
            factors[f"{path}.lora_B.weight"] = torch.randn(weight.shape[0], 3, generator=generator) / 2
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 7, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(factors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize("layout", LAYOUTS, ids=[f"{row[0]}-{row[3]('x')}" for row in LAYOUTS])
@pytest.mark.parametrize("adapted", [False, True], ids=["whole", "adapter"])
def test_every_layout_is_recognized_and_every_weight_finds_its_place(
    layout: tuple[str, str, str, Rename, str], adapted: bool, tmp_path: Path
) -> None:
    tensors = write(tmp_path / "checkpoint", layout)
    folder = tmp_path / "checkpoint"
    if adapted:
        folder = adapter(tmp_path / "adapter", folder, tensors, layout[4])
    architecture, checkpoint = find_source(ConversionRequest(model=str(folder)), load_registry(), tmp_path)
    assert architecture.name == layout[2]
    config = architecture.source.config(checkpoint)
    assert config.embedding_dim == 21
    original: Any = architecture.source.original(checkpoint, TASK, None)
    recipes = architecture.source.key_mapping(architecture.source.skeleton(config, TASK), checkpoint)
    part = next(part for part in architecture.components(config, TASK) if part.stem == "model")
    size = Size({axis.name: axis.traced for axis in part.axes}, "left", 1)
    (unmerged,) = run_original(original, part, [size])
    # The recipes' values in an untouched class without an adapter: what the graphs will compute.
    plain: Any = architecture.source.skeleton(config, TASK)
    missing = plain.load_state_dict(
        {name: torch.from_numpy(read(recipe).astype(np.float32)) for name, recipe in recipes.items()},
        strict=False,
    )
    assert not [name for name in missing.missing_keys if "lm_head" not in name]
    (loaded,) = run_original(plain, part, [size])
    for results in (unmerged.wrapper, loaded.original, loaded.wrapper):
        assert np.abs(results["embeddings"] - unmerged.original["embeddings"]).max() < 1e-4


def test_a_projection_over_another_backbone_is_not_lost_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ColQwen3 has no class in transformers, and had become a generator."""
    write(tmp_path / "checkpoint", ("ColQwen3", "qwen3_vl", "colqwen2", str, "custom_text_proj"))
    package = tmp_path / "package"
    assert run(["--model", str(tmp_path / "checkpoint"), "--output", str(package)]) == 2
    said = capsys.readouterr().err
    assert "names ColQwen3" in said and "custom_text_proj" in said and "--task image-text-to-text" in said
    assert not package.exists()


@pytest.mark.parametrize(
    ("name", "entries", "task"),
    [
        ("BiQwen2", {}, None),
        ("BiQwen2", {"auto_map": {"AutoModel": "modeling.BiQwen2"}}, GENERATES),
        ("TunedQwen2VLForConditionalGeneration", {}, GENERATES),
        ("Qwen2VLModel", {}, GENERATES),
        (None, {}, GENERATES),
    ],
)
def test_a_dense_embedder_is_no_generator(
    tmp_path: Path, name: str | None, entries: dict[str, Any], task: str | None
) -> None:
    """BiQwen2 is its backbone and no weight more; others may rename a class that generates, or bring theirs."""
    source: Any = load_registry().find("qwen2_vl").source
    base = transformers.CONFIG_MAPPING["qwen2_vl"]()
    config = merged(base.to_dict(), source.tiny) | {"architectures": [name] if name else None, **entries}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"model.norm.weight": torch.ones(3)}, tmp_path / "model.safetensors", {"format": "pt"})
    checkpoint = open_checkpoint(tmp_path)
    if task is not None:
        assert source.default_task(checkpoint) == task
        return
    with pytest.raises(UsageError, match=f"names {name}, which transformers does not have") as refused:
        source.default_task(checkpoint)
    assert f"--task {GENERATES}" in str(refused.value.remedy)


@pytest.mark.parametrize("task", ["FEATURE_EXTRACTION", "CAUSAL_LM", ""])
def test_an_adapter_that_makes_an_embedder_makes_no_generator(tmp_path: Path, task: str) -> None:
    """The base model that it names generates; only the adapter's own config tells."""
    source: Any = load_registry().find("qwen2_vl").source
    base = transformers.CONFIG_MAPPING["qwen2_vl"]()
    (tmp_path / "config.json").write_text(json.dumps(merged(base.to_dict(), source.tiny)))
    save_file({"model.norm.weight": torch.ones(3)}, tmp_path / "model.safetensors", {"format": "pt"})
    adapter_config = {"peft_type": "LORA", "r": 3, "lora_alpha": 7, "task_type": task}
    (tmp_path / "over").mkdir()
    (tmp_path / "over" / "adapter_config.json").write_text(json.dumps(adapter_config))
    save_file(
        {"base_model.model.model.norm.weight": torch.ones(3)}, tmp_path / "over/adapter_model.safetensors"
    )
    checkpoint = replace(open_checkpoint(tmp_path), adapter=open_adapter(tmp_path / "over", "over"))
    if task != "FEATURE_EXTRACTION":
        assert source.default_task(checkpoint) == GENERATES
        return
    with pytest.raises(UsageError, match="trained for FEATURE_EXTRACTION"):
        source.default_task(checkpoint)
