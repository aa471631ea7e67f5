"""Zeros padded before a MaxPool stay zeros: onnxruntime up to 1.31 makes them padding of the pool, minus infinity."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def keep_padded_zeros(model: ir.Model) -> bool:
    """Pad with a number just above zero where a MaxPool reads what a Pad made.

    onnxruntime (up to 1.31, at every level of optimization but none) puts a Pad of zeros into the MaxPool behind it.
    Where all values at an edge are negative, the maximum is then one of them and no longer zero.
    """
    modified = False
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "MaxPool" and not node.domain else None
        pad = source.producer() if source is not None else None
        if source is None or pad is None or pad.op_type != "Pad" or not _of_zeros(pad):
            continue
        constant = ir.node("Constant", [], {"value": _almost_zero(source.dtype or ir.DataType.FLOAT)})
        constant.metadata_props.update(pad.metadata_props)
        assert pad.graph is not None
        pad.graph.insert_before(pad, constant)
        pad.resize_inputs(max(3, len(pad.inputs)))
        pad.replace_input_with(2, constant.outputs[0])
        modified = True
    return modified


def _of_zeros(pad: ir.Node) -> bool:
    mode = pad.attributes.get("mode")
    if mode is not None and mode.as_string() != "constant":
        return False
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    if value is None:
        return True
    constant = ir.convenience.get_const_tensor(value)
    return constant is not None and not constant.numpy().any()


def _almost_zero(kind: ir.DataType) -> ir.TensorProtocol:
    """The least number that is not zero and not slow: a normal one, in half precision any."""
    half = kind == ir.DataType.FLOAT16
    least = float(np.finfo(np.float16).smallest_subnormal if half else np.finfo(np.float32).tiny)
    return ir.tensor(np.array(least).astype(kind.numpy()), dtype=kind)
