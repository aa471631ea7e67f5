"""Matrices in blocks of 8 or 4 bits (onnxruntime's MatMulNBits), and tables by row in standard operators.

A looked-up row of a table is multiplied by its scale after the lookup: Gather, Cast and Mul, which every runtime
has, so that only matrices need onnxruntime's own operator.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from converter.arrays import FLOAT32
from converter.precision.formats import BlockQuantized, Blocks, Plan, RowQuantized
from converter.recipes import RecipeTensor, WeightRecipe

DOMAIN = "com.microsoft"
# Tables of fewer rows (token types) gain nothing.
_TABLE_ROWS = 64


def matrices(model: ir.Model) -> Iterator[tuple[ir.Node, str, WeightRecipe]]:
    """The products with a stored fp32 matrix: node, initializer, recipe. One matrix may have several."""
    for node in model.graph.all_nodes():
        if node.op_type == "MatMul" and node.domain == "":
            recipe = stored(node.inputs[1])
            if recipe is not None and len(recipe.shape) == 2:
                yield node, str(node.inputs[1].name), recipe  # type: ignore[union-attr]


def stored(value: ir.Value | None) -> WeightRecipe | None:
    """The recipe of an fp32 initializer."""
    tensor = None if value is None else value.const_value
    found = isinstance(tensor, RecipeTensor) and tensor.recipe.dtype == FLOAT32
    return tensor.recipe if isinstance(tensor, RecipeTensor) and found else None


def quantize_matrices(model: ir.Model, plan: Plan) -> int:
    """Turn the products the plan gives blocks into MatMulNBits. Returns how many; K of any size is padded."""
    count = 0
    for node, name, recipe in list(matrices(model)):
        form = plan.of(name)
        if not isinstance(form, Blocks):
            continue
        graph, bits = owner(node), form.bits
        parts = [
            initializer(graph, f"{name}_q{bits}", BlockQuantized(recipe, form, "data")),
            initializer(graph, f"{name}_q{bits}_scales", BlockQuantized(recipe, form, "scales")),
        ]
        if not form.symmetric:
            zeros = BlockQuantized(recipe, form, "zero_points")
            parts.append(initializer(graph, f"{name}_q{bits}_zero_points", zeros))
        depth, width = recipe.shape
        sizes = {"K": depth, "N": width, "bits": bits, "block_size": form.size}
        level = {"accuracy_level": form.accuracy_level} if form.accuracy_level else {}
        product = ir.node("MatMulNBits", [node.inputs[0], *parts], {**sizes, **level}, domain=DOMAIN)
        replace(node, [product])
        count += 1
    if count:
        model.opset_imports[DOMAIN] = 1
    return count


def quantize_tables(model: ir.Model) -> int:
    """Store looked-up tables by row in 8 bits. Returns how many lookups changed."""
    count = 0
    for node in list(model.graph.all_nodes()):
        recipe = stored(node.inputs[0]) if node.op_type == "Gather" and node.domain == "" else None
        if recipe is None or len(recipe.shape) != 2 or recipe.shape[0] < _TABLE_ROWS:
            continue
        axis = node.attributes.get("axis")
        if axis is not None and axis.as_int() != 0:
            continue
        graph, name, ids = owner(node), str(node.inputs[0].name), node.inputs[1]  # type: ignore[union-attr]
        rows = ir.node("Gather", [initializer(graph, f"{name}_q8", RowQuantized(recipe, "data")), ids])
        scales = initializer(graph, f"{name}_q8_scales", RowQuantized(recipe, "scales"))
        scale = ir.node("Gather", [scales, ids])
        cast = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT})
        replace(node, [rows, scale, cast, ir.node("Mul", [cast.outputs[0], scale.outputs[0]])])
        count += 1
    return count


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


def drop_unused(model: ir.Model) -> None:
    """Initializers that nothing reads any more go."""
    for graph in model.graphs():
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del graph.initializers[name]
