"""Which values of a graph enter and leave the modules it was traced from, and what lies between values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from converter.passes.compare import module_scopes


@dataclass
class Boundary:
    """Names of the values that nodes of one module take from outside of it, and of those they hand out, in order.

    Weights and constants do not count as taken. A module called several times has the values of all its calls.
    """

    inputs: dict[str, None] = field(default_factory=dict)
    outputs: dict[str, None] = field(default_factory=dict)


def boundaries(graph: ir.Graph) -> dict[str, Boundary]:
    """The boundary of each module that has nodes in the graph, by its path as the nodes carry it."""
    found: dict[str, Boundary] = {}
    for node in graph:
        for scope in module_scopes(node):
            boundary = found.setdefault(scope, Boundary())
            for value in node.inputs:
                if value is not None and value.name and _varies(value) and not _made_within(value, scope):
                    boundary.inputs[value.name] = None
            for value in node.outputs:
                if value.name and _leaves(value, scope):
                    boundary.outputs[value.name] = None
    return found


def units(graph: ir.Graph) -> dict[str, Boundary]:
    """The boundary of what each module does itself, without the modules inside it: every node is in one unit."""
    found: dict[str, Boundary] = {}
    for node in graph:
        unit = innermost(node)
        boundary = found.setdefault(unit, Boundary())
        for value in node.inputs:
            if value is not None and value.name and _varies(value) and unit_of(value) != unit:
                boundary.inputs[value.name] = None
        for value in node.outputs:
            outside = any(innermost(user) != unit for user in value.consumers())
            if value.name and (outside or value.is_graph_output()):
                boundary.outputs[value.name] = None
    return found


def innermost(node: ir.Node) -> str:
    """The path of the module whose own code made the node; empty where the node does not say."""
    scopes = module_scopes(node)
    return scopes[-1] if scopes else ""


def unit_of(value: ir.Value) -> str | None:
    """The unit that makes a value; None for a graph input."""
    producer = value.producer()
    return None if producer is None else innermost(producer)


def _varies(value: ir.Value) -> bool:
    return not value.is_initializer() and (value.is_graph_input() or value.producer() is not None)


def _made_within(value: ir.Value, scope: str) -> bool:
    producer = value.producer()
    return producer is not None and scope in module_scopes(producer)


def _leaves(value: ir.Value, scope: str) -> bool:
    if value.is_graph_output():
        return True
    return any(scope not in module_scopes(user) for user in value.consumers())


@dataclass(frozen=True)
class Lineage:
    """What a graph computes from what, as far as numbers go: a tensor's shape says nothing of its numbers."""

    values: dict[str, ir.Value]
    order: dict[str, int]

    @classmethod
    def of(cls, graph: ir.Graph) -> Lineage:
        values = {value.name: value for value in graph.inputs if value.name}
        order = dict.fromkeys(values, -1)
        for position, node in enumerate(graph):
            for value in node.outputs:
                if value.name:
                    values[value.name] = value
                    order[value.name] = position
        return cls(values, order)

    def behind(self, starts: Iterable[str], stop: Collection[str]) -> tuple[list[ir.Node], list[str]]:
        """Nodes that make `starts`, in graph order, and the names where the way back ends.

        The way back ends at the values in `stop`, which are not made again, and at inputs and initializers.
        """
        waiting = [self.values[name] for name in starts]
        nodes: dict[ir.Node, int] = {}
        ends: dict[str, None] = {}
        while waiting:
            value = waiting.pop()
            producer = value.producer()
            if producer is None or producer in nodes:
                continue
            nodes[producer] = self.order.get(value.name or "", 0)
            for source in _sources(producer):
                name = source.name or ""
                if name in stop or source.producer() is None:
                    ends[name] = None
                else:
                    waiting.append(source)
        return sorted(nodes, key=nodes.__getitem__), list(ends)


# How many leading inputs of an operator its numbers come from, where it is not all: the others, or all, say its shape.
NUMBERS = {
    "Shape": 0,
    "Size": 0,
    "ConstantOfShape": 0,
    "Reshape": 1,
    "Expand": 1,
    "Squeeze": 1,
    "Unsqueeze": 1,
}


def _sources(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in node.inputs[: NUMBERS.get(node.op_type)] if value is not None)
