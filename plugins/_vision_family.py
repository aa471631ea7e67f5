"""What a model type of vision-language generation is: its images, its three graphs, its original.

Not a plugin itself: it registers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converter import Axis, DummyInputs, Size

if TYPE_CHECKING:
    import torch
    from torch import nn


def side_of(size: int | Sequence[int]) -> int:
    """Of a square, given by one side or by both."""
    return int(size if isinstance(size, int) else size[0])


@dataclass(frozen=True)
class Family:
    """One model type with images of one size, and a decoder that needs to know nothing of them.

    first_position  the position of a text's first token, as the model's own `generate` counts
    mrope           positions are three: time, row and column
    feature_axis    what the first axis of `image_features` counts
    chunks          whether a prompt may come in several calls
    """

    tiny: Mapping[str, Any]
    checkpoint: str = ""
    first_position: int = 0
    mrope: bool = False
    feature_axis: str = "num_images"
    chunks: bool = True

    def check(self, config: Any) -> None:
        """Raise UsageError for a config that is not served."""

    def behind(self, config: Any) -> int:
        """How many numbers stand behind each embedding."""
        return 0

    def marked(self, config: Any, image: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        """What stands behind embeddings of which some, bool (batch, sequence), are an image's."""
        return []

    def image_axes(self, config: Any) -> tuple[Axis, ...]:
        return (Axis("num_images", 2, high=4),)

    def images(self, config: Any, size: Size) -> DummyInputs:
        import torch

        vision = config.vision_config
        generator = torch.Generator().manual_seed(size.seed)
        side = side_of(vision.image_size)
        shape = size["num_images"], int(getattr(vision, "num_channels", 3)), side, side
        pixels = torch.randn(shape, generator=generator)
        return DummyInputs({"pixel_values": pixels}, {"pixel_values": {0: "num_images"}})

    def image_tokens(self, config: Any, images: Mapping[str, torch.Tensor]) -> list[int]:
        """How many tokens each row's image becomes; one image, or one row of tiles, is for each row of text."""
        vision = config.vision_config
        side = side_of(vision.image_size) // side_of(vision.patch_size)
        return [side**2] * len(images["pixel_values"])

    def positions(
        self, config: Any, image: torch.Tensor, mask: torch.Tensor, images: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Of a prompt's tokens, some of which are an `image`'s: int64 (batch, length), or (3, batch, length)."""
        return (mask.cumsum(-1) - 1 + self.first_position).clamp(min=0)

    def as_processed(self, inputs: Mapping[str, Any], image: torch.Tensor) -> dict[str, Any]:
        """What the model's processor would hand to `generate`, made of ids, mask and what `images` gives."""
        return dict(inputs)

    def vision(self, model: nn.Module) -> nn.Module:
        from converter.wrappers.vision_language import PlainVision

        return PlainVision(model)

    def features(self, model: Any, tensors: Any) -> dict[str, torch.Tensor]:
        """The features that the original puts in place of its image tokens."""
        import torch

        found = model.get_image_features(**tensors).pooler_output
        return {"image_features": found if isinstance(found, torch.Tensor) else torch.stack(list(found))}

    def decoder(self, model: nn.Module) -> nn.Module:
        from converter.wrappers.vision_language import EmbedsDecoder

        return EmbedsDecoder(model)

    def decode(self, model: Any, tensors: Any, cache: Any) -> torch.Tensor:
        """The original's logits for embeddings; `cache` is filled on."""
        logits: torch.Tensor = model(**tensors, cache=cache, use_cache=True).logits
        return logits
