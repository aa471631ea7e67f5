"""What tests of stamping share: a graph of stamped layers, the same with every layer traced, and how they differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import nn

    from converter.records import Component, ExportedGraph

    Build = Callable[[], nn.Module]
    Declare = Callable[[nn.Module], Component]


class Stamping:
    """`build` makes a model, `declare` a component of it; weights are fake, as in a conversion."""

    def export(self, component: Component, model: nn.Module) -> ExportedGraph:
        from converter.records import Architecture, Variant
        from converter.tracing.export import trace, traced_size

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

    def cut_and_stamp(self, build: Build, declare: Declare) -> ExportedGraph:
        from converter.passes.stamp import stamp
        from converter.tracing.layers import cut_layers
        from converter.tracing.skeleton import weightless

        with weightless():
            model = build().eval()
        plan = cut_layers(model)
        assert plan.lists, "the model was not cut at all"
        graph = self.export(declare(model), model)
        assert stamp(graph.model, plan, graph.scopes)
        return graph

    def whole(self, build: Build, declare: Declare) -> ExportedGraph:
        from converter.tracing.skeleton import weightless

        with weightless():
            model = build().eval()
        return self.export(declare(model), model)

    def differences(self, left: ExportedGraph, right: ExportedGraph) -> list[str]:
        from converter.passes.anchor_sizes import anchor_sizes
        from converter.passes.compare import same_graph
        from converter.passes.standard import remove_unused

        for graph in (left, right):
            anchor_sizes(graph.model)
            remove_unused(graph.model)
        return same_graph(left.model, right.model)


@pytest.fixture(scope="session")
def stamping() -> Stamping:
    return Stamping()
