"""Integer products with activations quantized on the way, as onnxruntime's dynamic quantization makes them.

Standard operators, which onnxruntime fuses to one kernel. Activations get one scale a tensor, which is what costs the
quality: an outlier in one feature coarsens all.
"""

from __future__ import annotations

import onnx_ir as ir

from converter.precision.formats import ColumnQuantized, Columns, Plan
from converter.precision.nbits import initializer, matrices, owner, replace


def quantize_products(model: ir.Model, plan: Plan) -> int:
    """Turn the products the plan gives columns into MatMulInteger. Returns how many."""
    count = 0
    rounded: dict[ir.Value, tuple[ir.Value, ...]] = {}
    for node, name, recipe in list(matrices(model)):
        form = plan.of(name)
        activations = node.inputs[0]
        if not isinstance(form, Columns) or activations is None:
            continue
        graph = owner(node)
        if activations not in rounded:
            rounded[activations] = _round(node, activations)
        values, scale, zero = rounded[activations]
        stem = f"{name}_{'int8' if form.signed else 'uint8'}"
        data = initializer(graph, stem, ColumnQuantized(recipe, form, "data"))
        zeros = initializer(graph, f"{stem}_zero_points", ColumnQuantized(recipe, form, "zero_points"))
        scales = initializer(graph, f"{stem}_scales", ColumnQuantized(recipe, form, "scales"))
        product = ir.node("MatMulInteger", [values, data, zero, zeros])
        cast = ir.node("Cast", [product.outputs[0]], {"to": ir.DataType.FLOAT})
        both = ir.node("Mul", [scale, scales])
        replace(node, [product, cast, both, ir.node("Mul", [cast.outputs[0], both.outputs[0]])])
        count += 1
    return count


def _round(before: ir.Node, activations: ir.Value) -> tuple[ir.Value, ...]:
    """Activations in 8 bits, their scale and zero point; made once for all products that read them."""
    node = ir.node("DynamicQuantizeLinear", [activations], num_outputs=3)
    for output, part in zip(node.outputs, ("quantized", "scale", "zero_point"), strict=True):
        output.name = f"{activations.name}/{part}"
    owner(before).insert_before(before, node)
    return tuple(node.outputs)
