"""Stamped graphs equal whole traces node for node, or stamping is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, DynamicCache, Qwen2Config, Qwen2ForCausalLM

from converter.passes.anchor_sizes import anchor_sizes
from converter.passes.compare import module_scopes, same_graph
from converter.passes.stamp import StampRefused, stamp
from converter.passes.standard import remove_unused
from converter.recipes import Parameter, RecipeTensor
from converter.records import (
    Architecture,
    Axis,
    Component,
    DummyInputs,
    ExportedGraph,
    Output,
    Size,
    Variant,
)
from converter.tracing.export import trace, traced_size
from converter.tracing.layers import LayerPlan, cut_layers
from converter.tracing.skeleton import weightless

TOKENS = {0: "batch_size", 1: "sequence_length"}
BATCH = Axis("batch_size", 2)
SEQUENCE = Axis("sequence_length", 3)


def export(component: Component, model: nn.Module) -> ExportedGraph:
    architecture = Architecture(
        name="toy",
        model_types=(),
        summary="",
        reference_checkpoint="",
        source=None,  # type: ignore[arg-type]
        components=lambda config, task: (component,),
        variants={"task": (Variant("model", ("model",), ""),)},
    )
    return trace(architecture, component, model, dtype="fp32", opset=18, size=traced_size(component))


def cut_and_stamp(build: Callable[[], nn.Module], declare: Callable[[nn.Module], Component]) -> ExportedGraph:
    with weightless():
        model = build().eval()
    plan = cut_layers(model)
    assert plan.lists, "the model was not cut at all"
    graph = export(declare(model), model)
    assert stamp(graph.model, plan, graph.scopes)
    return graph


def whole(build: Callable[[], nn.Module], declare: Callable[[nn.Module], Component]) -> ExportedGraph:
    with weightless():
        model = build().eval()
    return export(declare(model), model)


def differences(left: ExportedGraph, right: ExportedGraph) -> list[str]:
    for graph in (left, right):
        anchor_sizes(graph.model)
        remove_unused(graph.model)
    return same_graph(left.model, right.model)


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


# --- models as they are ---


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


def test_layers_a_wrapper_holds_under_two_names_are_stamped() -> None:
    def declare(model: nn.Module) -> Component:
        return replace(declare_text(model), wrapper=TwoNames)

    assert differences(cut_and_stamp(build_bert, declare), whole(build_bert, declare)) == []


def test_layers_whose_nodes_name_no_layer_are_refused() -> None:
    """Or else the graph would be as short as its trace."""
    with weightless():
        model = build_bert().eval()
    plan = cut_layers(model)
    graph = export(declare_text(model), model)
    with pytest.raises(StampRefused, match="which of its layers"):
        stamp(graph.model, plan, {})


def test_twelve_stamped_layers_equal_twelve_traced_ones() -> None:
    """More than ten, because `layer.1` is how `layer.10` starts."""
    stamped, traced = cut_and_stamp(build_bert, declare_text), whole(build_bert, declare_text)
    assert differences(stamped, traced) == []
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
        logits = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True).logits
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


def test_each_stamped_layer_has_its_own_past_and_present() -> None:
    stamped, traced = cut_and_stamp(build_decoder, declare_decoder), whole(build_decoder, declare_decoder)
    assert differences(stamped, traced) == []

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
    expected = model(input_ids=ids, past_key_values=cache).logits.detach()
    torch.testing.assert_close(torch.from_numpy(found[0]), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.from_numpy(found[9]), cache.layers[4].keys.detach(), atol=1e-5, rtol=0)


# --- toys ---


class Layer(nn.Module):
    """A linear layer; `kind` decides what else it does."""

    def __init__(self, position: int, kind: str = "plain") -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.position = position
        self.kind = kind
        self.register_buffer("offset", torch.arange(4.0))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(hidden) + self.offset
        if self.kind == "rectified":
            return torch.relu(result)
        if self.kind == "scaled":
            return result * (self.position + 2)
        if self.kind == "weighted":
            return result * torch.tensor([1.0, 2.0, 3.0, 4.0])
        if self.kind == "weighted by position":
            return result * torch.tensor([1.0, 2.0, 3.0, self.position])
        return result


class Stack(nn.Module):
    def __init__(self, *kinds: str, keep: int | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(position, kind) for position, kind in enumerate(kinds))
        self.keep = keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = None
        for position, layer in enumerate(self.layers):
            x = layer(x)
            kept = x if position == self.keep else kept
        return x if kept is None else x + kept


class Twin(nn.Module):
    """Hands on two values from layer to layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwinLayer() for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        other = x
        for layer in self.layers:
            x, other = layer(x, other)
        return x + other


class TwinLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(x), torch.tanh(other)


class Restated(nn.Module):
    """A wrapper with a list of its own, each element around a part of the model's."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(RestatedLayer(layer) for layer in model.layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class RestatedLayer(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.tanh(self.layer.linear(x)) + self.layer.offset
        return result


class Identity(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        return self.model(x)


def declare_toy(model: nn.Module, wrapper: Callable[[nn.Module], nn.Module] = Identity) -> Component:
    return Component(
        stem="model",
        wrapper=wrapper,
        inputs=lambda size: DummyInputs({"x": torch.ones(size["batch_size"], 4)}, {"x": {0: "batch_size"}}),
        reference=lambda model, tensors: {},
        axes=(BATCH,),
        outputs=(Output("y", {0: "batch_size"}),),
    )


def test_alternating_layers_are_stamped_by_their_kind() -> None:
    def build() -> nn.Module:
        return Stack(*["plain", "plain", "rectified"] * 4)

    stamped, traced = cut_and_stamp(build, declare_toy), whole(build, declare_toy)
    assert differences(stamped, traced) == []


def test_constants_that_layers_make_while_they_run_are_alike_whatever_torch_numbers_them() -> None:
    def build() -> nn.Module:
        return Stack(*["weighted"] * 5)

    stamped, traced = cut_and_stamp(build, declare_toy), whole(build, declare_toy)
    names = {name.rpartition(".")[2] for name in traced.model.graph.initializers if "lifted" in name}
    assert len(names) > 1, "torch numbers them no longer; the comparison may be of whole names again"
    assert differences(stamped, traced) == []


def test_a_wrapper_may_restate_the_layers() -> None:
    def declare(model: nn.Module) -> Component:
        return declare_toy(model, Restated)

    def build() -> nn.Module:
        return Stack(*["plain"] * 5)

    stamped, traced = cut_and_stamp(build, declare), whole(build, declare)
    assert differences(stamped, traced) == []
    assert module_scopes(stamped.model.graph[-1])[-1].endswith("blocks.4")


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Stack(*["scaled"] * 5), "not alike"),
        (lambda: Stack(*["weighted by position"] * 5), "not alike"),
        (lambda: Stack(*["plain"] * 5, keep=0), "hands on 0 values"),
        (lambda: Stack(*["plain"] * 5, keep=1), "others than the next"),
        (Twin, "hands on 2 values"),
    ],
    ids=[
        "depends on its position",
        "makes a constant of its position",
        "is the first and used again at the end",
        "is used again at the end",
        "hands on two values",
    ],
)
def test_stamping_is_refused_when_a_layer(build: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(StampRefused, match=reason):
        cut_and_stamp(build, declare_toy)


def test_an_uncut_graph_is_left_alone() -> None:
    graph = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    assert not stamp(graph, LayerPlan(), {})
