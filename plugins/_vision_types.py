"""Which models see images, as data: tiny configs and how each type differs. Registers nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FEATURES, CLASSES = "image-feature-extraction", "image-classification"
OBJECTS, SEGMENTS = "object-detection", "image-segmentation"
PIXELS, DEPTH = "semantic-segmentation", "depth-estimation"

# task -> (class in transformers, the output fields it gives)
TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    FEATURES: ("AutoModel", ("last_hidden_state",)),
    CLASSES: ("AutoModelForImageClassification", ("logits",)),
    OBJECTS: ("AutoModelForObjectDetection", ("logits", "pred_boxes")),
    SEGMENTS: ("AutoModelForImageSegmentation", ("logits", "pred_boxes", "pred_masks")),
    PIXELS: ("AutoModelForSemanticSegmentation", ("logits",)),
    DEPTH: ("AutoModelForDepthEstimation", ("predicted_depth",)),
}
ENCODER = (FEATURES, CLASSES)
# Queries, each with a class and a mask.
QUERIES = {
    SEGMENTS: ("AutoModelForUniversalSegmentation", ("class_queries_logits", "masks_queries_logits")),
}


@dataclass(frozen=True)
class Kind:
    """How a model type differs.

    tiny     what its tiny config needs beyond TINY, or all of it where `whole`
    dynamic  whether height and width may vary; if not, the graph takes the config's image size only
    options  arguments of every call; position tables are stretched to the image where the model can do it
    pooled   whether its features come with a `pooler_output` whose weights every checkpoint has
    tasks    those it has a class for
    unit     pixels that height and width have to be multiples of
    windows  whether the last stage's grid has to be as large as a window of attention
    masked   whether it takes a mask of which pixels are image
    whole    whether `tiny` is all of its config
    heads    task -> class and fields, where they are not the usual ones
    freezes  the module of transformers that turns sizes into plain numbers by int() or len(), which would fix them;
             of a folder of another name, `folder/name`
    """

    tiny: Mapping[str, Any] = field(default_factory=dict)
    dynamic: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    pooled: bool = False
    tasks: tuple[str, ...] = ENCODER
    unit: int = 1
    windows: bool = False
    masked: bool = False
    whole: bool = False
    freezes: str = ""
    heads: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    @property
    def small(self) -> dict[str, Any]:
        """Its whole tiny config."""
        return dict(self.tiny) if self.whole else {**TINY, **self.tiny}

    def head(self, task: str) -> tuple[str, tuple[str, ...]]:
        """The class of a task and the fields it gives."""
        return self.heads.get(task) or TASKS[task]


# Odd sizes; a grid of 6 x 6 patches. What follows from the depth is left for the config to work out.
TINY = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 52,
    "image_size": 24,
    "patch_size": 4,
    "num_labels": 5,
    "stage_names": None,
    "out_features": None,
    "out_indices": None,
}
STAGES = {"num_hidden_layers": None, "hidden_size": None, "num_attention_heads": None, "num_labels": 5}


STRETCHES = "interpolate_pos_encoding"
STRETCH = {STRETCHES: True}
CONV = {**STAGES, "hidden_sizes": [8, 12, 20, 28], "depths": [1, 2, 3, 1], "image_size": 40}
PYRAMID = {
    **STAGES,
    "hidden_sizes": [8, 12, 20, 28],
    "depths": [1, 1, 5, 1],
    "num_attention_heads": [1, 2, 2, 4],
}
PYRAMID["image_size"] = 64
MOBILE = {"depth_multiplier": 0.25, "image_size": 64, "num_labels": 5}
SWIN = {
    **STAGES,
    "embed_dim": 12,
    "depths": [2, 2, 4],
    "num_heads": [1, 2, 3],
    "window_size": 3,
    "image_size": 48,
}

RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 20, 28],
    "depths": [1, 1, 2, 1],
    "stage_names": None,
    "out_features": None,
    "out_indices": [1, 2, 3, 4],
}
DETR = {
    "backbone_config": RESNET,
    "use_timm_backbone": False,
    "d_model": 64,  # what the mask head divides by 8, and its half by 8 again
    "num_queries": 7,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 52,
    "decoder_ffn_dim": 44,
    "num_labels": 5,
}
# DETR in real time: three levels of features with anchors, of which the best seven become queries.
RT_DETR = {
    "backbone_config": {
        **RESNET,
        "model_type": "rt_detr_resnet",
        "hidden_sizes": [8, 12, 20, 24],
        "downsample_in_bottleneck": True,
        "out_indices": [2, 3, 4],
    },
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [12, 20, 24],
    "encoder_layers": 1,
    "encoder_ffn_dim": 52,
    "encoder_attention_heads": 4,
    "d_model": 32,
    "num_queries": 7,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 44,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "image_size": None,
    "num_labels": 5,
}
HGNET = {
    "model_type": "hgnet_v2",
    "stem_channels": [3, 8, 12],
    "stage_in_channels": [12, 16, 20, 24],
    "stage_mid_channels": [8, 8, 12, 12],
    "stage_out_channels": [16, 20, 24, 28],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [2, 2, 2, 2],
    "hidden_sizes": [16, 20, 24, 28],
    "stage_names": None,
    "out_features": None,
    "out_indices": [2, 3, 4],
}
D_FINE = {**RT_DETR, "backbone_config": HGNET, "encoder_in_channels": [20, 24, 28], "max_num_bins": 8}
D_FINE |= {"decoder_n_points": [3, 4, 2], "head_dim": 8}
STAGED = {"backbone_config": RESNET, "num_labels": 5}
MASKFORMER = {
    **STAGED,
    "mask_feature_size": 32,
    "fpn_feature_size": 32,
    "decoder_config": {**DETR, "model_type": "detr", "d_model": 32},
}
NECK = {"neck_hidden_sizes": [8, 12, 16, 20], "fusion_hidden_size": 12}
DPT = {**NECK, "num_hidden_layers": 4, "image_size": 32, "backbone_out_indices": [0, 1, 2, 3]}
DEPTH_ANYTHING = {
    **NECK,
    "backbone_config": {
        **TINY,
        "model_type": "dinov2",
        "num_hidden_layers": 4,
        "reshape_hidden_states": False,
        "out_indices": [1, 2, 3, 4],
    },
    "patch_size": 4,
    "reassemble_hidden_size": 36,
    "head_hidden_size": 8,
}

# model type -> how it differs
FAMILY: dict[str, Kind] = {
    "aimv2_vision_model": Kind(pooled=True, dynamic=False, tasks=(FEATURES,)),
    "beit": Kind(options=STRETCH, freezes="beit"),
    "clip_vision_model": Kind(options=STRETCH, pooled=True, tasks=(FEATURES,)),
    "convnext": Kind(CONV, pooled=True),
    "convnextv2": Kind(CONV, pooled=True),
    "conditional_detr": Kind(DETR, tasks=(OBJECTS,), masked=True, whole=True),
    "d_fine": Kind(D_FINE, tasks=(OBJECTS,), unit=32, whole=True, freezes="d_fine"),
    "data2vec-vision": Kind(
        {"out_indices": [0, 1, 2, 3]}, options=STRETCH, freezes="data2vec/data2vec_vision"
    ),
    "deit": Kind(options=STRETCH),
    "depth_anything": Kind(DEPTH_ANYTHING, tasks=(DEPTH,), whole=True, freezes="depth_anything"),
    "detr": Kind(DETR, tasks=(OBJECTS, SEGMENTS), masked=True, whole=True),
    "dinov2": Kind(pooled=True),
    "dinov2_with_registers": Kind(pooled=True, freezes="dinov2_with_registers"),
    "dinov3_convnext": Kind(CONV, pooled=True, tasks=(FEATURES,)),
    "dinov3_vit": Kind(pooled=True, tasks=(FEATURES,)),
    "donut-swin": Kind(SWIN, windows=True, pooled=True),
    "dpt": Kind(DPT, dynamic=False, tasks=(DEPTH, PIXELS)),
    # Its stem has 32 channels times the coefficient whatever the lists say, its head 1280.
    "efficientnet": Kind(
        {
            "width_coefficient": 0.25,
            "depth_coefficient": 0.5,
            "hidden_dim": 320,
            "image_size": 64,
            "num_labels": 5,
        },
        pooled=True,
        whole=True,
    ),
    # It pads what its patches leave over, by a branch that tracing takes once: multiples of all its strides need none.
    "focalnet": Kind(
        {"embed_dim": 12, "depths": [1, 1, 5, 1], "image_size": 64, "num_labels": 5, "out_features": None}
        | {"hidden_sizes": [12, 24, 48, 96], "out_indices": None, "stage_names": None},
        unit=32,
        whole=True,
        pooled=True,
    ),
    "glpn": Kind({**PYRAMID, "decoder_hidden_size": 20, "image_size": None}, tasks=(DEPTH,), unit=32),
    "hiera": Kind(
        {
            **STAGES,
            "embed_dim": 8,
            "depths": [1, 1, 5, 1],
            "num_heads": [1, 1, 2, 4],
            "image_size": [64, 64],
            "patch_size": [7, 7],
        },
        dynamic=False,
        pooled=True,
    ),
    "ijepa": Kind(options=STRETCH),
    "maskformer": Kind(MASKFORMER, tasks=(SEGMENTS,), unit=32, whole=True, heads=QUERIES),
    "maskformer-swin": Kind(SWIN, pooled=True, tasks=(FEATURES,)),
    "mlcd_vision_model": Kind(pooled=True, tasks=(FEATURES,)),
    "pixio": Kind(pooled=True, tasks=(FEATURES,)),
    "poolformer": Kind(CONV),
    "pvt": Kind({**PYRAMID, "patch_size": 4}, dynamic=False),
    "pvt_v2": Kind({**PYRAMID, "image_size": [64, 64]}),
    "rt_detr": Kind(RT_DETR, tasks=(OBJECTS,), unit=32, whole=True, freezes="rt_detr"),
    "rt_detr_v2": Kind(RT_DETR, tasks=(OBJECTS,), unit=32, whole=True, freezes="rt_detr_v2"),
    "segformer": Kind({**PYRAMID, "decoder_hidden_size": 20}, tasks=(*ENCODER, PIXELS)),
    "siglip_vision_model": Kind(options=STRETCH, pooled=True, tasks=(FEATURES,)),
    "swin": Kind(SWIN, windows=True, pooled=True),
    "swinv2": Kind({**SWIN, "pretrained_window_sizes": [0, 0, 0]}, pooled=True),
    "table-transformer": Kind(DETR, tasks=(OBJECTS,), masked=True, whole=True),
    # Its pools have sizes of their own, whatever the image's.
    "upernet": Kind({**STAGED, "hidden_size": 12}, tasks=(PIXELS,), dynamic=False, whole=True),
    "vit": Kind(options=STRETCH),
    "vit_msn": Kind(options=STRETCH),
    "yolos": Kind(
        {"num_detection_tokens": 4, "image_size": [24, 24]}, tasks=(OBJECTS, FEATURES), pooled=True
    ),
    "levit": Kind(
        {
            **STAGES,
            "hidden_sizes": [16, 24, 32],
            "num_attention_heads": [2, 3, 4],
            "depths": [2, 2, 2],
            "key_dim": [8, 8, 8],
            "image_size": 64,
            "patch_size": 16,
            "down_ops": [["Subsample", 8, 2, 4, 2, 2], ["Subsample", 8, 3, 4, 2, 2]],
        },
        dynamic=False,
        pooled=True,
    ),
    # They pad as TensorFlow does, by what a size leaves when divided by the stride: the same for every multiple of 32.
    "mobilenet_v1": Kind(MOBILE, pooled=True, unit=32, whole=True),
    "mobilenet_v2": Kind(MOBILE, pooled=True, unit=32, whole=True, tasks=(*ENCODER, PIXELS)),
    "mobilevit": Kind(
        {
            "hidden_sizes": [16, 20, 24],
            "neck_hidden_sizes": [4, 8, 12, 16, 20, 24, 28],
            "num_attention_heads": 2,
            "patch_size": 2,
            "image_size": 64,
        },
        dynamic=False,
        pooled=True,
        tasks=(*ENCODER, PIXELS),
    ),
    "regnet": Kind({**CONV, "embedding_size": 8, "groups_width": 4}, pooled=True),
    "resnet": Kind({**CONV, "embedding_size": 8}, pooled=True),
}
