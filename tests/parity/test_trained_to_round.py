"""Checkpoints that were trained with few bits in view: graphs round as the layers that transformers gives them do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.integrations import bitnet, gemma_quant
from transformers.models.ibert import quant_modules

from converter.cli.main import run
from converter.plugins import _ibert
from converter.recipes import Constant, read
from converter.tracing.quantized_layers import fields
from converter.weights.unpacked import Ternary

PACKED = {"quant_method": "bitnet"}
WITH_PAST = "text-generation-with-past"
# Wide enough for numbers that float32 moves over the edge between two steps.
WIDE = {"hidden_size": 768, "intermediate_size": 1536, "head_dim": 192}


@pytest.fixture(scope="module")
def ternary(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("bitnet", task=WITH_PAST, overrides={**WIDE, "quantization_config": PACKED})


@pytest.fixture(scope="module")
def package(ternary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("ternary") / "package"
    assert run(["--model", str(ternary), "--output", str(target), "--quiet"]) == 0
    return target


def parity_of(package: Path) -> Any:
    return json.loads((package / "converter.json").read_text())["parity"]


@pytest.mark.xdist_group("ternary")
def test_packed_weights_of_three_values_are_unpacked_and_activations_rounded(
    ternary: Path, package: Path
) -> None:
    assert load_file(ternary / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].dtype == torch.uint8
    model = onnx.load(package / "onnx" / "model.onnx")
    matrix = next(entry for entry in model.graph.initializer if "layers.0.mlp.up_proj" in entry.name)
    assert set(np.unique(onnx.numpy_helper.to_array(matrix))) == {-1, 0, 1}
    assert "Round" in {node.op_type for node in model.graph.node}


@pytest.mark.xdist_group("ternary")
def test_steps_that_float32_moves_are_no_mistakes(package: Path) -> None:
    """Parity had failed: two right computations differ by whole steps, the original from itself in float64 as much."""
    parity = parity_of(package)
    assert parity["passed"] and any(line.startswith("float32 rounds") for line in parity["warnings"])


@pytest.mark.coverage
@pytest.mark.xdist_group("ternary")
def test_a_mistake_of_two_percent_in_one_matrix_is_told_from_such_steps(
    ternary: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(ternary, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.layers.1.self_attn.v_proj.weight_scale"] *= 1.02
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    assert run(["verify", str(package), "--model", str(other)]) == 3
    assert "FAILED" in capsys.readouterr().out


LAYERS = {
    "bitnet_online": ("bitnet", {"linear_class": "autobitlinear", "quantization_mode": "online", **PACKED}),
    "bitnet_offline": ("bitnet", {"linear_class": "autobitlinear", **PACKED}),
    "bitnet_normed": ("bitnet", {"use_rms_norm": True, **PACKED}),
    "gemma_2_bits": ("gemma3_text", {"quant_method": "gemma", "num_bits": 2, "quantize_embeddings": True}),
    "gemma_4_bits": ("gemma3_text", {"quant_method": "gemma", "num_bits": 4}),
}


@pytest.mark.coverage
@pytest.mark.parametrize("case", LAYERS)
def test_other_layers_that_round_are_converted(
    case: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    arch, settings = LAYERS[case]
    checkpoint = tiny_checkpoint(arch, task=WITH_PAST, overrides={"quantization_config": settings})
    assert run(["--model", str(checkpoint), "--output", str(tmp_path / "p"), "--quiet"]) == 0
    assert parity_of(tmp_path / "p")["passed"]


@pytest.mark.coverage
def test_ibert_computes_in_integers_where_it_was_trained_so(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    task = "text-classification"
    checkpoint = tiny_checkpoint("ibert", task=task, overrides={"quant_mode": True})
    arguments = ["--model", str(checkpoint), "--task", task, "--output", str(tmp_path / "p"), "--quiet"]
    assert run(arguments) == 0
    assert parity_of(tmp_path / "p")["passed"]


def test_bytes_are_unpacked_as_transformers_unpacks_them() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(8, 32)
    for bits in (2, 4):
        theirs = getattr(gemma_quant, f"_unpack_int{bits}")(every, 61)
        assert torch.equal(fields(every, 61, bits), theirs.to(torch.float32))
    unpack = getattr(bitnet.unpack_weights, "_torchdynamo_orig_callable", bitnet.unpack_weights)
    ours = read(Ternary(Constant.of(every.numpy())))
    assert np.array_equal(ours, unpack(every, torch.float32).numpy())


def test_part_of_what_is_unpacked_can_be_read_alone() -> None:
    packed = np.random.default_rng(0).integers(0, 256, (5, 7), np.uint8)
    recipe = Ternary(Constant.of(packed))
    part = np.empty((9, 3), np.float32)
    recipe.fill(((3, 12), (2, 5)), part)
    assert np.array_equal(part, read(recipe)[3:12, 2:5])


def test_scales_are_taken_apart_as_ibert_takes_them_apart() -> None:
    scales = torch.tensor([1.0, 0.5, 3e-7, 0.1, 2.0**-20, 1234.5678, -0.37], dtype=torch.float64)
    for mine, theirs in zip(
        _ibert.mantissa_and_exponent(scales), quant_modules.batch_frexp(scales), strict=True
    ):
        assert torch.equal(mine, theirs.to(torch.float64))
    low, high = torch.tensor([-0.3]), torch.tensor([0.7])
    assert torch.equal(
        _ibert.scale_of(8, low, high), quant_modules.symmetric_linear_quantization_params(8, low, high)
    )
