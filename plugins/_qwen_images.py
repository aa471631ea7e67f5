"""The Qwen-VL model types: images of any grid, packed behind each other.

Not a plugin itself: it registers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converter import Axis, DummyInputs, Size
from converter.plugins._vision_family import Family

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Qwen(Family):
    """Images of any grid, packed; `grid` is what clients call the grids."""

    mrope: bool = True
    grid: str = "image_grid_thw"
    feature_axis: str = "num_image_tokens"

    def image_axes(self, config: Any) -> tuple[Axis, ...]:
        return (
            Axis("num_images", 2, high=4),
            Axis("grid_height", 2, high=5),
            Axis("grid_width", 3, high=5),
        )

    def images(self, config: Any, size: Size) -> DummyInputs:
        """The first image of the full size, in merged squares, others smaller; a third is two frames of a video."""
        import torch

        vision = config.vision_config
        merge = int(vision.spatial_merge_size)
        generator = torch.Generator().manual_seed(size.seed)
        grids = []
        for number in range(size["num_images"]):
            full = size["grid_height"], size["grid_width"]
            drawn = [int(torch.randint(1, side + 1, (1,), generator=generator)) for side in full]
            rows, columns = full if number == 0 else drawn
            grids.append((2 if number == 2 else 1, rows * merge, columns * merge))
        grid = torch.tensor(grids)
        pixels = int(vision.in_channels) * int(vision.temporal_patch_size) * int(vision.patch_size) ** 2
        values = torch.randn(int(grid.prod(dim=1).sum()), pixels, generator=generator)
        return DummyInputs(
            {"pixel_values": values, self.grid: grid},
            {"pixel_values": {0: "num_patches"}, self.grid: {0: "num_images"}},
        )

    def image_tokens(self, config: Any, images: Mapping[str, torch.Tensor]) -> list[int]:
        patches: list[int] = images[self.grid].prod(dim=1).tolist()
        return [count // int(config.vision_config.spatial_merge_size) ** 2 for count in patches]

    def positions(
        self, config: Any, image: torch.Tensor, mask: torch.Tensor, images: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """M-RoPE: text counts on, an image's tokens have its row and column, text after it goes on behind the larger.

        One still image in each row, as in https://arxiv.org/abs/2409.12191, section 2.1.
        """
        import torch

        positions = torch.zeros(3, *image.shape, dtype=torch.int64)
        sides = images[self.grid][:, 1:] // int(config.vision_config.spatial_merge_size)
        for row, (height, width) in enumerate(sides.tolist()):
            real = mask[row].bool()
            before = int(image[row, real].long().argmax())
            square = torch.arange(height * width)
            seen = torch.stack([square * 0, square // width, square % width]) + before
            after = before + max(height, width) + torch.arange(int(real.sum()) - before - len(square))
            positions[:, row, real] = torch.cat(
                [torch.arange(before).expand(3, -1), seen, after.expand(3, -1)], dim=1
            )
        return positions

    def as_processed(self, inputs: Mapping[str, Any], image: torch.Tensor) -> dict[str, Any]:
        given = dict(inputs)
        grids = given.pop(self.grid)
        return {**given, "image_grid_thw": grids, "mm_token_type_ids": image.int()}

    def vision(self, model: nn.Module) -> nn.Module:
        from converter.wrappers.qwen_vision import PackedVision

        whole: Any = model
        return PackedVision(whole.model.visual, grid=self.grid)

    def features(self, model: Any, tensors: Any) -> dict[str, torch.Tensor]:
        import torch

        found = model.get_image_features(tensors["pixel_values"], tensors[self.grid])
        each = [found.pooler_output, *(getattr(found, "deepstack_features", None) or [])]  # cut at images
        return {"image_features": torch.cat([torch.cat(list(images)) for images in each], dim=-1)}


@dataclass(frozen=True)
class DeepQwen(Qwen):
    """Qwen3-VL: features of earlier blocks go along, for the first layers of the decoder."""

    def behind(self, config: Any) -> int:
        return len(config.vision_config.deepstack_visual_indexes) * int(config.get_text_config().hidden_size)

    def marked(self, config: Any, image: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        import torch

        return [torch.randn(*image.shape, self.behind(config), generator=generator) * image[..., None]]

    def decoder(self, model: nn.Module) -> nn.Module:
        from converter.wrappers.vision_language import DeepDecoder

        return DeepDecoder(model)

    def decode(self, model: Any, tensors: Any, cache: Any) -> torch.Tensor:
        """As `Qwen3VLModel` calls its text model."""
        rest = dict(tensors)
        layers = len(model.config.vision_config.deepstack_visual_indexes)
        embeds, *deep = rest.pop("inputs_embeds").chunk(1 + layers, dim=-1)
        image = deep[0].any(dim=-1)
        hidden = model.model.language_model(
            **rest,
            inputs_embeds=embeds,
            cache=cache,
            use_cache=True,
            visual_pos_masks=image,
            deepstack_visual_embeds=[features[image] for features in deep],
        ).last_hidden_state
        logits: torch.Tensor = model.lm_head(hidden)
        return logits
