"""Operators that torch lowers to nothing ONNX has, lowered by the plugins; sizes that code makes plain numbers of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from transformers import MptConfig, MptForCausalLM, SwitchTransformersConfig, SwitchTransformersEncoderModel

from converter.cli.main import run
from converter.plugins._exporters import erfinv_in_onnx, sizes_stay_sizes
from converter.seeding import seed_weights


class Quantiles(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.erfinv(x)


def test_the_inverse_of_the_error_function_is_right_to_single_precision() -> None:
    points = torch.cat(
        [torch.linspace(-0.99999, 0.99999, 30), torch.tensor([0.0, 0.9, 1 - 1e-6, -0.5, 1e-4])]
    )
    table = dict(erfinv_in_onnx())
    program = torch.onnx.export(
        Quantiles(), (points,), dynamo=True, custom_translation_table=table, verbose=False
    )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: points.numpy()})
    np.testing.assert_allclose(found, torch.erfinv(points.double()).numpy(), rtol=1e-6, atol=1e-6)


class Rows(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_ones(len(x), 3)


def test_the_length_of_a_tensor_stays_a_size_while_tracing() -> None:
    batch = {"x": {0: torch.export.Dim.DYNAMIC}}
    with sizes_stay_sizes(__name__):
        program = torch.export.export(Rows(), (torch.zeros(2, 5),), dynamic_shapes=batch, strict=False)
    assert program.module()(torch.zeros(4, 5)).shape == (4, 3)
    assert "len" not in globals()


def test_experts_that_are_asked_one_by_one_leave_out_what_is_above_their_capacity(tmp_path: Path) -> None:
    sizes = {"vocab_size": 601, "d_model": 32, "d_kv": 7, "d_ff": 52, "num_heads": 3, "num_experts": 5}
    config = SwitchTransformersConfig(**sizes, num_layers=3, num_sparse_encoder_layers=1, expert_capacity=3)
    model: Any = SwitchTransformersEncoderModel(config).eval()
    seed_weights(model, 3)
    model.save_pretrained(tmp_path / "switch")
    arguments = ["--model", tmp_path / "switch", "--output", tmp_path / "package", "--parity", "full"]
    assert run([*map(str, arguments)]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "package" / "onnx" / "model.onnx")
    ids = torch.randint(3, 601, (3, 30), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).last_hidden_state
        model.encoder.block[1].layer[1].mlp.router.expert_capacity = 64
        roomy = model(ids, attention_mask=mask).last_hidden_state
    (found,) = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert (expected - roomy).abs().max() > 0.1


@pytest.mark.coverage
def test_a_decoder_whose_table_of_positions_has_one_row_generates(tmp_path: Path) -> None:
    """MPT's was cut at a row that torch could not tell."""
    model = MptForCausalLM(MptConfig(vocab_size=601, d_model=84, n_heads=6, n_layers=3, max_seq_len=90))
    seed_weights(model, 3)
    model.save_pretrained(tmp_path / "mpt")
    arguments = ["--model", tmp_path / "mpt", "--output", tmp_path / "package", "--parity", "full"]
    assert run([*map(str, arguments)]) == 0
    assert json.loads((tmp_path / "package" / "converter.json").read_text())["task"].endswith("with-past")
