"""Cutting a model's lists of layers: which are alike, which stay, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, T5Config, T5ForConditionalGeneration

from converter.tracing.layers import CutList, LayerPlan, cut_layers
from converter.tracing.skeleton import weightless


class Layer(nn.Module):
    def __init__(self, position: int, **attributes: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.layer_idx = position
        self.layer_number = position + 1
        for name, value in attributes.items():
            setattr(self, name, value)


class Stack(nn.Module):
    """A list of layers and, if there is one, a config that describes it."""

    def __init__(self, layers: list[nn.Module], **entries: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.config = SimpleNamespace(**entries)


def stack(
    total: int, attributes: Callable[[int], dict[str, Any]] = lambda position: {}, **entries: Any
) -> Any:
    return Stack([Layer(position, **attributes(position)) for position in range(total)], **entries)


def kept(model: nn.Module) -> tuple[int, ...] | None:
    plan = cut_layers(model)
    return plan.lists[0].kept if plan.lists else None


def test_three_of_many_alike_layers_stay() -> None:
    model = stack(6)
    originals = list(model.layers)
    assert cut_layers(model) == LayerPlan((CutList("layers", (0, 1, 2), (0,) * 6),))
    assert list(model.layers) == originals[:3]


def test_three_of_each_kind_stay_and_learn_their_new_positions() -> None:
    model = stack(12, lambda position: {"is_global": position % 6 == 5, "scale": 0.5})
    model.layers.append(Layer(12, is_global=True, scale=0.5))
    model.layers.append(Layer(13, is_global=True, scale=0.5))
    assert kept(model) == (0, 1, 2, 5, 11, 12)
    assert [layer.layer_idx for layer in model.layers] == [0, 1, 2, 3, 4, 5]
    assert [layer.layer_number for layer in model.layers] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "difference",
    [
        lambda position: {"scale": 1 / (position + 1)},
        lambda position: {"table": nn.Buffer(torch.full((2,), float(position)))},
        lambda position: {"weight": nn.Parameter(torch.empty(position + 1))},
        lambda position: {"windows": [1, position]},
        lambda position: {"activation": nn.ReLU() if position % 4 else nn.GELU()},
        lambda position: {"function": torch.relu if position % 4 else torch.tanh},
        lambda position: {"function": lambda x: x + position},
    ],
    ids=["scalar", "buffer", "shape", "list", "module", "function", "closure"],
)
def test_layers_are_not_alike_when_they_differ_in_a(difference: Callable[[int], dict[str, Any]]) -> None:
    assert kept(stack(5, difference)) != (0, 1, 2)


@pytest.mark.parametrize("rate", ["drop_path", "layerdrop"])
def test_dropout_rates_do_not_make_layers_different(rate: str) -> None:
    assert kept(stack(5, lambda position: {rate: position / 10})) == (0, 1, 2)


def test_layers_that_share_a_parameter_are_left_alone() -> None:
    model = stack(5)
    model.layers[4].linear.weight = model.layers[1].linear.weight
    assert kept(model) is None


@pytest.mark.parametrize(("stride", "places"), [(1, (0, 1, 2)), (2, None)])
def test_layers_that_shorten_what_they_hand_on_are_left_alone(stride: int, places: Any) -> None:
    """As wav2vec 2.0 has them in its published widths: seven convolutions, of which four are alike."""
    model = Stack([nn.Conv1d(4, 4, 3, stride=stride) for _ in range(6)])
    assert kept(model) == places


def test_tables_to_look_up_in_are_left_alone() -> None:
    """As MarkupLM has one for each step of a path; what it finds in them is put side by side."""
    assert kept(Stack([nn.Embedding(7, 4) for _ in range(6)])) is None


def test_short_lists_and_lists_inside_cut_layers_are_left_alone() -> None:
    model = stack(4, lambda position: {"experts": nn.ModuleList(nn.Linear(3, 3) for _ in range(5))})
    model.stages = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
    assert [cut.path for cut in cut_layers(model).lists] == ["layers"]
    assert (len(model.layers[0].experts), len(model.stages)) == (5, 3)


def test_lists_that_run_in_parallel_keep_the_same_positions() -> None:
    model = stack(8, lambda position: {"odd": bool(position % 2)})
    model.norms = nn.ModuleList(nn.LayerNorm(3) for _ in range(8))
    layers, norms = cut_layers(model).lists
    assert layers.kept == norms.kept == (0, 1, 2, 3, 4, 5)


def test_config_entries_that_count_or_list_layers_follow() -> None:
    kinds, positions = ["a", "b"] * 5, [6, 9]
    model = stack(10, num_hidden_layers=10, width=10, block_kinds=kinds, attention_block_indexes=positions)
    assert kept(model) == (0, 1, 2, 3, 4, 5, 6, 9)
    assert vars(model.config) == {
        "num_hidden_layers": 8,
        "width": 10,
        "block_kinds": ["a", "b"] * 4,
        "attention_block_indexes": [6, 7],
    }


def test_a_period_that_no_layer_shows_keeps_the_list_whole() -> None:
    assert kept(stack(8, num_layers=8, cross_attention_interval=4)) is None


class Scaled(Layer):
    """Scales its result by the depth of the model, which cutting would change."""

    config = SimpleNamespace(num_layers=6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(x) / self.config.num_layers
        return result


def test_layers_that_compute_with_the_depth_are_left_alone() -> None:
    assert kept(Stack([Scaled(position) for position in range(6)], num_layers=6)) is None


def test_gemma3_keeps_its_two_kinds_in_their_order() -> None:
    config = Gemma3TextConfig(
        vocab_size=31,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=18,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
    )
    with weightless():
        model = Gemma3ForCausalLM(config)
    (cut,) = cut_layers(model).lists
    assert (cut.path, cut.kept) == ("model.layers", (0, 1, 2, 5, 11, 17))
    assert model.config.num_hidden_layers == 6
    assert model.config.layer_types == ["sliding_attention"] * 3 + ["full_attention"] * 3
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == list(range(6))


def test_both_stacks_of_an_encoder_and_decoder_are_cut_in_every_config() -> None:
    config = T5Config(
        vocab_size=31, d_model=8, d_kv=4, d_ff=8, num_layers=8, num_decoder_layers=6, num_heads=2
    )
    with weightless():
        model = T5ForConditionalGeneration(config)
    encoder, decoder = cut_layers(model).lists
    assert (encoder.kept, decoder.kept) == ((0, 1, 2, 3), (0, 1, 2, 3))
    assert (model.config.num_layers, model.config.num_decoder_layers) == (4, 4)
    assert (model.encoder.config.num_layers, model.decoder.config.num_layers) == (4, 4)
