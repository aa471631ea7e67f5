"""The model types of vision-language generation: their images, what their decoders are told of them, small configs.

Not a plugin itself: it registers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converter import Axis, DummyInputs, Size
from converter.plugins._llava import LLAVA, LLAVA_NEXT, ONEVISION, Anyres, Llava
from converter.plugins._qwen_images import DeepQwen, Qwen
from converter.plugins._qwen_vl import TINY as QWEN
from converter.plugins._tiles import IDEFICS3, TEXT, VISION, tile_tensors
from converter.plugins._vision_family import Family, side_of
from converter.plugins.colpali import PALIGEMMA
from converter.sources import merged

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Merged(Family):
    """Models over a tower with images of one size, and a projector that puts squares of patches together.

    merged   the entry of the config that says how many patches a side make one token: 2, or 0.5 where it is a ratio
    counted  or the one that says how many tokens an image becomes
    """

    merged: str = ""
    counted: str = ""

    def image_tokens(self, config: Any, images: Mapping[str, torch.Tensor]) -> list[int]:
        if self.counted:
            return [int(getattr(config, self.counted))] * len(images["pixel_values"])
        vision = config.vision_config
        side = side_of(vision.image_size) // side_of(vision.patch_size)
        factor = getattr(config, self.merged) if self.merged else 1
        each = side * factor if factor < 1 else side // factor
        return [int(each) ** 2] * len(images["pixel_values"])

    def features(self, model: Any, tensors: Any) -> dict[str, torch.Tensor]:
        return super().features(model.model, tensors)

    def vision(self, model: nn.Module) -> nn.Module:
        from converter.wrappers.vision_language import OwnFeatures

        return OwnFeatures(model)


@dataclass(frozen=True)
class Tiled(Family):
    """Idefics3 and SmolVLM: several tiles a row, of any size, those of zeros left out."""

    feature_axis: str = "num_real_images"

    def image_axes(self, config: Any) -> tuple[Axis, ...]:
        return (Axis("batch_size", 2, high=4), Axis("num_images", 3, high=4), Axis("tile_squares", 3, high=4))

    def images(self, config: Any, size: Size) -> DummyInputs:
        import torch

        generator = torch.Generator().manual_seed(size.seed)
        most = size["num_images"]
        tiles = torch.randint(1, most + 1, (size["batch_size"],), generator=generator).tolist()
        tensors = tile_tensors(config, [most, *tiles[1:]], most, size["tile_squares"], generator)
        tensors["pixel_attention_mask"] = tensors["pixel_attention_mask"].bool()
        rows = {0: "batch_size", 1: "num_images"}
        axes = {"pixel_values": {**rows, 3: "height", 4: "width"}}
        axes["pixel_attention_mask"] = {**rows, 2: "height", 3: "width"}
        return DummyInputs(tensors, axes)

    def image_tokens(self, config: Any, images: Mapping[str, torch.Tensor]) -> list[int]:
        pixels = images["pixel_values"]
        squares = pixels.shape[-1] // (config.vision_config.patch_size * config.scale_factor)
        real = pixels.flatten(2).any(dim=-1).sum(dim=1)
        return [int(tiles) * squares**2 for tiles in real]

    def vision(self, model: nn.Module) -> nn.Module:
        from converter.wrappers.vision_language import TilesVision

        return TilesVision(model)

    def features(self, model: Any, tensors: Any) -> dict[str, torch.Tensor]:
        import torch

        found = model.get_image_features(**tensors).pooler_output
        rows = torch.cat(list(found)) if isinstance(found, list | tuple) else found
        squares = tensors["pixel_values"].shape[-1] // model.config.vision_config.patch_size
        each = (squares // model.config.scale_factor) ** 2
        return {"image_features": rows.reshape(-1, each, rows.shape[-1])}


@dataclass(frozen=True)
class Prefix(Family):
    """PaliGemma: what comes first, image and question, is seen in both directions."""

    first_position: int = 1
    chunks: bool = False

    def as_processed(self, inputs: Mapping[str, Any], image: torch.Tensor) -> dict[str, Any]:
        return {**inputs, "token_type_ids": image.new_zeros(image.shape).long()}

    def decoder(self, model: nn.Module) -> nn.Module:
        from converter.wrappers.vision_language import BlockDecoder

        return BlockDecoder(model, marked=False)

    def decode(self, model: Any, tensors: Any, cache: Any) -> torch.Tensor:
        """With the token types of its processor; the original looks at them where the cache is still empty."""
        types = tensors["attention_mask"].new_zeros(tensors["inputs_embeds"].shape[:2])
        return super().decode(model, {**tensors, "token_type_ids": types}, cache)


@dataclass(frozen=True)
class Marked(Prefix):
    """Gemma 3: each image is seen in both directions; a number behind each embedding says what is an image's."""

    chunks: bool = True

    def image_tokens(self, config: Any, images: Mapping[str, torch.Tensor]) -> list[int]:
        return [int(config.mm_tokens_per_image)] * len(images["pixel_values"])

    def as_processed(self, inputs: Mapping[str, Any], image: torch.Tensor) -> dict[str, Any]:
        return {**inputs, "token_type_ids": image.long()}

    def behind(self, config: Any) -> int:
        return 1

    def marked(self, config: Any, image: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        return [image[..., None].float()]

    def vision(self, model: nn.Module) -> nn.Module:
        from converter.wrappers.vision_language import PlainVision

        return PlainVision(model, marks=True)

    def features(self, model: Any, tensors: Any) -> dict[str, torch.Tensor]:
        import torch

        features = super().features(model, tensors)["image_features"]
        return {"image_features": torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)}

    def decoder(self, model: nn.Module) -> nn.Module:
        from converter.wrappers.vision_language import BlockDecoder

        return BlockDecoder(model, marked=True)

    def decode(self, model: Any, tensors: Any, cache: Any) -> torch.Tensor:
        """With the token types of its processor, from the start of the text on, as for a prompt in several calls."""
        rest = dict(tensors)
        embeds = rest.pop("inputs_embeds")
        types = rest["attention_mask"].new_zeros(rest["attention_mask"].shape)
        types[:, types.shape[1] - embeds.shape[1] :] = (embeds[..., -1] > 0.5).long()
        return Family.decode(
            self, model, {**rest, "inputs_embeds": embeds[..., :-1], "token_type_ids": types}, cache
        )


_GEMMA3_TEXT = {
    **TEXT,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 6,
    "layer_types": None,
    "_sliding_window_pattern": 2,
    "sliding_window_pattern": 2,
}
WINDOW = {"sliding_window": 6, "layer_types": None}
PLAIN = {**TEXT, "layer_types": None}
INTERN = {
    "image_token_id": 593,
    "image_seq_length": 9,
    "text_config": PLAIN,
    "vision_config": {**VISION, "image_size": [18, 18], "patch_size": [3, 3]},
}
# Two convolutions of stride 2: 8 patches a side become 2 x 2 tokens.
GOT = {
    "image_token_index": 593,
    "image_seq_length": 4,
    "text_config": PLAIN,
    "vision_config": {
        **VISION,
        "image_size": 32,
        "patch_size": 4,
        "output_channels": 12,
        "mlp_dim": 44,
        "window_size": 3,
        "global_attn_indexes": [1],
    },
}
FAMILIES: Mapping[str, Family] = {
    "qwen2_vl": Qwen(QWEN["qwen2_vl"], "Qwen/Qwen2-VL-2B-Instruct", grid="grid_thw"),
    "qwen2_5_vl": Qwen(QWEN["qwen2_5_vl"], "Qwen/Qwen2.5-VL-3B-Instruct"),
    "qwen3_vl": DeepQwen(QWEN["qwen3_vl"], "Qwen/Qwen3-VL-2B-Instruct"),
    "qwen3_vl_moe": DeepQwen(
        merged(
            QWEN["qwen3_vl"],
            {"text_config": {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20}},
        ),
        "Qwen/Qwen3-VL-30B-A3B-Instruct",
    ),
    "aya_vision": Merged(
        {
            "image_token_index": 593,
            "text_config": {**TEXT, **WINDOW, "sliding_window_pattern": 2},
            "vision_config": VISION,
        },
        "CohereLabs/aya-vision-8b",
        merged="downsample_factor",
    ),
    "cohere2_vision": Merged(
        {
            "image_token_id": 593,
            "alignment_intermediate_size": 40,
            "text_config": {**TEXT, **WINDOW, "sliding_window_pattern": 2},
            "vision_config": VISION,
        },
        "CohereLabs/command-a-vision-07-2025",
        merged="downsample_factor",
    ),
    "deepseek_vl": Merged(
        {
            "image_token_id": 593,
            "text_config": TEXT,
            "vision_config": VISION,
        },
        "deepseek-community/deepseek-vl-1.3b-chat",
    ),
    "got_ocr2": Merged(GOT, "stepfun-ai/GOT-OCR-2.0-hf", counted="image_seq_length"),
    "internvl": Merged(INTERN, "OpenGVLab/InternVL3-1B-hf", merged="downsample_ratio"),
    "vipllava": Merged(
        {
            "image_token_index": 593,
            "vision_feature_layers": [-2, -1],
            "text_config": TEXT,
            "vision_config": {**VISION, "projection_dim": 20},
        },
        "llava-hf/vip-llava-7b-hf",
    ),
    "idefics3": Tiled(IDEFICS3, "HuggingFaceM4/Idefics3-8B-Llama3"),
    "smolvlm": Tiled(IDEFICS3, "HuggingFaceTB/SmolVLM2-256M-Video-Instruct"),
    "llava": Llava(LLAVA, "llava-hf/llava-1.5-7b-hf"),
    "llava_next": Anyres(LLAVA_NEXT, "llava-hf/llava-v1.6-mistral-7b-hf"),
    "llava_onevision": Anyres(ONEVISION, "llava-hf/llava-onevision-qwen2-0.5b-ov-hf", bounded=True),
    "paligemma": Prefix(PALIGEMMA, "google/paligemma2-3b-pt-224"),
    "gemma3": Marked(
        {
            "image_token_id": 605,
            "mm_tokens_per_image": 4,
            "text_config": _GEMMA3_TEXT,
            "vision_config": VISION,
        },
        "google/gemma-3-4b-it",
    ),
}
