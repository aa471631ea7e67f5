"""What the models over Qwen-VL backbones share: small configs and the translation of their patch convolution.

Not a plugin itself: it registers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Two layers a tower, odd widths, grouped heads, three M-RoPE sections that differ. A checkpoint lists
# layer_types for its own depth; without the list it is derived.
_TEXT = {
    "vocab_size": 601,
    "hidden_size": 48,
    "intermediate_size": 76,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "max_window_layers": 2,
    "layer_types": None,
    "rope_parameters": {"mrope_section": [1, 2, 3]},
    "bos_token_id": 589,
    "eos_token_id": 590,
    "pad_token_id": 588,
}
_TOKENS = {
    "vocab_size": 601,
    "image_token_id": 593,
    "video_token_id": 594,
    "vision_start_token_id": 591,
    "vision_end_token_id": 592,
}
_VISION = {"depth": 2, "num_heads": 3, "patch_size": 3}

# backbone's model type -> what makes its config a small one
TINY: Mapping[str, Mapping[str, Any]] = {
    "qwen2_vl": {
        **_TOKENS,
        "text_config": _TEXT,
        "vision_config": {**_VISION, "embed_dim": 36, "hidden_size": 48, "mlp_ratio": 2},
    },
    # The first block sees windows of two squares by two, the second whole images.
    "qwen2_5_vl": {
        **_TOKENS,
        "text_config": _TEXT,
        "vision_config": {
            **_VISION,
            "hidden_size": 36,
            "out_hidden_size": 48,
            "intermediate_size": 52,
            "window_size": 12,
            "fullatt_block_indexes": [1],
        },
    },
    "qwen3_vl": {
        **_TOKENS,
        "text_config": {**_TEXT, "head_dim": 12, "num_hidden_layers": 3},
        "vision_config": {
            **_VISION,
            "depth": 3,
            "hidden_size": 36,
            "out_hidden_size": 48,
            "intermediate_size": 52,
            "num_position_embeddings": 25,
            "deepstack_visual_indexes": [0, 1],
        },
    },
}


def conv3d_in_onnx() -> dict[Any, Any]:
    """A convolution over patches for ONNX.

    onnxscript 0.7.2 invents a two-dimensional bias for `conv3d` without one, which onnxruntime refuses.
    """
    import torch
    from onnxscript import opset18

    def conv3d(
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Sequence[int] = (1, 1, 1),
        padding: Sequence[int] = (0, 0, 0),
        dilation: Sequence[int] = (1, 1, 1),
        groups: int = 1,
    ) -> Any:
        inputs = (input, weight) if bias is None else (input, weight, bias)
        pads = [*padding, *padding]
        return opset18.Conv(*inputs, strides=list(stride), pads=pads, dilations=list(dilation), group=groups)

    return {torch.ops.aten.conv3d.default: conv3d}
