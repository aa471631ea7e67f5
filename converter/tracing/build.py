"""From a skeleton to finished graphs without weights: cut, trace, stamp, clean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from converter.additions import GraphPass
from converter.errors import ConverterError, ExportError, PassError
from converter.passes.float_io import float_interface
from converter.passes.stamp import StampRefused, stamp
from converter.records import Architecture, Component, Dtype, ExportedGraph, Size
from converter.request import DEFAULT_OPSET, OnStage, Optimization
from converter.tracing.export import trace, traced_size
from converter.tracing.layers import LayerPlan, cut_layers
from converter.tracing.skeleton import cast_skeleton, copy_buffers, weightless

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class BuildSettings:
    """How to trace. `sizes` replaces declared traced sizes by axis name."""

    dtype: Dtype = "fp32"
    opset: int = DEFAULT_OPSET
    stamp: bool = True
    optimize: Optimization = "basic"
    sizes: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Built:
    """The graphs of one model, in the order of their components, and what is worth telling about them."""

    graphs: tuple[ExportedGraph, ...]
    notes: tuple[str, ...] = ()


def build_skeleton(architecture: Architecture, config: Any, task: str) -> nn.Module:
    """The model class of the checkpoint with fake parameters, whole depth."""
    with weightless():
        return architecture.source.skeleton(config, task).eval()


def build_graphs(
    architecture: Architecture,
    model: nn.Module,
    config: Any,
    task: str,
    stems: Sequence[str],
    settings: BuildSettings,
    passes: Sequence[GraphPass],
    on_stage: OnStage,
) -> Built:
    """Trace and clean the components named by `stems`.

    `model` is a skeleton of whole depth, its buffers as the checkpoint has them; it is cut in place. Where its layers
    turn out not to be alike, a new one is built and traced whole.
    """
    run = Builder(architecture, task, stems, settings, passes, on_stage)
    if not settings.stamp:
        return Built(run.build(model, config, LayerPlan(())))
    buffers = dict(model.named_buffers())
    plan = cut_layers(model)
    try:
        return Built(run.build(model, config, plan))
    except (StampRefused, ExportError) as refusal:
        if not plan.lists:
            raise
        # A model that looks at its own depth may not even trace when cut.
        whole = build_skeleton(architecture, config, task)
        copy_buffers(buffers, whole)
        return Built(run.build(whole, config, LayerPlan(())), (f"every layer was traced: {refusal.message}",))


@dataclass(frozen=True)
class Builder:
    """What stays the same for every component of one conversion."""

    architecture: Architecture
    task: str
    stems: Sequence[str]
    settings: BuildSettings
    passes: Sequence[GraphPass]
    on_stage: OnStage

    def build(self, model: nn.Module, config: Any, plan: LayerPlan) -> tuple[ExportedGraph, ...]:
        cast_skeleton(model, self.settings.dtype)
        cut_config = getattr(model, "config", config)
        components = select(self.architecture.components(cut_config, self.task), self.stems)
        made: dict[Any, ExportedGraph] = {}
        graphs = []
        for component in components:
            size = traced_size(component, self.settings.sizes)
            key = interface(component, size)
            if key not in made:
                made[key] = self._one(component, model, plan, size)
                graphs.append(made[key])
            else:
                graphs.append(renamed(made[key], component.stem))
        return tuple(graphs)

    def _one(self, component: Component, model: nn.Module, plan: LayerPlan, size: Size) -> ExportedGraph:
        settings = self.settings
        with self.on_stage(f"trace {component.stem}"):
            graph = trace(
                self.architecture, component, model, dtype=settings.dtype, opset=settings.opset, size=size
            )
        with self.on_stage(f"clean {component.stem}"):
            finish_graph(graph, plan, passes_for(settings.optimize, self.passes), settings.dtype)
        return graph


def interface(component: Component, size: Size) -> Any:
    """What a trace depends on: two components with the same wrapper and the same interface have the same graph.

    A unified graph differs from an image graph only in what callers may feed it.
    """
    inputs = component.inputs(size)
    shapes = tuple(
        (
            name,
            str(tensor.dtype),
            tuple(inputs.axes.get(name, {}).get(dim, n) for dim, n in enumerate(tensor.shape)),
        )
        for name, tensor in inputs.tensors.items()
    )
    outputs = tuple((output.name, tuple(sorted(output.axes.items()))) for output in component.outputs)
    return component.wrapper, outputs, shapes


def renamed(graph: ExportedGraph, stem: str) -> ExportedGraph:
    """The same graph as another component's."""
    return ExportedGraph(stem, graph.model.clone(), graph.scopes)


def select(components: Sequence[Component], stems: Sequence[str]) -> list[Component]:
    """The components with these stems, in the order they were declared."""
    return [component for component in components if component.stem in stems]


def passes_for(optimize: Optimization, passes: Sequence[GraphPass]) -> list[GraphPass]:
    """The passes of a level and of those before it."""
    levels = get_args(Optimization)
    return [entry for entry in passes if levels.index(entry.level) <= levels.index(optimize)]


def finish_graph(graph: ExportedGraph, plan: LayerPlan, passes: Sequence[GraphPass], dtype: Dtype) -> None:
    """Stamp the layers that were not traced, keep the interface in fp32, then run the passes in their order."""
    if plan.lists:
        stamp(graph.model, plan, graph.scopes)
    if dtype != "fp32":
        float_interface(graph.model)
    done: list[str] = []
    for graph_pass in sorted(passes, key=lambda entry: entry.order):
        try:
            graph_pass.run(graph.model)
        except ConverterError:
            raise
        except Exception as error:  # a pass may be anybody's
            raise PassError(
                f"pass {graph_pass.name!r} failed on {graph.stem}: {error} (done: {', '.join(done) or 'none'})",
                remedy="--optimize none writes the graph as traced",
            ) from error
        done.append(graph_pass.name)
