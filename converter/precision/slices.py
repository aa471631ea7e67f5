"""Where to cut a large graph, so that it can be run with the weights of one slice in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import onnx

# Bytes of weights in a slice; a matrix that has more is a slice with what little surrounds it.
SLICE = 256 * 2**20


@dataclass(frozen=True)
class Slice:
    """Nodes in their order. `inputs` come from the caller or earlier slices, `outputs` are asked for or read later.

    `weights` names the initializers; `drop` are values that nobody wants any more.
    """

    nodes: tuple[onnx.NodeProto, ...]
    weights: frozenset[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    drop: frozenset[str]


def cut(
    graph: onnx.GraphProto,
    sizes: Mapping[str, int],
    wanted: Iterable[str],
    seen: Iterable[str] = (),
    most: int = SLICE,
) -> list[Slice]:
    """A graph cut where fewest values cross; `sizes` are the initializers' bytes by name.

    `wanted` values stay to the end, `seen` ones are looked at and dropped; nodes that neither needs are left out. What
    is computed from weights alone (a constant, a table that is turned) goes along with each slice that reads it.
    """
    wanted = set(wanted)
    shown = wanted | set(seen)
    derived = _derived(graph.node, sizes, shown)
    nodes = _needed(graph.node, shown)
    nodes = [node for node in nodes if node.output[0] not in derived]
    reads = [[name for name in _reads(node) if name not in sizes] for node in nodes]
    along = [list(_along(names, derived)) for names in reads]
    reads = [[name for name in names if name not in derived] for names in reads]
    weights = [
        {name: sizes[name] for each in (*extra, node) for name in _reads(each) if name in sizes}
        for node, extra in zip(nodes, along, strict=True)
    ]
    made = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    last = {name: index for index, names in enumerate(reads) for name in names}
    ends = _ends(weights, _crossing(made, last, len(nodes)), most)
    slices = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        inner = {name for node in nodes[start:end] for name in node.output if name}
        read = dict.fromkeys(name for names in reads[start:end] for name in names)
        before = {each.output[0]: each for extra in along[start:end] for each in extra}
        slices.append(
            Slice(
                (*before.values(), *nodes[start:end]),
                frozenset(name for names in weights[start:end] for name in names),
                tuple(name for name in read if name not in inner),
                tuple(name for name in sorted(inner) if name in shown or last.get(name, -1) >= end),
                frozenset({*read, *inner} - wanted - {name for name in last if last[name] >= end}),
            )
        )
    return slices


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names a node reads, those that its subgraphs take from outside among them."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            own = {value.name for value in (*graph.input, *graph.initializer)}
            own |= {name for inner in graph.node for name in inner.output}
            read = [name for inner in graph.node for name in _reads(inner)]
            yield from (name for name in (*read, *(out.name for out in graph.output)) if name not in own)


def _derived(
    nodes: Iterable[onnx.NodeProto], sizes: Mapping[str, int], shown: set[str]
) -> dict[str, onnx.NodeProto]:
    """What is computed from weights alone, and is not itself asked for: the node by the value's name."""
    found: dict[str, onnx.NodeProto] = {}
    for node in nodes:
        if shown.isdisjoint(node.output) and all(name in sizes or name in found for name in _reads(node)):
            found.update(dict.fromkeys(node.output, node))
    return found


def _along(names: Iterable[str], derived: Mapping[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes that make these derived values, each after what it reads."""
    for name in names:
        if name in derived:
            yield from _along(_reads(derived[name]), derived)
            yield derived[name]


def _needed(nodes: Sequence[onnx.NodeProto], wanted: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that `wanted` depends on, in their order."""
    needed, found = set(wanted), []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            found.append(node)
            needed.update(_reads(node))
    return found[::-1]


def _crossing(made: Mapping[str, int], last: Mapping[str, int], count: int) -> list[int]:
    """How many values are made before or at each node and read after it."""
    steps = [0] * (count + 1)
    for name, index in made.items():
        if last.get(name, -1) > index:
            steps[index] += 1
            steps[last[name]] -= 1
    return list(accumulate(steps))[:count]


def _ends(weights: Sequence[Mapping[str, int]], crossing: Sequence[int], most: int) -> list[int]:
    """Where slices end (exclusive): at fewest crossings, of the places by which at least half of `most` is gathered."""
    ends: list[int] = []
    start = 0
    while start < len(weights):
        gathered: dict[str, int] = {}
        sums: list[int] = []
        for names in weights[start:]:
            gathered.update(names)
            if sums and sum(gathered.values()) > most:
                break
            sums.append(sum(gathered.values()))
        end = start + len(sums)
        if end < len(weights):
            places = [start + index for index, total in enumerate(sums) if total >= most / 2]
            places = places or list(range(start, end))
            end = min(places, key=lambda place: (crossing[place], -place)) + 1
        ends.append(end)
        start = end
    return ends
