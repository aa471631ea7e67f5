"""A model without weights: what is fake, what stays real, and what a checkpoint's buffers do to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers import CONFIG_MAPPING

from converter.errors import ConfigError, UsageError, WeightError
from converter.recipes import Constant
from converter.sources import TransformersModel, check_counts
from converter.tracing.skeleton import cast_skeleton, load_buffers, parameter_names, weightless


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("inv_freq", torch.tensor([1.0, 1e-3]), persistent=False)


def skeleton() -> Model:
    with weightless():
        return Model()


def test_parameters_are_fake_and_buffers_real() -> None:
    model = skeleton()
    assert all(isinstance(parameter, FakeTensor) for parameter in model.parameters())
    assert not any(isinstance(buffer, FakeTensor) for buffer in model.buffers())
    assert isinstance(nn.Linear(2, 2).weight, nn.Parameter), "outside, modules are as ever"


def test_a_huge_model_takes_no_memory() -> None:
    with weightless():
        model = nn.Linear(1 << 15, 1 << 16)  # 8 GiB
    assert model.weight.shape == (1 << 16, 1 << 15)


def test_tied_parameters_stay_one_and_have_their_first_name() -> None:
    model = skeleton()
    assert model.head.weight is model.embed.weight
    assert parameter_names(model)[id(model.head.weight)] == "embed.weight"


def test_half_precision_keeps_ties_and_the_rotary_table() -> None:
    model = skeleton()
    cast_skeleton(model, "fp16")
    assert model.embed.weight.dtype == torch.float16
    assert model.head.weight is model.embed.weight
    assert isinstance(model.embed.weight, FakeTensor)
    assert model.norm.running_mean is not None and model.norm.running_mean.dtype == torch.float16
    assert model.get_buffer("inv_freq").dtype == torch.float32


def test_stored_buffers_take_the_checkpoints_values() -> None:
    """`num_batches_tracked` has no dimensions at all."""
    model = skeleton()
    mean = np.array([1, 2, 3, 4], np.float32)
    load_buffers(
        model, {"norm.running_mean": Constant.of(mean), "norm.num_batches_tracked": Constant.of(np.array(9))}
    )
    assert model.get_buffer("norm.running_mean").tolist() == [1, 2, 3, 4]
    assert model.get_buffer("norm.num_batches_tracked").item() == 9


def test_a_stored_buffer_of_another_shape_is_an_error() -> None:
    with pytest.raises(WeightError, match=r"norm\.running_mean"):
        load_buffers(skeleton(), {"norm.running_mean": Constant.of(np.zeros(3, np.float32))})


def test_a_config_whose_entries_do_not_fit_each_other_is_the_users_to_mend() -> None:
    source = TransformersModel({"fill-mask": "AutoModelForMaskedLM"}, {}, "bert")
    config = CONFIG_MAPPING["bert"](hidden_size=37, num_attention_heads=3)
    with pytest.raises(ConfigError, match=r"bert .*37.* not a multiple") as raised:
        source.skeleton(config, "fill-mask")
    assert raised.value.exit_code == 2
    assert "config.json" in str(raised.value)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"text_config": {"num_hidden_layers": -1}}, "num_hidden_layers: -1"),
        (
            {"num_attention_heads": 6, "num_key_value_heads": 4},
            "6 num_attention_heads to 4 num_key_value_heads",
        ),
    ],
)
def test_counts_that_no_model_has_are_refused_although_one_would_be_built(
    entries: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        check_counts(
            {"model_type": "llama", "num_attention_heads": 6, "num_key_value_heads": 3} | entries, "mine"
        )
    assert raised.value.exit_code == 2


def test_a_library_that_a_model_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(self: TransformersModel, config: object, task: str) -> None:
        raise ImportError("\nDinatModel requires the natten library but it was not found\n")

    monkeypatch.setattr(TransformersModel, "_build", build)
    source = TransformersModel({"feature-extraction": "AutoModel"}, {}, "dinat")
    with pytest.raises(UsageError, match="natten") as raised:
        source.skeleton(CONFIG_MAPPING["bert"](), "feature-extraction")
    assert "install" in str(raised.value)
