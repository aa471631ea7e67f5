"""What the tracing machine left in the graph goes; what names the modules stays."""

from __future__ import annotations

import onnx_ir as ir

SCOPES = "pkg.torch.onnx.name_scopes"

# The module path of each node is all that later stages read. Stack traces and FX nodes carry the paths of the machine
# that traced, and most of a small graph's bytes.
KEPT = frozenset({SCOPES})


def strip_metadata(model: ir.Model) -> bool:
    """Keep module scopes on nodes; drop stack traces, FX dumps, doc strings and the exporter's own notes."""
    before = len(model.metadata_props)
    model.metadata_props.clear()
    model.doc_string = None
    modified = before > 0
    for graph in model.graphs():
        graph.doc_string = None
        graph.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()
        for node in graph:
            modified |= _strip(node)
    return modified


def _strip(node: ir.Node) -> bool:
    dropped = [key for key in node.metadata_props if key not in KEPT]
    for key in dropped:
        del node.metadata_props[key]
    node.doc_string = None
    for output in node.outputs:
        output.metadata_props.clear()
    return bool(dropped)
