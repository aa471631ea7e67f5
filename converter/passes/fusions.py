"""Several nodes as one: into operators of the ONNX standard, and into those that only onnxruntime has.

The patterns are onnxscript's. Weights stay hidden: a fusion needs their shapes and dtypes, not their values.
"""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from converter.passes.standard import hidden_weights

# The first opset of the ONNX standard with RMSNormalization and RotaryEmbedding.
STANDARD_SINCE = 23
# What these give is a sequence.
_SEQUENCES = {"SplitToSequence", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert"}


def fuse_standard(model: ir.Model) -> bool:
    """Root mean square normalization and rotary embedding as single operators of the standard."""
    from onnxscript.rewriter.rules.fusion import _rms_normalization, _rotary_embedding

    if model.opset_imports.get("", 0) < STANDARD_SINCE:
        return False
    with hidden_weights(model):
        common.ShapeInferencePass()(model)  # the patterns ask for the dtypes of what they match
        _forget_sequences(model)
        fused = _rms_normalization.rms_normalization_ruleset.apply_to_model(model)
        return bool(fused + _rotary_embedding.rotary_embedding_rules.apply_to_model(model))


def _forget_sequences(model: ir.Model) -> None:
    """onnx-ir 1.1 describes a sequence as the tensors in it, and onnxruntime opens no graph that says so (RT-DETR)."""
    for node in model.graph:
        for output in node.outputs if node.op_type in _SEQUENCES else ():
            output.type = output.shape = None


def fuse_for_onnxruntime(model: ir.Model) -> bool:
    """onnxscript's fusions into onnxruntime's own operators: SkipLayerNormalization, BiasGelu and their kin.

    Not where a normalized sum is read besides, as in models that normalize first: there onnxruntime does not fuse by
    itself, and its kernel takes four times as long as the nodes in its place (docs/performance.md).
    """
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    before = sum(1 for _ in model.graph)
    with hidden_weights(model):
        optimize_for_ort(model)
    for node in list(model.graph):
        if node.op_type == "SkipLayerNormalization" and len(node.outputs) > 3 and node.outputs[3].uses():
            _separate(node)
    return sum(1 for _ in model.graph) != before


def _separate(node: ir.Node) -> None:
    """SkipLayerNormalization (input, skip, gamma, beta, bias) as the sum, which others read, and its normalization."""
    values, skip, scale, shift, bias = (*node.inputs, None, None)[:5]
    nodes = [ir.node("Add", [values, bias])] if bias is not None else []
    nodes.append(ir.node("Add", [nodes[-1].outputs[0] if nodes else values, skip]))
    total = nodes[-1].outputs[0]
    epsilon = (
        node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-12
    )  # onnxruntime's
    scales = [scale] if shift is None else [scale, shift]
    nodes.append(ir.node("LayerNormalization", [total, *scales], {"axis": -1, "epsilon": epsilon}))
    for each in nodes:
        each.metadata_props.update(node.metadata_props)
    old, new = [node.outputs[0], node.outputs[3]], [nodes[-1].outputs[0], total]
    assert node.graph is not None
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], nodes, old, new)
