"""Several nodes as one: into operators of the ONNX standard, and into those that only onnxruntime has.

The patterns are onnxscript's. Weights stay hidden: a fusion needs their shapes and dtypes, not their values.
"""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from converter.passes.standard import hidden_weights

# The first opset of the ONNX standard with RMSNormalization and RotaryEmbedding.
STANDARD_SINCE = 23


def fuse_standard(model: ir.Model) -> bool:
    """Root mean square normalization and rotary embedding as single operators of the standard."""
    from onnxscript.rewriter.rules.fusion import _rms_normalization, _rotary_embedding

    if model.opset_imports.get("", 0) < STANDARD_SINCE:
        return False
    with hidden_weights(model):
        common.ShapeInferencePass()(model)  # the patterns ask for the dtypes of what they match
        fused = _rms_normalization.rms_normalization_ruleset.apply_to_model(model)
        return bool(fused + _rotary_embedding.rotary_embedding_rules.apply_to_model(model))


def fuse_for_onnxruntime(model: ir.Model) -> bool:
    """onnxscript's fusions into onnxruntime's own operators: SkipLayerNormalization, BiasGelu and their kin."""
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    before = sum(1 for _ in model.graph)
    with hidden_weights(model):
        optimize_for_ort(model)
    return sum(1 for _ in model.graph) != before
