"""Encoder-decoder models: the encoder, and a decoder that computes cross-attention keys and values only once."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from converter.wrappers.decoder import fill, flat
from converter.wrappers.text_encoder import without_cache


@torch.library.custom_op("converter::cross_attention_state", mutates_args=())
def cross_attention_state(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    past: torch.Tensor,
    use_past: torch.Tensor,
    heads: int,
) -> torch.Tensor:
    """Keys (or values) of one layer's cross-attention: `past` where there is one, else projected from `hidden`.

    hidden    (batch, encoder length, width)
    weight    of the projection, (heads * head size, width); bias (heads * head size)
    past      (batch, heads, encoder length, head size); any length where `use_past` is false
    use_past  bool (1,)

    One op for tracing, so that the choice is left to run time. The graph has no branch either: hidden states and past
    are both cut, one of them to nothing, and the results are joined.
    """
    if bool(use_past):
        return past.clone()
    projected = nn.functional.linear(hidden, weight, bias)
    return projected.view(*hidden.shape[:2], heads, -1).transpose(1, 2).contiguous()


@cross_attention_state.register_fake
def _(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    past: torch.Tensor,
    use_past: torch.Tensor,
    heads: int,
) -> torch.Tensor:
    return hidden.new_empty(hidden.shape[0], heads, hidden.shape[1], weight.shape[0] // heads)


@torch.library.custom_op("converter::kept_past", mutates_args=())
def kept_past(past: torch.Tensor, use_past: torch.Tensor) -> torch.Tensor:
    """`past` (batch, heads, past, head size) where `use_past`, bool (1,), is true; else of length 0.

    Callers that cannot send an empty past send one of length 1 with the first step. While tracing, the length stays; in
    the graph `converter.passes.kept_past` makes sure that sizes are read from what is left.
    """
    return past.clone() if bool(use_past) else past[:, :, :0].clone()


@kept_past.register_fake
def _(past: torch.Tensor, use_past: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(past)


class Encoder(nn.Module):
    """The encoder alone, called by the names of its own inputs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.get_encoder()

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Token ids and mask, or speech features -> last hidden state (batch, encoder length, width)."""
        hidden: torch.Tensor = self.encoder(**inputs).last_hidden_state
        return hidden


def encoder_output(hidden: torch.Tensor) -> Any:
    """What a model takes for the result of its encoder; some speech models ask it for a mask."""
    output: Any = BaseModelOutput(last_hidden_state=hidden)
    output.attention_mask = None
    return output


class CrossLayer:
    """What a cache of transformers holds of one layer, made when the layer asks for it, in the layer's own scope."""

    def __init__(self, attention: nn.Module, hidden: torch.Tensor, past: Any, use_past: torch.Tensor) -> None:
        self.arguments = attention, hidden, past, use_past
        self.made: dict[str, torch.Tensor] = {}

    def _state(self, part: str) -> torch.Tensor:
        if part not in self.made:
            attention, hidden, past, use_past = self.arguments
            projection = projection_of(attention, part)
            # A large original's weights are on disk until they are asked for.
            with align_module_device(projection):
                self.made[part] = torch.ops.converter.cross_attention_state(
                    hidden, projection.weight, projection.bias, past[part], use_past, past[part].shape[1]
                )
        return self.made[part]

    @property
    def keys(self) -> torch.Tensor:
        return self._state("key")

    @property
    def values(self) -> torch.Tensor:
        return self._state("value")


def projection_of(attention: Any, part: str) -> Any:
    """The linear layer that makes keys or values."""
    names = {"key": ("k_proj", "k", "key_proj"), "value": ("v_proj", "v", "value_proj")}[part]
    return next(getattr(attention, name) for name in names if hasattr(attention, name))


def cross_attentions(model: Any) -> list[nn.Module]:
    """The cross-attention of every decoder layer, in order."""
    ends = ("encoder_attn", "EncDecAttention", "cross_attn")
    return [module for path, module in model.get_decoder().named_modules() if path.endswith(ends)]


class DecoderMerged(nn.Module):
    """One graph for the first step and all others."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.cross = cross_attentions(model)
        # Only where an encoder of images has another width than the decoder.
        self.project = getattr(model, "enc_to_dec_proj", None)

    def forward(
        self,
        input_ids: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        use_cache_branch: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        **past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Logits, then each layer's decoder key and value, encoder key and value.

        input_ids               int64 (batch, new)
        encoder_hidden_states   (batch, encoder length, width)
        use_cache_branch        bool (1,): false at the first step, which has no past; what is sent as one is ignored
        encoder_attention_mask  int64 (batch, encoder length); speech models have none
        past                    for each layer decoder key and value (batch, heads, past, head size), encoder key and
                                value (batch, heads, encoder length, head size)
        """
        own = {
            name: torch.ops.converter.kept_past(tensor, use_cache_branch)
            for name, tensor in past.items()
            if ".decoder." in name
        }
        hidden = encoder_hidden_states if self.project is None else self.project(encoder_hidden_states)
        crossed = [tensor for name, tensor in past.items() if name not in own]
        layers = [
            CrossLayer(
                attention,
                hidden,
                {"key": crossed[2 * index], "value": crossed[2 * index + 1]},
                use_cache_branch,
            )
            for index, attention in enumerate(self.cross)
        ]
        cache: Any = EncoderDecoderCache(fill(DynamicCache(), own), DynamicCache())
        cache.cross_attention_cache.layers = layers
        cache.is_updated = dict.fromkeys(range(len(layers)), True)
        output = self.model(
            encoder_outputs=encoder_output(encoder_hidden_states),
            attention_mask=encoder_attention_mask,
            decoder_input_ids=input_ids,
            cache=cache,
            use_cache=True,
        )
        return (output.logits, *present(cache))


def present(cache: Any) -> tuple[torch.Tensor, ...]:
    """Decoder key and value, encoder key and value of each layer in turn.

    A cache that transformers makes may end in empty layers: Donut's config counts those of an encoder it lacks.
    """
    sides = (cache.self_attention_cache, cache.cross_attention_cache)
    pairs = [[tensor for tensor in flat(side) if tensor is not None] for side in sides]
    count = len(pairs[0]) // 2
    return tuple(
        tensor for layer in range(count) for pair in pairs for tensor in pair[2 * layer : 2 * layer + 2]
    )


class Classifier(nn.Module):
    """A classifier over an encoder-decoder, read at the last end token; the original picks states by a mask."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.options = without_cache(model.base_model)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """int64 (batch, sequence) -> logits (batch, labels). Every text has an end token."""
        model, given = self.model, fed(self.model, input_ids)
        hidden = model.base_model(input_ids, attention_mask=attention_mask, **given, **self.options)[0]
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        last = torch.where(input_ids == model.config.eos_token_id, positions, 0).amax(1)
        state = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]
        logits: torch.Tensor = model.classification_head(state)
        return logits


class Answers(nn.Module):
    """Where an answer starts and ends, by a model that feeds the question and its text to its decoder as well."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.options = without_cache(model)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 (batch, sequence) -> start and end logits (batch, sequence)."""
        given = fed(self.model, input_ids)
        output = self.model(input_ids, attention_mask=attention_mask, **given, **self.options)
        return output.start_logits, output.end_logits


def fed(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a head's decoder is fed, where the base model does not make it of the ids in a way that can be traced."""
    if hasattr(model, "_shift_right"):
        return {"decoder_input_ids": model._shift_right(ids)}
    if model.config.model_type in ("mbart", "plbart"):
        # Their last token comes first. They squeeze it, which traced at another batch fails for one text.
        last = ids.ne(model.config.pad_token_id).sum(1, keepdim=True) - 1
        return {"decoder_input_ids": torch.cat([ids.gather(1, last), ids[:, :-1]], dim=1)}
    return {}
