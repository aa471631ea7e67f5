"""Causal language models with past key values: one wrapper, model types as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import (
    Architecture,
    Axis,
    Component,
    DummyInputs,
    Output,
    Size,
    TransformersModel,
    Variant,
    hookimpl,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 52,
    "vocab_size": 601,
    "max_position_embeddings": 128,
    "layer_types": None,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

# model type -> what its tiny config needs beyond TINY
FAMILY: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 6},
    "qwen2": {"head_dim": None},
    "qwen3": {},
}

NEW = {0: "batch_size", 1: "sequence_length"}
TOTAL = {0: "batch_size", 1: "total_sequence_length"}
PAST = {0: "batch_size", 2: "past_sequence_length"}
PRESENT = {0: "batch_size", 2: "total_sequence_length"}


def head_shape(config: Any) -> tuple[int, int]:
    """(key-value heads, head size) of every layer."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return heads, size


def names(prefix: str, config: Any) -> list[str]:
    """`prefix.N.key`, `prefix.N.value` for each layer N."""
    return [
        f"{prefix}.{layer}.{part}" for layer in range(config.num_hidden_layers) for part in ("key", "value")
    ]


def _inputs(config: Any, with_past: bool, size: Size) -> DummyInputs:
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    batch, new = size["batch_size"], size["sequence_length"]
    past = size["past_sequence_length"] if with_past else 0
    mask = padded_mask(batch, past + new, size)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, past:]
    tensors = {
        "input_ids": torch.randint(0, config.vocab_size, (batch, new), generator=generator),
        "attention_mask": mask,
        "position_ids": positions,
    }
    axes: dict[str, dict[int, str]] = {
        "input_ids": NEW,
        "attention_mask": TOTAL if with_past else NEW,
        "position_ids": NEW,
    }
    real = mask.bool()
    valid = {"logits": real[:, past:]}
    if with_past:
        heads, width = head_shape(config)
        for name in names("past_key_values", config):
            tensors[name] = torch.randn(batch, heads, past, width, generator=generator)
            axes[name] = PAST
        valid.update(dict.fromkeys(names("present", config), real[:, None, :]))
    return DummyInputs(tensors, axes, valid)


def padded_mask(batch: int, length: int, size: Size) -> torch.Tensor:
    """int64 (batch, length): each row padded on the asked side, later rows more, one token always left."""
    import torch

    mask = torch.ones(batch, length, dtype=torch.int64)
    for row in range(batch if size.padding != "none" else 0):
        filler = min((row + 1) * max(1, length // 4), length - 1)
        mask[row, slice(length - filler, length) if size.padding == "right" else slice(0, filler)] = 0
    return mask


def _wrapper(with_past: bool, model: nn.Module) -> nn.Module:
    from converter.wrappers.decoder import Decoder, DecoderWithPast

    return DecoderWithPast(model) if with_past else Decoder(model)


def _reference(with_past: bool, model: nn.Module, tensors: Any) -> dict[str, torch.Tensor]:
    from converter.wrappers.decoder import cache_of, flat

    past = {name: tensor for name, tensor in tensors.items() if name.startswith("past_key_values")}
    rest = {name: tensor for name, tensor in tensors.items() if name not in past}
    if not with_past:
        return {"logits": model(**rest, use_cache=False).logits}
    config: Any = model.config
    cache = cache_of(past)
    logits = model(**rest, past_key_values=cache, use_cache=True).logits
    return {"logits": logits, **dict(zip(names("present", config), flat(cache), strict=True))}


def _components(config: Any, task: str) -> Sequence[Component]:
    with_past = task.endswith("with-past")
    longest = min(24, config.max_position_embeddings // 2)
    axes = [Axis("batch_size", 2, high=5), Axis("sequence_length", 3, high=longest)]
    outputs = [Output("logits", NEW)]
    if with_past:
        axes.append(Axis("past_sequence_length", 5, low=0, high=longest))
        outputs += [Output(name, PRESENT) for name in names("present", config)]
    return (
        Component(
            stem="model",
            wrapper=partial(_wrapper, with_past),
            inputs=partial(_inputs, config, with_past),
            reference=partial(_reference, with_past),
            axes=tuple(axes),
            outputs=tuple(outputs),
        ),
    )


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    variant = (Variant("text", ("model",), "prefill and decode in one graph"),)
    plain = (Variant("text", ("model",), "logits for a whole sequence"),)
    for model_type, extra in FAMILY.items():
        register(
            Architecture(
                name=model_type,
                model_types=(model_type,),
                summary="causal language model",
                reference_checkpoint="",
                source=TransformersModel(
                    classes=dict.fromkeys(
                        ("text-generation-with-past", "text-generation"), "AutoModelForCausalLM"
                    ),
                    tiny={**TINY, **extra},
                    model_type=model_type,
                ),
                components=_components,
                variants={"text-generation-with-past": variant, "text-generation": plain},
            )
        )
