"""The length of a merged decoder's past is read off what `use_cache_branch` leaves of it, not off what was sent.

Tracing measures the past at the graph's input. With `use_cache_branch` false a caller's past is a dummy of any
length, which a Slice cuts to nothing: positions and masks have to see the length behind that Slice.
"""

from __future__ import annotations

import onnx_ir as ir

SWITCH = "use_cache_branch"
PAST = "past_key_values."


def measure_kept_past(model: ir.Model) -> bool:
    """Move whatever looks at a past key or value itself behind the Slice that the switch governs."""
    graph = model.graph
    if all(value.name != SWITCH for value in graph.inputs):
        return False
    modified = False
    for value in graph.inputs:
        users = [usage.node for usage in value.uses()]
        cuts = [node for node in users if node.op_type == "Slice"]
        if not (value.name or "").startswith(PAST) or len(cuts) != 1 or len(users) == 1:
            continue
        for node, place in list(value.uses()):
            if node is not cuts[0]:
                node.replace_input_with(place, cuts[0].outputs[0])
                modified = True
    if modified:
        graph.sort()
    return modified
