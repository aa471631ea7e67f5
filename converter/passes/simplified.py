"""onnxsim, where its graph is smaller: it can also make one larger, and it forgets which module a node is from.

It is given a graph whose weights are inputs, so that it can neither fold nor copy them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from converter.passes.strip_metadata import SCOPES
from converter.recipes import RecipeTensor

_LOG = logging.getLogger(__name__)
# Results larger than this are not worth folding into: the graph would grow by more than the nodes it saves.
_LARGEST_FOLDED = "64KB"


def simplify_smaller(model: ir.Model) -> bool:
    """Take onnxsim's graph if it has fewer nodes and the same inputs and outputs; module scopes are carried over."""
    import onnxsim

    weights = {
        str(value.name): value
        for value in model.graph.initializers.values()
        if isinstance(value.const_value, RecipeTensor)
    }
    if any(_has_weights(graph) for graph in model.graph.subgraphs()):
        return False
    proto = _with_weights_as_inputs(model, weights)
    try:
        # Unlike a check with random values (check_n), parity compares with the original, later.
        simplified, _ = onnxsim.simplify(proto, certify=False, tensor_size_threshold=_LARGEST_FOLDED)
    except Exception as error:  # what it cannot read, it leaves alone
        _LOG.info("onnxsim leaves the graph alone: %s", error)
        return False
    fewer = _count(simplified.graph) < _count(proto.graph)
    if not fewer or _interface(simplified) != _interface(proto):
        return False
    _take(model, simplified, weights)
    return True


def _has_weights(graph: ir.Graph) -> bool:
    return any(isinstance(value.const_value, RecipeTensor) for value in graph.initializers.values())


def _with_weights_as_inputs(model: ir.Model, weights: dict[str, ir.Value]) -> onnx.ModelProto:
    tensors = {name: value.const_value for name, value in weights.items()}
    try:
        for name, value in weights.items():
            del model.graph.initializers[name]
            value.const_value = None
            model.graph.inputs.append(value)
        return ir.to_proto(model)
    finally:
        for name, value in weights.items():
            model.graph.inputs.remove(value)
            value.const_value = tensors[name]
            model.graph.initializers[name] = value


def _interface(proto: onnx.ModelProto) -> list[bytes]:
    """Inputs and outputs with dtypes and shapes; what else they are described by may change."""
    return [
        value.name.encode() + value.type.SerializeToString(deterministic=True)
        for value in (*proto.graph.input, *proto.graph.output)
    ]


def _count(graph: onnx.GraphProto) -> int:
    """Nodes, those of branches included."""
    branches = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return len(graph.node) + sum(map(_count, branches))


def _take(model: ir.Model, proto: onnx.ModelProto, weights: dict[str, ir.Value]) -> None:
    scopes = {
        output.name: node.metadata_props[SCOPES]
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
        for output in node.outputs
        if SCOPES in node.metadata_props
    }
    taken = ir.from_proto(proto)
    given = {str(value.name): value for value in taken.graph.inputs}
    for name, value in weights.items():
        here = given.get(name)
        if here is not None:
            taken.graph.inputs.remove(here)
            here.const_value = value.const_value
            here.shape, here.type = value.shape, value.type
            taken.graph.initializers[name] = here
    for node in ir.traversal.RecursiveGraphIterator(taken.graph):
        scope = next(_scopes_near(node, scopes), None)
        if scope is not None:
            node.metadata_props.setdefault(SCOPES, scope)
            scopes.update((output.name, scope) for output in node.outputs)
    model.graph = taken.graph
    model.opset_imports.update(taken.opset_imports)


def _scopes_near(node: ir.Node, scopes: dict[str | None, str]) -> Iterator[str]:
    """The scope of what made this node's result before; for a result that is new, of what it is made from."""
    for value in (*node.outputs, *node.inputs):
        if value is not None and value.name in scopes:
            yield scopes[value.name]
