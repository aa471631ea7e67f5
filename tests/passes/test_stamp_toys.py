"""Stamped graphs equal whole traces node for node, or stamping is refused: toys with one peculiarity each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import pytest
import torch
from torch import nn

from converter.passes.compare import module_scopes
from converter.passes.stamp import StampRefused, stamp
from converter.records import Axis, Component, DummyInputs, Output
from converter.tracing.layers import LayerPlan

if TYPE_CHECKING:
    from tests.passes.conftest import Stamping

BATCH = Axis("batch_size", 2)


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


def test_alternating_layers_are_stamped_by_their_kind(stamping: Stamping) -> None:
    def build() -> nn.Module:
        return Stack(*["plain", "plain", "rectified"] * 4)

    stamped, traced = stamping.cut_and_stamp(build, declare_toy), stamping.whole(build, declare_toy)
    assert stamping.differences(stamped, traced) == []


def test_constants_that_layers_make_while_they_run_are_alike_whatever_torch_numbers_them(
    stamping: Stamping,
) -> None:
    def build() -> nn.Module:
        return Stack(*["weighted"] * 5)

    stamped, traced = stamping.cut_and_stamp(build, declare_toy), stamping.whole(build, declare_toy)
    names = {name.rpartition(".")[2] for name in traced.model.graph.initializers if "lifted" in name}
    assert len(names) > 1, "torch numbers them no longer; the comparison may be of whole names again"
    assert stamping.differences(stamped, traced) == []


def test_a_wrapper_may_restate_the_layers(stamping: Stamping) -> None:
    def declare(model: nn.Module) -> Component:
        return declare_toy(model, Restated)

    def build() -> nn.Module:
        return Stack(*["plain"] * 5)

    stamped, traced = stamping.cut_and_stamp(build, declare), stamping.whole(build, declare)
    assert stamping.differences(stamped, traced) == []
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
def test_stamping_is_refused_when_a_layer(
    stamping: Stamping, build: Callable[[], nn.Module], reason: str
) -> None:
    with pytest.raises(StampRefused, match=reason):
        stamping.cut_and_stamp(build, declare_toy)


def test_an_uncut_graph_is_left_alone() -> None:
    graph = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    assert not stamp(graph, LayerPlan(), {})
