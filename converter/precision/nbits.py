"""Matrices in blocks of 8 or 4 bits (onnxruntime's MatMulNBits and MatMulBnb4), and tables.

A looked-up row of a table is multiplied by its scale after the lookup: Gather, Cast and Mul, which every runtime
has. A table that is a matrix as well (tied embeddings) is stored once, in the matrix's blocks, and looked up by
GatherBlockQuantized.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.precision.formats import Blocks, NormalFloat, Plan
from converter.precision.packed import BlockQuantized, NormalFloatQuantized, RowQuantized
from converter.precision.products import (
    Lookup,
    Product,
    constant,
    initializer,
    lookups,
    owner,
    products,
    replace,
    replace_product,
)
from converter.recipes import Transpose, WeightRecipe, simplify

DOMAIN = "com.microsoft"


def quantize_matrices(model: ir.Model, plan: Plan) -> int:
    """Turn the products the plan gives blocks or 4-bit floats into onnxruntime's. Returns how many; K is padded."""
    count = 0
    for product in list(products(model)):
        form = plan.of(product.name)
        if isinstance(form, Blocks):
            replace_product(product, [_in_blocks(product, form)])
        elif isinstance(form, NormalFloat):
            replace_product(product, [_in_floats(product, form)])
        else:
            continue
        count += 1
    if count:
        model.opset_imports[DOMAIN] = 1
    return count


def _in_blocks(product: Product, form: Blocks) -> ir.Node:
    parts = block_parts(owner(product.node), product.name, product.recipe, form)
    depth, width = product.recipe.shape
    sizes = {"K": depth, "N": width, "bits": form.bits, "block_size": form.size}
    level = {"accuracy_level": form.accuracy_level} if form.accuracy_level else {}
    return ir.node("MatMulNBits", [product.activations, *parts], {**sizes, **level}, domain=DOMAIN)


def block_parts(graph: ir.Graph, name: str, recipe: WeightRecipe, form: Blocks) -> list[ir.Value]:
    """Data, scales and, where they are not the middle, zero points of a (K, N) matrix in blocks."""
    stem = f"{name}_q{form.bits}"
    parts = [
        initializer(graph, stem, BlockQuantized(recipe, form, "data")),
        initializer(graph, f"{stem}_scales", BlockQuantized(recipe, form, "scales")),
    ]
    if not form.symmetric:
        zeros = BlockQuantized(recipe, form, "zero_points")
        parts.append(initializer(graph, f"{stem}_zero_points", zeros))
    return parts


def _in_floats(product: Product, form: NormalFloat) -> ir.Node:
    graph, stem = owner(product.node), f"{product.name}_{form.kind}"
    data = initializer(graph, stem, NormalFloatQuantized(product.recipe, form, "data"))
    scales = initializer(graph, f"{stem}_scales", NormalFloatQuantized(product.recipe, form, "scales"))
    depth, width = product.recipe.shape
    kind = {"fp4": 0, "nf4": 1}[form.kind]
    sizes = {"K": depth, "N": width, "block_size": form.size, "quant_type": kind}
    return ir.node("MatMulBnb4", [product.activations, data, scales], sizes, domain=DOMAIN)


def quantize_tables(model: ir.Model, plan: Plan) -> int:
    """Store looked-up tables in fewer bits. Returns how many lookups changed.

    To be called before the matrices are turned. A table that is a matrix as well, here or in another graph of the
    package, shares the blocks the plan stores for it; where the plan leaves that matrix in fp32 the table stays too,
    since a second copy would only add to it.
    """
    both = plan.tied | {product.name for product in products(model)}
    count = 0
    for lookup in list(lookups(model)):
        form = plan.of(lookup.name) if lookup.name in both else None
        if lookup.name in both and form is None:
            continue
        if isinstance(form, Blocks):
            _share_blocks(lookup, simplify(Transpose(lookup.recipe, (1, 0))), form)
            model.opset_imports[DOMAIN] = 1
        else:
            _by_row(lookup)
        count += 1
    return count


def _share_blocks(lookup: Lookup, matrix: WeightRecipe, form: Blocks) -> None:
    graph = owner(lookup.node)
    data, *rest = block_parts(graph, lookup.name, matrix, form)
    flat = constant(graph, "quantized_row", ir.Tensor(np.array([0, -1], np.int64)))
    rows = ir.node("Reshape", [data, flat])
    sizes = {"bits": form.bits, "block_size": form.size, "gather_axis": 0, "quantize_axis": 1}
    nodes = [
        rows,
        ir.node("GatherBlockQuantized", [rows.outputs[0], lookup.ids, *rest], sizes, domain=DOMAIN),
    ]
    if matrix.shape[0] % form.size:
        low = constant(graph, "quantized_first", ir.Tensor(np.array([0], np.int64)))
        high = constant(graph, f"{lookup.name}_width", ir.Tensor(np.array([matrix.shape[0]], np.int64)))
        last = constant(graph, "quantized_last", ir.Tensor(np.array([-1], np.int64)))
        nodes.append(ir.node("Slice", [nodes[-1].outputs[0], low, high, last]))
    replace(lookup.node, nodes)


def _by_row(lookup: Lookup) -> None:
    graph, name = owner(lookup.node), lookup.name
    rows = ir.node(
        "Gather", [initializer(graph, f"{name}_rows", RowQuantized(lookup.recipe, "data")), lookup.ids]
    )
    scales = initializer(graph, f"{name}_rows_scales", RowQuantized(lookup.recipe, "scales"))
    scale = ir.node("Gather", [scales, lookup.ids])
    cast = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT})
    replace(lookup.node, [rows, scale, cast, ir.node("Mul", [cast.outputs[0], scale.outputs[0]])])
