"""Vision-language generation in three graphs: images to features, ids to embeddings, embeddings to logits.

Clients put the features where the image tokens stand, as `masked_scatter` does. What the decoder has to know of an
image token besides its embedding (that it is one; features of earlier vision blocks) follows it in the same row:
such models have embeddings wider than the decoder's hidden size, with zeros after those of text.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from converter.wrappers.common import additive_mask
from converter.wrappers.decoder import fill, flat, given
from converter.wrappers.tiled_vision import TiledVision, real_tiles


class EmbedTokens(nn.Module):
    """Token ids to the decoder's embeddings, `extra` zeros after each. Ids past the table (image tokens) get row 0."""

    def __init__(self, model: Any, extra: int = 0) -> None:
        super().__init__()
        self.embedding = model.get_input_embeddings()
        self.extra = extra

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """int64 (batch, sequence) -> (batch, sequence, hidden + extra)."""
        known = torch.where(input_ids < self.embedding.num_embeddings, input_ids, 0)
        embeds: torch.Tensor = self.embedding(known)
        return nn.functional.pad(embeds, (0, self.extra)) if self.extra else embeds


class PlainVision(nn.Module):
    """Images of one size through tower and projector; with `marks` a 1 after each feature."""

    def __init__(self, model: Any, *, marks: bool = False) -> None:
        super().__init__()
        self.vision_tower = model.model.vision_tower
        self.multi_modal_projector = model.model.multi_modal_projector
        self.marks = marks

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(images, channels, side, side) -> (images, tokens, hidden)."""
        features = self.multi_modal_projector(self.vision_tower(pixel_values).last_hidden_state)
        return nn.functional.pad(features, (0, 1), value=1.0) if self.marks else features


class OwnFeatures(nn.Module):
    """Images of one size through the model's own `get_image_features`, without the decoder beside it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = without_decoder(model.model)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(images, channels, side, side) -> (images, tokens, hidden)."""
        features: torch.Tensor = self.model.get_image_features(pixel_values).pooler_output
        return features


def without_decoder(model: Any) -> Any:
    """A shallow copy: the same parameters, all but the language model's."""
    seeing = copy.copy(model)
    seeing._modules = {name: part for name, part in model.named_children() if name != "language_model"}
    return seeing


class LlavaVision(nn.Module):
    """Images of one size to projected features of the layers that LLaVA's config selects."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_tower = model.model.vision_tower
        self.multi_modal_projector = model.model.multi_modal_projector
        chosen = model.config.vision_feature_layer
        self.layers = [chosen] if isinstance(chosen, int) else list(chosen)
        self.first = int(model.config.vision_feature_select_strategy == "default")

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(images, channels, side, side) -> (images, tokens, hidden)."""
        states = self.vision_tower(pixel_values, output_hidden_states=True).hidden_states
        chosen = torch.cat([states[layer][:, self.first :] for layer in self.layers], dim=-1)
        features: torch.Tensor = self.multi_modal_projector(chosen)
        return features


class TilesVision(nn.Module):
    """Tiles of Idefics3 and SmolVLM to features; tiles of zeros, which only fill up a row, give none."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision = TiledVision(model.model)

    def forward(self, pixel_values: torch.Tensor, pixel_attention_mask: torch.Tensor) -> torch.Tensor:
        """(batch, tiles, channels, side, side), bool (batch, tiles, side, side) -> (real tiles, tokens, hidden)."""
        pixels = pixel_values.flatten(0, 1)
        features = self.vision(pixels, pixel_attention_mask.flatten(0, 1))
        kept: torch.Tensor = features[real_tiles(pixels)]
        return kept


class EmbedsDecoder(nn.Module):
    """The whole model, fed embeddings: logits and every layer's keys and values, the new ones appended."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        **past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """(batch, sequence, hidden), a mask over past and new, positions as the model takes them, past as `Decoder`."""
        cache = fill(DynamicCache(), past)
        output = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            cache=cache,
            use_cache=True,
            **given(position_ids),
        )
        return (output.logits, *flat(cache))


class BlockDecoder(nn.Module):
    """PaliGemma and Gemma 3, where some of what comes in at once is seen in both directions.

    prefix  PaliGemma: all of it, if nothing is past, since the first call is the prompt, image and question
    marked  Gemma 3: each run of image tokens, told by the number after each embedding
    """

    def __init__(self, model: Any, *, marked: bool) -> None:
        super().__init__()
        self.language_model = model.model.language_model
        self.lm_head = model.lm_head
        self.marked = marked
        config = model.config.get_text_config()
        self.kinds = dict.fromkeys(getattr(config, "layer_types", None) or ["full_attention"])
        self.window = getattr(config, "sliding_window", None)
        self.softcap = getattr(config, "final_logit_softcapping", None) if not marked else None

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        **past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """As `EmbedsDecoder`; with `marked`, embeddings are (batch, sequence, hidden + 1)."""
        marks = None
        if self.marked:
            inputs_embeds, marks = inputs_embeds[..., :-1], inputs_embeds[..., -1] > 0.5
        masks = self.masks(attention_mask, inputs_embeds, marks)
        cache = fill(DynamicCache(), past)
        output = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=masks
            if len(masks) > 1 or "sliding_attention" in masks
            else masks["full_attention"],
            position_ids=position_ids,
            cache=cache,
            use_cache=True,
        )
        logits = self.lm_head(output.last_hidden_state)
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return (logits, *flat(cache))

    def masks(
        self, attention_mask: torch.Tensor, embeds: torch.Tensor, marks: torch.Tensor | None
    ) -> Mapping[str, torch.Tensor]:
        """One for each kind of layer, (batch, 1, new, past + new)."""
        new, total = embeds.shape[1], attention_mask.shape[1]
        keys = torch.arange(total, device=embeds.device)[None, None, :]
        queries = torch.arange(new, device=embeds.device)[None, :, None] + (total - new)
        causal = keys <= queries  # (1, new, total)
        near = keys > queries - (self.window or 0)
        if marks is None:
            together = queries[:, :1] == 0
            kinds = {"full_attention": causal | together, "sliding_attention": (causal & near) | together}
        else:
            seen = causal | same_run(marks, total)
            kinds = {"full_attention": seen, "sliding_attention": seen & near}
        real = attention_mask.bool()[:, None, :]
        return {kind: additive_mask((kinds[kind] & real)[:, None], embeds.dtype) for kind in self.kinds}


def same_run(marks: torch.Tensor, total: int) -> torch.Tensor:
    """Which keys stand in a query's own run of marked tokens: bool (batch, new) -> (batch, new, total).

    The keys are `total` long and end with the new ones; no run goes on from the past.
    """
    before = nn.functional.pad(marks, (1, 0))[:, :-1]
    run = (marks & ~before).long().cumsum(dim=1) * marks.long()  # 0 outside of runs
    keys = nn.functional.pad(run, (total - marks.shape[1], 0))
    return (run[:, :, None] == keys[:, None, :]) & marks[:, :, None]


class DeepDecoder(nn.Module):
    """Qwen3-VL: each embedding is followed by what the first layers add to their output, zeros for text."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.language_model = model.model.language_model
        self.lm_head = model.lm_head
        self.deep = len(model.config.vision_config.deepstack_visual_indexes)

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        **past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """As `EmbedsDecoder`, with embeddings (batch, sequence, hidden * (1 + deep layers))."""
        cache = fill(DynamicCache(), past)
        hidden, *added = inputs_embeds.chunk(1 + self.deep, dim=-1)
        tables = self.language_model.rotary_emb(hidden, position_ids)
        new, total = hidden.shape[1], attention_mask.shape[1]
        keys = torch.arange(total, device=hidden.device)[None, None, :]
        queries = torch.arange(new, device=hidden.device)[None, :, None] + (total - new)
        seen = (keys <= queries) & attention_mask.bool()[:, None, :]
        mask = additive_mask(seen[:, None], hidden.dtype)
        for index, layer in enumerate(self.language_model.layers):
            hidden = layer(
                hidden, attention_mask=mask, cache=cache, position_embeddings=tables, use_cache=True
            )
            if index < self.deep:
                hidden = hidden + added[index]
        return (self.lm_head(self.language_model.norm(hidden)), *flat(cache))
