"""A plan, applied to a graph."""

from __future__ import annotations

import onnx_ir as ir

from converter.precision.dynamic import quantize_products
from converter.precision.formats import Plan
from converter.precision.half import to_half
from converter.precision.nbits import quantize_matrices
from converter.precision.products import drop_unused
from converter.precision.tables import quantize_tables


def apply_plan(plan: Plan, model: ir.Model) -> None:
    """Turn a graph's tables, then its matrices, then with `half` every float that is left."""
    if plan.tables:
        quantize_tables(model, plan)
    quantize_matrices(model, plan)
    quantize_products(model, plan)
    drop_unused(model)
    if plan.half:
        to_half(model)
