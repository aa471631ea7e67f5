"""Tables in 8 bits, a scale for each row; or in the form of the matrix that they are as well.

A looked-up row is multiplied by its scale after the lookup, with operators that every runtime has. A table that is a
matrix too (tied embeddings) is stored once: rows of a matrix in blocks are unpacked after the lookup; of one with a
scale for each column, the table's rows are those columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.precision.dynamic import column_parts, smoothed_matrix
from converter.precision.formats import Blocks, Columns, Plan
from converter.precision.nbits import block_parts
from converter.precision.packed import RowQuantized
from converter.precision.products import (
    Lookup,
    add_axis,
    constant,
    initializer,
    lookups,
    products,
    replace,
)
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
        elif isinstance(form, Columns) and lookup.ids.shape is not None:
            _share_columns(lookup, matrix, form, plan)
        else:
            _by_row(lookup)
        count += 1
    return count


def _share_blocks(lookup: Lookup, matrix: WeightRecipe, form: Blocks) -> None:
    """Rows of the packed matrix, unpacked after the lookup.

    Not by GatherBlockQuantized, which onnxruntime-web's WebAssembly build has not. Of a decoder of half a billion
    parameters a step of one token takes 2 % longer for it, larger ones not measurably.
    """
    graph = lookup.home
    data, scales, *zeros = block_parts(graph, lookup.name, matrix, form)
    made, width = _Unpacked(graph, lookup.ids, form.bits), matrix.shape[0]
    blocks = -(-width // form.size)
    values = made.split(made.rows(data), (blocks, form.size))
    if zeros:
        spare = blocks % 2 if form.bits == 4 else 0  # the last byte of an odd number has one zero point
        middle = made.split(made.rows(zeros[0]), (blocks + spare, 1))
        if spare:
            middle = made.first(middle, blocks, axis=-2)
    else:
        middle = made.number(float(2 ** (form.bits - 1)))
    scale = made.with_axis(made.op("Gather", scales, lookup.ids))
    values = made.op("Mul", made.op("Sub", values, middle), scale)
    values = made.split(values, (blocks * form.size,))
    if width % form.size:
        made.first(values, width, axis=-1)
    replace(lookup.node, made.nodes)


@dataclass
class _Unpacked:
    """Nodes that look rows of packed numbers up and give each number a place of its own, in standard operators."""

    graph: ir.Graph
    ids: ir.Value
    bits: int
    nodes: list[ir.Node] = field(default_factory=list)
    _rows: ir.Value | None = None

    def op(self, operator: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        self.nodes.append(ir.node(operator, list(inputs), attributes))
        return self.nodes[-1].outputs[0]

    def with_axis(self, value: ir.Value) -> ir.Value:
        self.nodes.append(add_axis(self.graph, value))
        return self.nodes[-1].outputs[0]

    def sizes(self, *values: int) -> ir.Value:
        name = "_".join(["quantized_sizes", *map(str, values)])
        return constant(self.graph, name, ir.Tensor(np.array(values, np.int64)))

    def number(self, value: float) -> ir.Value:
        return constant(self.graph, f"quantized_number_{value:g}", ir.Tensor(np.float32(value)))

    def rows(self, packed: ir.Value) -> ir.Value:
        """The rows that are asked for, as floats: of 4 bits (..., 2), the lower half of each byte first."""
        values = self.op("Cast", self.op("Gather", packed, self.ids), to=_FLOAT)
        if self.bits == 8:
            return values
        high = self.op("Floor", self.op("Mul", values, self.number(1 / 16)))
        low = self.op("Sub", values, self.op("Mul", high, self.number(16)))
        halves = [self.with_axis(half) for half in (low, high)]
        return self.op("Concat", *halves, axis=-1)

    def split(self, values: ir.Value, sizes: tuple[int, ...]) -> ir.Value:
        """What belongs to each id in axes of these sizes; whatever the rank of the ids."""
        self._rows = self._rows or self.op("Shape", self.ids)
        return self.op("Reshape", values, self.op("Concat", self._rows, self.sizes(*sizes), axis=0))

    def first(self, values: ir.Value, count: int, axis: int) -> ir.Value:
        return self.op("Slice", values, self.sizes(0), self.sizes(count), self.sizes(axis))


def _share_columns(lookup: Lookup, matrix: WeightRecipe, form: Columns, plan: Plan) -> None:
    """Columns of the (width, rows) matrix by number, turned into rows; what smoothing did to them is undone."""
    graph, name = lookup.home, lookup.name
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
        found = ir.node("Gather", [values, lookup.ids])
        nodes[-1:-1] = [found, turned := add_axis(graph, found.outputs[0])]
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
    graph, name = lookup.home, lookup.name
    rows = ir.node(
        "Gather", [initializer(graph, f"{name}_rows", RowQuantized(lookup.recipe, "data")), lookup.ids]
    )
    scales = initializer(graph, f"{name}_rows_scales", RowQuantized(lookup.recipe, "scales"))
    scale = ir.node("Gather", [scales, lookup.ids])
    cast = ir.node("Cast", [rows.outputs[0]], {"to": _FLOAT})
    replace(lookup.node, [rows, scale, cast, ir.node("Mul", [cast.outputs[0], scale.outputs[0]])])
