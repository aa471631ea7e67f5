"""Stamped graphs equal whole traces node for node: models of transformers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, DynamicCache, Qwen2Config, Qwen2ForCausalLM

from converter.passes.stamp import StampRefused, stamp
from converter.recipes import Parameter, RecipeTensor
from converter.records import Axis, Component, DummyInputs, ExportedGraph, Output, Size
from converter.tracing.layers import cut_layers
from converter.tracing.skeleton import weightless

if TYPE_CHECKING:
    from tests.passes.conftest import Stamping

TOKENS = {0: "batch_size", 1: "sequence_length"}
BATCH = Axis("batch_size", 2)
SEQUENCE = Axis("sequence_length", 3)


def run(graph: ExportedGraph, model: nn.Module, feeds: dict[str, np.ndarray[Any, Any]]) -> list[Any]:
    """The graph with the parameters of `model`, in onnxruntime."""
    parameters = dict(model.named_parameters())
    for value in graph.model.graph.initializers.values():
        if isinstance(value.const_value, RecipeTensor):
            assert isinstance(value.const_value.recipe, Parameter)
            value.const_value = ir.tensor(
                parameters[value.const_value.recipe.name].detach().numpy(), name=value.name
            )
    session = onnxruntime.InferenceSession(ir.to_proto(graph.model).SerializeToString())
    outputs: list[Any] = session.run(None, feeds)
    return outputs


class Bert(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        return hidden


def build_bert() -> Any:
    config = BertConfig(
        vocab_size=31, hidden_size=12, num_hidden_layers=12, num_attention_heads=3, intermediate_size=20
    )
    return BertModel(config, add_pooling_layer=False)


def declare_text(model: nn.Module) -> Component:
    def inputs(size: Size) -> DummyInputs:
        ids = torch.ones(size["batch_size"], size["sequence_length"], dtype=torch.long)
        return DummyInputs(
            {"input_ids": ids, "attention_mask": ids}, {"input_ids": TOKENS, "attention_mask": TOKENS}
        )

    return Component(
        stem="model",
        wrapper=Bert,
        inputs=inputs,
        reference=lambda model, tensors: {},
        axes=(BATCH, SEQUENCE),
        outputs=(Output("last_hidden_state", TOKENS),),
    )


class TwoNames(nn.Module):
    """Holds the layers twice: in the model, and in the part of it that is called."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.part = model.encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.model.embeddings(input_ids) * attention_mask[..., None]
        for layer in self.part.layer:
            hidden = layer(hidden)
        return hidden


def test_layers_a_wrapper_holds_under_two_names_are_stamped(stamping: Stamping) -> None:
    def declare(model: nn.Module) -> Component:
        return replace(declare_text(model), wrapper=TwoNames)

    assert (
        stamping.differences(stamping.cut_and_stamp(build_bert, declare), stamping.whole(build_bert, declare))
        == []
    )


def test_layers_whose_nodes_name_no_layer_are_refused(stamping: Stamping) -> None:
    """Or else the graph would be as short as its trace."""
    with weightless():
        model = build_bert().eval()
    plan = cut_layers(model)
    graph = stamping.export(declare_text(model), model)
    with pytest.raises(StampRefused, match="which of its layers"):
        stamp(graph.model, plan, {})


def test_twelve_stamped_layers_equal_twelve_traced_ones(stamping: Stamping) -> None:
    """More than ten, because `layer.1` is how `layer.10` starts."""
    stamped, traced = (
        stamping.cut_and_stamp(build_bert, declare_text),
        stamping.whole(build_bert, declare_text),
    )
    assert stamping.differences(stamped, traced) == []
    assert list(stamped.model.graph.initializers) == list(traced.model.graph.initializers)

    model = build_bert().eval()
    ids = torch.randint(0, 31, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(7) < torch.tensor([7, 4, 1])[:, None]).long()
    (found,) = run(stamped, model, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    expected = model(input_ids=ids, attention_mask=mask).last_hidden_state.detach()
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)


class Decoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, **past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cache = DynamicCache(config=self.model.config)
        for layer in range(self.model.config.num_hidden_layers):
            key, value = (past[f"past_key_values.{layer}.{kind}"] for kind in ("key", "value"))
            cache.update(key, value, layer)
        logits = self.model(input_ids=input_ids, cache=cache, use_cache=True).logits
        return logits, *(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


def build_decoder() -> Any:
    config = Qwen2Config(
        vocab_size=31,
        hidden_size=12,
        num_hidden_layers=5,
        num_attention_heads=3,
        num_key_value_heads=1,
        intermediate_size=20,
    )
    return Qwen2ForCausalLM(config)


def declare_decoder(model: Any) -> Component:
    layers = range(model.config.num_hidden_layers)
    names = [f"past_key_values.{layer}.{kind}" for layer in layers for kind in ("key", "value")]
    axes = {0: "batch_size", 2: "past_sequence_length"}

    def inputs(size: Size) -> DummyInputs:
        batch = size["batch_size"]
        tensors = {"input_ids": torch.ones(batch, size["sequence_length"], dtype=torch.long)}
        tensors |= {name: torch.ones(batch, 1, size["past_sequence_length"], 4) for name in names}
        return DummyInputs(tensors, {"input_ids": TOKENS, **dict.fromkeys(names, axes)})

    presents = [name.replace("past_key_values", "present") for name in names]
    return Component(
        stem="model",
        wrapper=Decoder,
        inputs=inputs,
        reference=lambda model, tensors: {},
        axes=(BATCH, SEQUENCE, Axis("past_sequence_length", 4)),
        outputs=tuple(Output(name, {0: "batch_size"}) for name in ("logits", *presents)),
    )


def test_each_stamped_layer_has_its_own_past_and_present(stamping: Stamping) -> None:
    stamped, traced = (
        stamping.cut_and_stamp(build_decoder, declare_decoder),
        stamping.whole(build_decoder, declare_decoder),
    )
    assert stamping.differences(stamped, traced) == []

    model: Any = build_decoder().eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 31, (3, 1), generator=generator)
    cache = DynamicCache(config=model.config)
    feeds = {"input_ids": ids.numpy()}
    for layer in range(5):
        key, value = (torch.randn(3, 1, 6, 4, generator=generator) for _ in range(2))
        cache.update(key, value, layer)
        feeds |= {
            f"past_key_values.{layer}.key": key.numpy(),
            f"past_key_values.{layer}.value": value.numpy(),
        }
    found = run(stamped, model, feeds)
    expected = model(input_ids=ids, cache=cache).logits.detach()
    torch.testing.assert_close(torch.from_numpy(found[0]), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.from_numpy(found[9]), cache.layers[4].keys.detach(), atol=1e-5, rtol=0)
