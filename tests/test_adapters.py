"""LoRA adapters: merged weights are peft's, originals compute what peft does, and what cannot be merged is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from converter import convert
from converter.adapted import attach_adapter
from converter.checkpoints.lora import open_adapter
from converter.cli.main import run
from converter.errors import CheckpointError
from converter.recipes import AddLowRank, read, walk
from converter.records import Checkpoint
from converter.registry import load_registry
from converter.request import ConversionRequest
from converter.seeding import seed_weights
from converter.selection import find_source
from converter.tracing.conversions import recipes_for


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grouped heads, depth 3, and a vocabulary of 601."""
    config = transformers.Qwen2Config(
        vocab_size=601,
        hidden_size=36,
        intermediate_size=52,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    model = transformers.Qwen2ForCausalLM(config)
    seed_weights(model, 1)
    folder = tmp_path_factory.mktemp("base") / "checkpoint"
    model.save_pretrained(folder)
    return folder


def write_adapter(base: Path, folder: Path, chosen: Callable[[str], bool], **settings: Any) -> Path:
    """An adapter of rank 5 and alpha 7 over the chosen matrices of a checkpoint, laid out as peft does it."""
    generator = torch.Generator().manual_seed(5)
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in load_file(base / "model.safetensors").items():
        if name.endswith(".weight") and weight.dim() == 2 and chosen(name):
            path = f"base_model.model.{name.removesuffix('.weight')}"
            rows, columns = weight.shape
            tensors[f"{path}.lora_A.weight"] = torch.randn(5, columns, generator=generator) / columns**0.5
            tensors[f"{path}.lora_B.weight"] = torch.randn(rows, 5, generator=generator) / 5**0.5
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 5, "lora_alpha": 7, "bias": "none", **settings}
    config.setdefault("base_model_name_or_path", str(base))
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def opened(folder: Path, **options: Any) -> tuple[Any, Checkpoint]:
    return find_source(ConversionRequest(model=str(folder), **options), load_registry(), folder)


def test_merged_weights_and_outputs_are_those_of_peft(base: Path, tmp_path: Path) -> None:
    """Odd rank and alpha, both by pattern too, rank-stabilized, over a table of embeddings, with a module replaced."""
    peft = pytest.importorskip("peft", reason="the reference of this test; the test extra brings it")
    settings = peft.LoraConfig(
        r=5,
        lora_alpha=13,
        target_modules=["q_proj", "down_proj", "embed_tokens"],
        modules_to_save=["lm_head"],
        rank_pattern={"down_proj": 3},
        alpha_pattern={"layers.1.self_attn.q_proj": 7},
        use_rslora=True,
    )
    adapted = peft.get_peft_model(transformers.Qwen2ForCausalLM.from_pretrained(base), settings)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 6
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    architecture, checkpoint = opened(tmp_path / "adapter")
    original = architecture.source.original(checkpoint, "text-generation", None)
    ids = torch.randint(0, 601, (2, 9), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        merged = adapted.eval().merge_and_unload()
        assert (merged(ids).logits - original(ids).logits).abs().max() < 1e-4
    recipes = recipes_for(architecture.source.skeleton(merged.config, "text-generation"), checkpoint)
    changed = 0
    for name, expected in merged.state_dict().items():
        changed += any(isinstance(part, AddLowRank) for part in walk(recipes[name]))
        assert np.abs(read(recipes[name]).astype(np.float32) - expected.numpy()).max() < 1e-6, name
    assert changed == 7


def test_an_adapter_converts_through_the_command_line(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", lambda name: "mlp" in name)
    (adapter / "tokenizer_config.json").write_text("{}")
    package = tmp_path / "package"
    arguments = ["--model", adapter, "--output", package, "--task", "text-generation", "--parity", "full"]
    assert run([*map(str, arguments), "--quiet"]) == 0
    record = json.loads((package / "converter.json").read_text())
    assert record["source"]["base"]["name"] == base.name
    assert record["parity"]["passed"]
    assert (package / "tokenizer_config.json").is_file()
    assert not (package / "adapter_config.json").exists(), "the package's weights are merged"

    moved = base.rename(
        tmp_path / "moved"
    )  # the adapter names its base model by a place that is not there any more
    try:
        for command in ("verify", "bisect"):
            asked = [command, str(package), "--model", str(adapter), "--quiet"]
            assert run(asked) == 1
            assert run([*asked, "--base-model", str(moved)]) == 0
    finally:
        moved.rename(base)


def test_weights_stored_turned_take_a_turned_change(tmp_path: Path) -> None:
    """GPT-2 keeps its matrices (in, out), which peft calls fan_in_fan_out."""
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=601, n_embd=20, n_layer=1, n_head=2)
    )
    seed_weights(model, 1)
    model.save_pretrained(tmp_path / "base")
    path = "base_model.model.transformer.h.0.attn.c_attn"
    # Seeded and of a trained adapter's size: factors of unit variance drive attention's scores to a thousand,
    # where the rounding of float32 alone moves the logits by 1e-4.
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(3, 20, generator=generator) / 10
    b = torch.randn(60, 3, generator=generator) / 10
    adapter = write_adapter(
        tmp_path / "base", tmp_path / "adapter", lambda name: False, fan_in_fan_out=True, r=3
    )
    save_file({f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}, adapter / "adapter_model.safetensors")
    architecture, checkpoint = opened(adapter)
    original = architecture.source.original(checkpoint, "text-generation", None)
    ids = torch.arange(6)[None]
    with torch.no_grad():
        unmerged = original(ids).logits
        name = "transformer.h.0.attn.c_attn.weight"
        before = model.eval()(ids).logits
        merged = model.state_dict()[name] + 7 / 3 * (b @ a).T
        model.load_state_dict({**model.state_dict(), name: merged})
        after = model(ids).logits
    assert (after - unmerged).abs().max() < 1e-5 < 1e-2 < (after - before).abs().max()
    recipe = recipes_for(architecture.source.skeleton(model.config, "text-generation"), checkpoint)[name]
    assert np.allclose(read(recipe), merged.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias=all"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"r": 4}, "rank 4"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(
    settings: dict[str, Any], named: str, base: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", lambda name: "mlp" in name, **settings)
    with pytest.raises(CheckpointError, match=named):
        open_adapter(adapter, "adapter")


def test_a_missing_base_model_is_asked_for(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = write_adapter(
        base, tmp_path / "adapter", lambda name: "mlp" in name, base_model_name_or_path="/nowhere/at/all"
    )
    assert run(["--model", str(adapter), "--output", str(tmp_path / "package")]) == 1
    assert "--base-model" in capsys.readouterr().err
    _, checkpoint = opened(adapter, base_model=str(base))
    assert checkpoint.adapter is not None
    assert checkpoint.adapter.base == base.name


def test_a_quantized_base_model_is_named_and_another_may_be_given(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "packed-4bit"
    shutil.copytree(base, packed)
    entries = json.loads((packed / "config.json").read_text())
    entries["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (packed / "config.json").write_text(json.dumps(entries))
    adapter = write_adapter(
        base, tmp_path / "adapter", lambda name: "mlp" in name, base_model_name_or_path=str(packed)
    )
    assert run(["--model", str(adapter), "--output", str(tmp_path / "package")]) == 1
    said = capsys.readouterr().err
    assert "packed-4bit is quantized already (gptq)" in said and "--base-model" in said
    _, checkpoint = opened(adapter, base_model=str(base))
    assert checkpoint.source == "adapter"


def test_an_adapter_of_another_model_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", lambda name: "layers.0.mlp" in name)
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name.replace("layers.0", "layers.7"): tensor for name, tensor in tensors.items()},
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(CheckpointError, match=r"layers\.7"):
        convert(model=adapter, output=tmp_path / "package", parity="off")


@pytest.mark.parametrize("whole", [False, True], ids=["low-rank", "replaced"])
def test_an_adapter_of_a_wider_base_model_is_refused(whole: bool, base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", lambda name: "layers.0.mlp.up_proj" in name)
    tensors = load_file(adapter / "adapter_model.safetensors")
    ((a, _), (b, _)) = sorted(tensors.items())
    weight = a.removesuffix(".lora_A.weight") + ".weight"
    wider = {a: torch.zeros(5, 72), b: torch.zeros(104, 5)}
    save_file(
        {weight: torch.zeros(104, 72)} if whole else wider,
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(
        CheckpointError, match=r"\(104, 72\), in checkpoint it has shape \(52, 36\)"
    ) as raised:
        convert(model=adapter, output=tmp_path / "package", parity="off")
    assert raised.value.remedy is not None and "--base-model" in raised.value.remedy


def test_a_base_model_is_for_adapters_only(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--model", str(base), "--base-model", str(base)]) == 2
    assert "is not an adapter" in capsys.readouterr().err


def test_a_model_without_adapter_is_left_alone(base: Path) -> None:
    architecture, checkpoint = opened(base)
    model = architecture.source.original(checkpoint, "text-generation", None)
    attach_adapter(model, checkpoint)
    assert not any(module._forward_hooks for module in model.modules())
