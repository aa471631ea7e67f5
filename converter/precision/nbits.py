"""Matrices in blocks of 8 or 4 bits: onnxruntime's MatMulNBits and MatMulBnb4."""

from __future__ import annotations

import onnx_ir as ir

from converter.precision.formats import Blocks, NormalFloat, Plan
from converter.precision.packed import BNB_KINDS, BlockQuantized, NormalFloatQuantized
from converter.precision.products import DOMAIN, Product, initializer, products, replace_product
from converter.recipes import WeightRecipe


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
    parts = block_parts(product.home, product.name, product.recipe, form)
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
    graph, stem = product.home, f"{product.name}_{form.kind}"
    data = initializer(graph, stem, NormalFloatQuantized(product.recipe, form, "data"))
    scales = initializer(graph, f"{stem}_scales", NormalFloatQuantized(product.recipe, form, "scales"))
    depth, width = product.recipe.shape
    sizes = {"K": depth, "N": width, "block_size": form.size, "quant_type": BNB_KINDS[form.kind]}
    return ir.node("MatMulBnb4", [product.activations, data, scales], sizes, domain=DOMAIN)
