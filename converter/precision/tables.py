"""Tables in 8 bits, a scale for each row; or in the form of the matrix that they are as well.

A looked-up row is multiplied by its scale after the lookup, with operators that every runtime has. A table that is a
matrix too (tied embeddings) is stored once: of a matrix in blocks, GatherBlockQuantized looks rows up; of one with a
scale for each column, the table's rows are those columns.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.precision.dynamic import column_parts, smoothed_matrix
from converter.precision.formats import Blocks, Columns, Plan
from converter.precision.nbits import DOMAIN, block_parts
from converter.precision.packed import RowQuantized
from converter.precision.products import Lookup, constant, initializer, lookups, owner, products, replace
from converter.recipes import Transpose, WeightRecipe, simplify

_FLOAT = ir.DataType.FLOAT


def quantize_tables(model: ir.Model, plan: Plan) -> int:
    """Store looked-up tables in fewer bits. Returns how many lookups changed.

    To be called before the matrices are turned. A table that is a matrix as well, here or in another graph of the
    package, shares what the plan stores for it; where the plan leaves that matrix in fp32 the table stays too,
    since a second copy would only add to it.
    """
    both = plan.tied | {product.name for product in products(model)}
    count = 0
    for lookup in list(lookups(model)):
        form = plan.of(lookup.name) if lookup.name in both else None
        matrix = simplify(Transpose(lookup.recipe, (1, 0)))
        if lookup.name in both and form is None:
            continue
        if isinstance(form, Blocks):
            _share_blocks(lookup, matrix, form)
            model.opset_imports[DOMAIN] = 1
        elif isinstance(form, Columns) and lookup.ids.shape is not None:
            _share_columns(lookup, matrix, form, plan)
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


def _share_columns(lookup: Lookup, matrix: WeightRecipe, form: Columns, plan: Plan) -> None:
    """Columns of the (width, rows) matrix by number, turned into rows; what smoothing did to them is undone."""
    graph, name = owner(lookup.node), lookup.name
    matrix, factors = smoothed_matrix(name, matrix, form, plan.statistics)
    data, scales, zeros = column_parts(graph, name, matrix, form)
    columns = ir.node("Gather", [data, lookup.ids], {"axis": 1})
    rank = len(lookup.ids.shape or ())
    rows = ir.node("Transpose", [columns.outputs[0]], {"perm": [*range(1, rank + 1), 0]})
    nodes = [columns, rows, ir.node("Cast", [rows.outputs[0]], {"to": _FLOAT})]

    def apply(operator: str, value: ir.Value) -> None:
        nodes.append(ir.node(operator, [nodes[-1].outputs[0], value]))

    def of_rows(values: ir.Value) -> ir.Value:
        """Of values for each column those looked up, (ids, 1); a single one is for all."""
        if not form.per_channel:
            return values
        last = constant(graph, "quantized_last", ir.Tensor(np.array([-1], np.int64)))
        found = ir.node("Gather", [values, lookup.ids])
        nodes[-1:-1] = [found, turned := ir.node("Unsqueeze", [found.outputs[0], last])]
        return turned.outputs[0]

    if not form.signed:
        zero = ir.node("Cast", [of_rows(zeros)], {"to": _FLOAT})
        nodes.insert(-1, zero)
        apply("Sub", zero.outputs[0])
    apply("Mul", of_rows(scales))
    if factors is not None:
        apply("Div", initializer(graph, f"{name}_smoothed_by", factors))
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
