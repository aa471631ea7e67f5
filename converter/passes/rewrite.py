"""Rewrites that simplify shapes and drop operations without effect: onnxscript's rules, a chosen few."""

from __future__ import annotations

import onnx_ir as ir

from converter.passes.standard import hidden_weights

# By name in `onnxscript.rewriter.rules.common`. Not all it offers: `slice_split_rule` looks at every node of the graph
# for each node (80 s on 6,700 nodes), and fusions into Gemm or BatchNorm would read weights.
RULES = (
    "add_0_rule",
    "cast_cast_rule",
    "cast_constant_of_shape_rule",
    "cast_constant_of_shape_without_value_rule",
    "collapse_slice2_rule",
    "collapse_slice_rule",
    "div_by_1_rule",
    "dropout_inference_rule",
    "dropout_zero_rule",
    "flatten_to_reshape_rule",
    "materialize_reshape_shape_rule",
    "max_max_rule",
    "min_min_rule",
    "mul_by_1_rule",
    "no_op_cast_rule",
    "no_op_expand_rule",
    "no_op_transpose_rule",
    "one_reshape_matmul_reshape_rule",
    "reshape_reshape_rule",
    "squeeze_reshape_1d_rule",
    "sub_0_rule",
    "transpose_transpose_rule",
    "two_reshapes_matmul_reshape_rule",
    "unsqueeze_unsqueeze_rule",
)


def simplify(model: ir.Model) -> bool:
    """Apply the rules once, everywhere."""
    from onnxscript.rewriter import RewritePass
    from onnxscript.rewriter.rules import common

    with hidden_weights(model):
        return bool(RewritePass([getattr(common, name) for name in RULES])(model).modified)
