"""A plan of formats, carried out on one graph."""

from __future__ import annotations

import onnx_ir as ir

from converter.precision.dynamic import quantize_products
from converter.precision.formats import Plan
from converter.precision.half import to_half
from converter.precision.nbits import drop_unused, quantize_matrices, quantize_tables


def apply_plan(plan: Plan, model: ir.Model) -> None:
    """Turn the weights of `model` into the plan's: all of it in halves, or matrices and tables in fewer bits."""
    if plan.half:
        to_half(model)
        return
    quantize_matrices(model, plan)
    quantize_products(model, plan)
    if plan.tables:
        quantize_tables(model)
    drop_unused(model)
