"""LLaVA and its kin over towers with images of one size. Not a plugin itself: it registers nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converter import DummyInputs, Size
from converter.errors import UsageError
from converter.plugins._tiles import TEXT, VISION
from converter.plugins._vision_family import Family

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Llava(Family):
    def check(self, config: Any) -> None:
        kind = config.vision_config.model_type
        if kind not in ("clip_vision_model", "siglip_vision_model"):
            raise UsageError(
                f"LLaVA over a {kind} is not split into graphs: only towers with images of one size are",
                remedy="convert a checkpoint over CLIP or SigLIP",
            )

    def image_tokens(self, config: Any, images: Mapping[str, torch.Tensor]) -> list[int]:
        """All patches, and CLIP's class token; `default` leaves out the first of them."""
        whole = config.vision_config.model_type == "clip_vision_model"
        skipped = config.vision_feature_select_strategy == "default"
        return [count + whole - skipped for count in super().image_tokens(config, images)]

    def vision(self, model: nn.Module) -> nn.Module:
        from converter.wrappers.vision_language import LlavaVision

        return LlavaVision(model)


@dataclass(frozen=True)
class Anyres(Llava):
    """LLaVA-NeXT and LLaVA-OneVision: each image whole and in tiles, as many as its size asks for.

    bounded  whether `vision_aspect_ratio` says how many tiles' tokens an image may have
    """

    feature_axis: str = "num_image_tokens"
    bounded: bool = False

    def check(self, config: Any) -> None:
        super().check(config)
        classed = config.vision_config.model_type == "clip_vision_model"
        if classed is not (config.vision_feature_select_strategy == "default"):
            raise UsageError(
                f"{config.model_type}: vision_feature_select_strategy {config.vision_feature_select_strategy!r} over a"
                f" {config.vision_config.model_type} gives another number of features than there are patches",
                remedy="'default' is for CLIP, which has a class token, and 'full' for SigLIP",
            )

    def most(self, config: Any) -> int | None:
        """`anyres_max_9`: what more than nine tiles hold is made smaller."""
        return int(str(config.vision_aspect_ratio).rpartition("_")[2]) if self.bounded else None

    def images(self, config: Any, size: Size) -> DummyInputs:
        """Images of any height and width, their tiles padded to the same number."""
        import torch

        from converter.wrappers.anyres import best_grids

        vision, pinpoints = config.vision_config, config.image_grid_pinpoints
        generator = torch.Generator().manual_seed(size.seed)
        highest = torch.tensor(pinpoints).amax(dim=0) * 3 // 2
        shares = torch.rand(size["num_images"], 2, generator=generator)
        sizes = (shares * highest).long().clamp(min=vision.image_size // 2)
        tiles = 1 + best_grids(sizes, pinpoints, vision.image_size).prod(dim=1)
        shape = len(sizes), int(tiles.max()), vision.num_channels, vision.image_size, vision.image_size
        pixels = torch.randn(shape, generator=generator)
        pixels = pixels * (torch.arange(shape[1]) < tiles[:, None])[:, :, None, None, None]
        return DummyInputs(
            {"pixel_values": pixels, "image_sizes": sizes},
            {"pixel_values": {0: "num_images", 1: "num_tiles"}, "image_sizes": {0: "num_images"}},
        )

    def image_tokens(self, config: Any, images: Mapping[str, torch.Tensor]) -> list[int]:
        from converter.wrappers.anyres import token_counts

        tile, patch = config.vision_config.image_size, config.vision_config.patch_size
        return token_counts(
            images["image_sizes"], config.image_grid_pinpoints, tile, tile // patch, self.most(config)
        )

    def vision(self, model: nn.Module) -> nn.Module:
        from converter.wrappers.anyres import AnyresVision

        return AnyresVision(model, self.most(model.config))

    def features(self, model: Any, tensors: Any) -> dict[str, torch.Tensor]:
        import torch
        from accelerate.utils import align_module_device

        # The newline between rows is the model's own and may be on disk, where its forward alone would fetch it.
        with align_module_device(model.model):
            found = model.get_image_features(**tensors).pooler_output
        return {"image_features": torch.cat(list(found))}


# Grids of one to three tiles a side, 18 pixels each.
GRIDS = [[18, 36], [36, 18], [36, 36], [54, 18], [18, 54], [54, 54]]
CLIP: Mapping[str, Any] = {**VISION, "projection_dim": 20}
LLAVA: Mapping[str, Any] = {
    "image_token_id": 593,
    "vision_feature_layer": -2,
    "text_config": {**TEXT, "head_dim": None},
    "vision_config": CLIP,
}
LLAVA_NEXT = {**LLAVA, "image_grid_pinpoints": GRIDS, "vision_feature_select_strategy": "default"}
ONEVISION: Mapping[str, Any] = {
    "image_token_id": 593,
    "video_token_id": 594,
    "image_grid_pinpoints": GRIDS,
    "vision_aspect_ratio": "anyres_max_4",
    "text_config": {**TEXT, "head_dim": None, "layer_types": None},
    "vision_config": VISION,
}
