"""The length of a merged decoder's past is read off what `use_cache_branch` leaves of it, not off what was sent.

Tracing measures the past at the graph's input. With `use_cache_branch` false a caller's past is a dummy of any
length, which a Slice cuts to nothing: positions and masks have to see the length after that Slice. Sizes after it get a
name of their own: onnxruntime takes one name for one size, and gives such values the same memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx_ir as ir

SWITCH = "use_cache_branch"
PAST = "past_key_values."


def measure_kept_past(model: ir.Model) -> bool:
    """Make whatever reads a past key or value directly read it after the Slice that the switch governs."""
    graph = model.graph
    if all(value.name != SWITCH for value in graph.inputs):
        return False
    modified = False
    pasts = [value for value in graph.inputs if (value.name or "").startswith(PAST)]
    entering = [_entering(value) for value in pasts]
    for value in entering:
        users = [usage.node for usage in value.uses()]
        cuts = [node for node in users if node.op_type == "Slice"]
        if len(cuts) != 1 or len(users) == 1:
            continue
        for node, place in list(value.uses()):
            if node is not cuts[0]:
                node.replace_input_with(place, cuts[0].outputs[0])
                modified = True
    others = [value for value in graph.inputs if value not in pasts]
    renamed = _rename_sizes(graph, _axes(pasts) - _axes(others), entering)
    if modified:
        graph.sort()
    return modified or renamed


def _entering(value: ir.Value) -> ir.Value:
    """A past as the graph computes with it: graphs in halves turn what they are given first."""
    users = [usage.node for usage in value.uses()]
    return users[0].outputs[0] if len(users) == 1 and users[0].op_type == "Cast" else value


def _axes(values: Iterable[ir.Value]) -> set[str]:
    """Names of the sizes that vary."""
    return {
        size.value
        for value in values
        for size in value.shape or ()
        if isinstance(size, ir.SymbolicDim) and size.value
    }


def _rename_sizes(graph: ir.Graph, names: Collection[str], entering: Collection[ir.Value]) -> bool:
    """Call what nodes make along these axes otherwise; what enters, and outputs, keep their declared names."""
    modified = False
    made = (output for node in graph for output in node.outputs)
    for value in (value for value in made if not value.is_graph_output() and value not in entering):
        for place, size in enumerate(value.shape or ()):
            text = str(size.value) if isinstance(size, ir.SymbolicDim) else ""
            if value.shape is not None and any(name in text for name in names):
                value.shape[place] = ir.SymbolicDim(f"kept_{text}")
                modified = True
    return modified
