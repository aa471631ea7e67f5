"""What is quantized in a graph: products with a stored matrix, lookups in a stored table; and putting others there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.arrays import FLOAT32
from converter.recipes import Constant, RecipeTensor, Transpose, WeightRecipe, simplify

DOMAIN = "com.microsoft"  # of onnxruntime's own operators
# Tables of fewer rows (token types) gain nothing.
TABLE_ROWS = 64
# The opset from which on Unsqueeze takes its axes as an input.
_AXES_GIVEN = 13


@dataclass(frozen=True)
class Product:
    """A node that multiplies activations with a stored fp32 matrix, (K, N) whichever way round it lies.

    `name` is the initializer's, and so the matrix's; `home` is the graph it is in, where the node may be in a branch;
    `bias` is what a Gemm adds.
    """

    node: ir.Node
    name: str
    recipe: WeightRecipe
    home: ir.Graph
    bias: ir.Value | None = None

    @property
    def activations(self) -> ir.Value:
        value = self.node.inputs[0]
        assert value is not None
        return value


@dataclass(frozen=True)
class Lookup:
    """A Gather of rows of a stored fp32 table, an initializer of the graph `home`."""

    node: ir.Node
    name: str
    recipe: WeightRecipe
    home: ir.Graph
    ids: ir.Value


def products(model: ir.Model) -> Iterator[Product]:
    """The products with a stored matrix. One matrix may have several."""
    for node in model.graph.all_nodes():
        if node.domain == "" and node.op_type in ("MatMul", "Gemm"):
            found = _matmul(node) if node.op_type == "MatMul" else _gemm(node)
            if found is not None and node.inputs[0] is not None and min(found.recipe.shape) > 1:
                yield found


def _matmul(node: ir.Node) -> Product | None:
    value = node.inputs[1]
    recipe = stored(value)
    if recipe is None and value is not None and (turn := value.producer()) is not None:
        # A tied table, which the lookup wants as it is: it is turned at run time.
        perm = turn.attributes.get("perm")
        if (
            turn.op_type == "Transpose"
            and turn.domain == ""
            and (perm is None or list(perm.as_ints()) == [1, 0])
        ):
            value = turn.inputs[0]
            recipe = _turned(stored(value))
    if value is None or recipe is None or len(recipe.shape) != 2:
        return None
    return Product(node, str(value.name), recipe, home(value))


def _gemm(node: ir.Node) -> Product | None:
    def number(name: str, default: float) -> float:
        attribute = node.attributes.get(name)
        return default if attribute is None else float(attribute.value)

    value = node.inputs[1]
    recipe = stored(value)
    plain = number("alpha", 1) == 1 and number("beta", 1) == 1 and not number("transA", 0)
    if value is None or recipe is None or not plain:
        return None
    if number("transB", 0):
        recipe = _turned(recipe)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return None if recipe is None else Product(node, str(value.name), recipe, home(value), bias)


def _turned(recipe: WeightRecipe | None) -> WeightRecipe | None:
    return None if recipe is None or len(recipe.shape) != 2 else simplify(Transpose(recipe, (1, 0)))


def lookups(model: ir.Model) -> Iterator[Lookup]:
    """The lookups in tables of two axes that are worth storing in fewer bits."""
    for node in model.graph.all_nodes():
        table = node.inputs[0] if node.op_type == "Gather" and node.domain == "" else None
        recipe = stored(table)
        if table is None or recipe is None or len(recipe.shape) != 2 or recipe.shape[0] < TABLE_ROWS:
            continue
        axis, ids = node.attributes.get("axis"), node.inputs[1]
        if ids is not None and (axis is None or axis.as_int() == 0):
            yield Lookup(node, str(table.name), recipe, home(table), ids)


def stored(value: ir.Value | None) -> WeightRecipe | None:
    """The recipe of an fp32 initializer. One of less than a kibibyte has its values in the graph."""
    tensor = None if value is None else value.const_value
    if isinstance(tensor, RecipeTensor):
        return tensor.recipe if tensor.recipe.dtype == FLOAT32 else None
    if value is None or tensor is None or not value.is_initializer() or tensor.dtype != ir.DataType.FLOAT:
        return None
    return Constant.of(tensor.numpy())


def home(value: ir.Value) -> ir.Graph:
    """The graph that an initializer belongs to: what it becomes goes there too, once for all branches."""
    assert value.graph is not None
    return value.graph


def owner(node: ir.Node) -> ir.Graph:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    return graph


def initializer(graph: ir.Graph, name: str, recipe: WeightRecipe) -> ir.Value:
    """The initializer of this name, made where it is not there yet: a weight used twice is stored once."""
    if name not in graph.initializers:
        tensor = RecipeTensor(recipe, name=name)
        shape, kind = ir.Shape(recipe.shape), ir.TensorType(tensor.dtype)
        graph.register_initializer(ir.Value(name=name, shape=shape, type=kind, const_value=tensor))
    return graph.initializers[name]


def constant(graph: ir.Graph, name: str, tensor: ir.Tensor[Any]) -> ir.Value:
    """The same for a small value."""
    if name not in graph.initializers:
        tensor.name = name
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.register_initializer(value)
    return graph.initializers[name]


def add_axis(graph: ir.Graph, value: ir.Value) -> ir.Node:
    """The value with a last axis of size 1."""
    if graph.opset_imports.get("", _AXES_GIVEN) < _AXES_GIVEN:
        return ir.node("Unsqueeze", [value], {"axes": [-1]})
    last = constant(graph, "quantized_last", ir.Tensor(np.array([-1], np.int64)))
    return ir.node("Unsqueeze", [value, last])


def replace_product(product: Product, nodes: list[ir.Node]) -> None:
    """Put nodes in the place of a product; what a Gemm adds is added after them."""
    if product.bias is not None:
        nodes = [*nodes, ir.node("Add", [nodes[-1].outputs[0], product.bias])]
    replace(product.node, nodes)


def replace(node: ir.Node, nodes: list[ir.Node]) -> None:
    """Put nodes in the place of one; the last one's output takes over its name, shape and uses."""
    old, new = node.outputs[0], nodes[-1].outputs[0]
    new.shape, new.type = old.shape, old.type
    for index, each in enumerate(nodes[:-1]):
        each.outputs[0].name = f"{old.name}/step_{index}"
    metadata = dict(node.metadata_props)
    for each in nodes:
        each.metadata_props.update(metadata)
    ir.convenience.replace_nodes_and_values(owner(node), node, [node], nodes, [old], [new])


def insert_before(node: ir.Node, nodes: list[ir.Node], stem: str) -> None:
    """Put nodes before one; their outputs are named after `stem`."""
    for index, each in enumerate(nodes):
        for place, output in enumerate(each.outputs):
            output.name = f"{stem}/{index}_{place}"
    owner(node).insert_before(node, nodes)


def drop_unused(model: ir.Model) -> None:
    """Transposes and initializers that nothing reads any more go."""
    for graph in model.graphs():
        for node in list(graph):
            if node.op_type == "Transpose" and not any(
                output.uses() or output.is_graph_output() for output in node.outputs
            ):
                graph.remove(node, safe=True)
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del graph.initializers[name]
