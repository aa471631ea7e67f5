"""Integer products: activations in 8 bits as well, by tensor or by token at run time, or by calibrated ranges.

One scale for all activations is what onnxruntime's own quantizer makes, and what costs quality: an outlier in one
feature of one token coarsens all. A scale for each token, after spreads have been evened out between features,
keeps most of it; the product itself is the same kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from converter.errors import UsageError
from converter.precision.columns import ColumnQuantized, Scaled
from converter.precision.formats import Columns, Plan
from converter.precision.products import (
    DOMAIN,
    Product,
    constant,
    initializer,
    insert_before,
    owner,
    products,
    replace_product,
)
from converter.precision.statistics import Statistics, missing_statistics
from converter.recipes import Constant, WeightRecipe, read

_FLOAT = ir.DataType.FLOAT
# Tokens of zeros have no scale; one this small leaves them zeros.
_LEAST = 1e-9
# The opset from which on ReduceMax takes its axes as an input.
_AXES_GIVEN = 18
# The one from which on DequantizeLinear takes a scale for each column.
_BY_COLUMN = 13

_Made = dict[tuple[Any, ...], tuple[ir.Value, ...]]


def quantize_products(model: ir.Model, plan: Plan) -> int:
    """Turn the products the plan gives columns into integer ones. Returns how many."""
    count = 0
    made: _Made = {}
    for product in list(products(model)):
        form = plan.of(product.name)
        if not isinstance(form, Columns):
            continue
        source, recipe = _smoothed(product, form, plan.statistics, made)
        if form.activations == "static":
            _calibrated(product, form, source, recipe, plan.statistics, made)
        elif form.activations == "row":
            _by_row(product, form, source, recipe, made)
            model.opset_imports[DOMAIN] = 1
        else:
            _by_tensor(product, form, source, recipe, made)
        count += 1
    return count


def _smoothed(
    product: Product, form: Columns, statistics: Statistics | None, made: _Made
) -> tuple[ir.Value, WeightRecipe]:
    """Activations divided by a factor for each feature, and the matrix multiplied by it."""
    recipe, factors = smoothed_matrix(product.name, product.recipe, form, statistics)
    if factors is None or statistics is None:
        return product.activations, recipe
    group = statistics.group(product.name)
    key = (owner(product.node), product.activations, "smooth", group, form.smooth)
    if key not in made:
        inverse = initializer(product.home, f"{group}_smoothing", Constant.of(np.reciprocal(read(factors))))
        node = ir.node("Mul", [product.activations, inverse])
        insert_before(product.node, [node], _stem(product, product.activations, group))
        made[key] = tuple(node.outputs)
    return made[key][0], recipe


def smoothed_matrix(
    name: str, recipe: WeightRecipe, form: Columns, statistics: Statistics | None
) -> tuple[WeightRecipe, Constant | None]:
    """A (K, N) matrix with its rows multiplied by factors, and these (K,); as it is where the form does not smooth."""
    if not form.smooth:
        return recipe, None
    if statistics is None:
        raise missing_statistics(name)
    _, factors = statistics.factors(name, form.smooth)
    constant = Constant.of(factors.astype(np.float32))
    return Scaled(recipe, constant), constant


def column_parts(
    graph: ir.Graph, name: str, recipe: WeightRecipe, form: Columns
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Data, scales and zero points of a matrix."""
    stem = f"{name}_{'int8' if form.signed else 'uint8'}"
    data = initializer(graph, stem, ColumnQuantized(recipe, form, "data"))
    scales = initializer(graph, f"{stem}_scales", ColumnQuantized(recipe, form, "scales"))
    return (
        data,
        scales,
        initializer(graph, f"{stem}_zero_points", ColumnQuantized(recipe, form, "zero_points")),
    )


def _by_tensor(product: Product, form: Columns, source: ir.Value, recipe: WeightRecipe, made: _Made) -> None:
    """Standard operators, which onnxruntime fuses to one kernel."""
    key = (owner(product.node), source, "tensor")
    if key not in made:
        node = ir.node("DynamicQuantizeLinear", [source], num_outputs=3)
        insert_before(product.node, [node], _stem(product, source, "quantized"))
        made[key] = tuple(node.outputs)
    values, scale, zero = made[key]
    data, scales, zeros = column_parts(product.home, product.name, recipe, form)
    integers = ir.node("MatMulInteger", [values, data, zero, zeros])
    cast = ir.node("Cast", [integers.outputs[0]], {"to": _FLOAT})
    both = ir.node("Mul", [scale, scales])
    replace_product(product, [integers, cast, both, ir.node("Mul", [cast.outputs[0], both.outputs[0]])])


def _by_row(product: Product, form: Columns, source: ir.Value, recipe: WeightRecipe, made: _Made) -> None:
    """A scale for each row of the activations: 127 steps to its largest magnitude, around 128."""
    graph = product.home
    one = constant(graph, "quantized_one", ir.Tensor(np.float32(1)))
    middle = constant(graph, "quantized_middle", ir.Tensor(np.uint8(128)))
    key = (owner(product.node), source, "row")
    if key not in made:
        made[key] = _round_rows(product, source, one, middle)
    values, scale = made[key]
    data, scales, zeros = column_parts(product.home, product.name, recipe, form)
    inputs = [values, data, one, scales, middle, zeros]
    unscaled = ir.node("MatMulIntegerToFloat", inputs, domain=DOMAIN)
    replace_product(product, [unscaled, ir.node("Mul", [unscaled.outputs[0], scale])])


def _round_rows(product: Product, source: ir.Value, one: ir.Value, middle: ir.Value) -> tuple[ir.Value, ...]:
    graph = product.home
    least = constant(graph, "quantized_least", ir.Tensor(np.float32(_LEAST)))
    steps = constant(graph, "quantized_steps", ir.Tensor(np.float32(127)))
    size = ir.node("Abs", [source])
    peak = _largest_of_rows(graph, size.outputs[0])
    bounded = ir.node("Max", [peak.outputs[0], least])
    inverse = ir.node("Div", [steps, bounded.outputs[0]])
    scaled = ir.node("Mul", [source, inverse.outputs[0]])
    rounded = ir.node("QuantizeLinear", [scaled.outputs[0], one, middle])
    scale = ir.node("Div", [bounded.outputs[0], steps])
    nodes = [size, peak, bounded, inverse, scaled, rounded, scale]
    insert_before(product.node, nodes, _stem(product, source, "rows"))
    return rounded.outputs[0], scale.outputs[0]


def _largest_of_rows(graph: ir.Graph, values: ir.Value) -> ir.Node:
    if graph.opset_imports.get("", _AXES_GIVEN) < _AXES_GIVEN:
        return ir.node("ReduceMax", [values], {"axes": [-1], "keepdims": 1})
    last = constant(graph, "quantized_last", ir.Tensor(np.array([-1], np.int64)))
    return ir.node("ReduceMax", [values, last], {"keepdims": 1})


def _stem(product: Product, source: ir.Value, what: str) -> str:
    """The names of what is made of a value; in each branch of a graph others, since all are one scope."""
    stem = f"{source.name}/{what}"
    return stem if owner(product.node) is product.home else f"{stem}/{product.node.outputs[0].name}"


def _calibrated(
    product: Product,
    form: Columns,
    source: ir.Value,
    recipe: WeightRecipe,
    statistics: Statistics | None,
    made: _Made,
) -> None:
    """QuantizeLinear and DequantizeLinear around what stays a MatMul, for runtimes to fuse."""
    if statistics is None:
        raise missing_statistics(product.name)
    graph = product.home
    if form.per_channel and (opset := graph.opset_imports.get("", _BY_COLUMN)) < _BY_COLUMN:
        raise UsageError(
            f"calibrated int8 by column needs opset {_BY_COLUMN}, and the graph has {opset}",
            remedy="give --no-per-channel, or bring it up with onnx.version_converter.convert_version",
        )
    group, scale, zero = statistics.static(product.name, form)
    key = (owner(product.node), source, "static", group)
    if key not in made:
        kind = np.int8 if form.symmetric else np.uint8
        step = constant(graph, f"{group}_activation_scale", ir.Tensor(np.float32(scale)))
        middle = constant(graph, f"{group}_activation_zero_point", ir.Tensor(kind(zero)))
        rounded = ir.node("QuantizeLinear", [source, step, middle])
        back = ir.node("DequantizeLinear", [rounded.outputs[0], step, middle])
        insert_before(product.node, [rounded, back], _stem(product, source, group))
        made[key] = tuple(back.outputs)
    data, scales, zeros = column_parts(product.home, product.name, recipe, form)
    axis = {"axis": 1} if form.per_channel else {}
    weights = ir.node("DequantizeLinear", [data, scales, zeros], axis)
    replace_product(product, [weights, ir.node("MatMul", [made[key][0], weights.outputs[0]])])
