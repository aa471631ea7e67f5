"""The clean-up that every traced graph gets, from the libraries' own passes.

They run while the weights are hidden: a library pass that looks at a weight's value would have to load it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx_ir as ir
import onnx_ir.passes.common as common

from converter.recipes import RecipeTensor

# Constants larger than this are not worth folding into: the graph would grow by more than the node it saves.
LARGEST_FOLDED = 64 * 1024


@contextmanager
def hidden_weights(model: ir.Model) -> Iterator[None]:
    """Within, initializers that hold recipes look like initializers of unknown value."""
    hidden = [
        (value, value.const_value)
        for graph in model.graphs()
        for value in graph.initializers.values()
        if isinstance(value.const_value, RecipeTensor)
    ]
    for value, _ in hidden:
        value.const_value = None
    # It warns once for each initializer without a value, which here is every weight.
    deduplication = logging.getLogger("onnx_ir.passes.common.initializer_deduplication")
    level = deduplication.level
    deduplication.setLevel(logging.ERROR)
    try:
        yield
    finally:
        deduplication.setLevel(level)
        for value, tensor in hidden:
            value.const_value = tensor


def inline_functions(model: ir.Model) -> bool:
    """Replace calls of the exporter's helper functions by their bodies."""
    return bool(common.InlinePass()(model).modified)


def fold_constants(model: ir.Model) -> bool:
    """Evaluate what depends on constants only."""
    from onnxscript import optimizer

    with hidden_weights(model):
        folded = optimizer.fold_constants_ir(
            model, input_size_limit=LARGEST_FOLDED, output_size_limit=LARGEST_FOLDED
        )
        return bool(folded.modified)


def share_subexpressions(model: ir.Model) -> bool:
    """Compute equal things once: constants, then nodes with equal inputs and attributes."""
    with hidden_weights(model):
        steps = ir.passes.Sequential(
            common.IdentityEliminationPass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.LiftSubgraphInitializersToMainGraphPass(),
            common.DeduplicateInitializersPass(),
            common.CommonSubexpressionEliminationPass(),
        )
        names = [value.name for value in model.graph.outputs]
        modified = bool(steps(model).modified)
        _name_outputs(model.graph, names)
        return modified


def _name_outputs(graph: ir.Graph, names: Sequence[str | None]) -> None:
    """onnx-ir 1.1 leaves out a copy that is an output of what is one as well, and then both have one name."""
    for place, (value, name) in enumerate(zip(list(graph.outputs), names, strict=True)):
        if value.name != name:
            copy = ir.node("Identity", [value])
            copy.outputs[0].name, copy.outputs[0].type, copy.outputs[0].shape = name, value.type, value.shape
            graph.append(copy)
            graph.outputs[place] = copy.outputs[0]


def remove_unused(model: ir.Model) -> bool:
    """Drop nodes, functions, opset imports and initializers that nothing uses."""
    modified = False
    with hidden_weights(model):
        for step in (
            common.RemoveUnusedNodesPass(),
            common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
            common.RemoveUnusedOpsetsPass(),
        ):
            modified |= bool(step(model).modified)
    return modified


def fix_names(model: ir.Model) -> bool:
    """Make every name unique and every output the result of a node."""
    with hidden_weights(model):
        steps = ir.passes.Sequential(common.OutputFixPass(), common.NameFixPass())
        return bool(steps(model).modified)
