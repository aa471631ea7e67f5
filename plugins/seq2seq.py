"""Encoder-decoder text models: an encoder graph, and one decoder graph for first and later steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

TASK = "text2text-generation-with-past"

T5 = {
    "d_model": 32,
    "d_kv": 7,
    "d_ff": 52,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "vocab_size": 601,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
}
BART = {
    "d_model": 36,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 52,
    "decoder_ffn_dim": 44,
    "vocab_size": 601,
    "max_position_embeddings": 70,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
    "decoder_start_token_id": 2,
}

# model type -> its tiny config
FAMILY: dict[str, dict[str, Any]] = {
    "t5": T5,
    "mt5": T5,
    "umt5": T5,
    "bart": BART,
    "mbart": BART,
    "m2m_100": BART,
    "plbart": BART,
    "mvp": BART,
}

SOURCE = {0: "batch_size", 1: "encoder_sequence_length"}
NEW = {0: "batch_size", 1: "decoder_sequence_length"}
CACHED = {
    "decoder": {0: "batch_size", 2: "past_decoder_sequence_length"},
    "encoder": {0: "batch_size", 2: "past_encoder_sequence_length"},
}
PRESENT = {
    "decoder": {0: "batch_size", 2: "total_decoder_sequence_length"},
    "encoder": {0: "batch_size", 2: "encoder_sequence_length"},
}


def cache_names(prefix: str, config: Any) -> list[tuple[str, str]]:
    """(`prefix.N.decoder|encoder.key|value`, which of the two) for each layer, in graph order."""
    layers = getattr(config, "num_decoder_layers", None) or config.decoder_layers
    return [
        (f"{prefix}.{layer}.{side}.{part}", side)
        for layer in range(layers)
        for side in ("decoder", "encoder")
        for part in ("key", "value")
    ]


def head_shape(config: Any) -> tuple[int, int]:
    """(heads, head size) of the decoder."""
    if hasattr(config, "d_kv"):
        return config.num_heads, config.d_kv
    heads: int = config.decoder_attention_heads
    return heads, config.d_model // heads


def encoder_inputs(config: Any, size: Size) -> DummyInputs:
    from dataclasses import replace

    from converter.plugins._text import token_inputs

    renamed = {"batch_size": size["batch_size"], "sequence_length": size["encoder_sequence_length"]}
    made = token_inputs(
        replace(size, axes=renamed), vocabulary=config.vocab_size, pad=config.pad_token_id or 0
    )
    valid = {"last_hidden_state": made.tensors["attention_mask"].bool()}
    return DummyInputs(made.tensors, dict.fromkeys(made.tensors, SOURCE), valid)


def decoder_inputs(config: Any, masked: bool, size: Size) -> DummyInputs:
    """Without past the first step, with past a later one, which has one of the encoder's length too."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    batch, past, source = (
        size[name] for name in ("batch_size", "past_decoder_sequence_length", "encoder_sequence_length")
    )
    tensors = (
        {"encoder_attention_mask": encoder_inputs(config, size).tensors["attention_mask"]} if masked else {}
    )
    new = size["decoder_sequence_length"]
    tensors["input_ids"] = torch.randint(0, config.vocab_size - 1, (batch, new), generator=generator)
    tensors["encoder_hidden_states"] = torch.randn(batch, source, config.d_model, generator=generator)
    axes: dict[str, Mapping[int, str]] = {name: NEW if name == "input_ids" else SOURCE for name in tensors}
    heads, width = head_shape(config)
    lengths = {"decoder": past, "encoder": source if past else 0}
    for name, side in cache_names("past_key_values", config):
        tensors[name] = torch.randn(batch, heads, lengths[side], width, generator=generator)
        axes[name] = CACHED[side]
    tensors["use_cache_branch"] = torch.tensor([past > 0])
    return DummyInputs(tensors, axes)


def _encoder(model: nn.Module) -> nn.Module:
    from converter.wrappers.seq2seq import Encoder

    return Encoder(model)


def _decoder(model: nn.Module) -> nn.Module:
    from converter.wrappers.seq2seq import DecoderMerged

    return DecoderMerged(model)


def encoder_reference(model: Any, tensors: Any) -> dict[str, torch.Tensor]:
    return {"last_hidden_state": model.get_encoder()(**tensors).last_hidden_state}


def decoder_reference(model: Any, tensors: Any) -> dict[str, torch.Tensor]:
    """As `generate` calls it: with no cache at first, then with the one it made."""
    from transformers import DynamicCache, EncoderDecoderCache
    from transformers.modeling_outputs import BaseModelOutput

    from converter.wrappers.decoder import fill
    from converter.wrappers.seq2seq import present

    config = model.config
    cache: Any = None
    if bool(tensors["use_cache_branch"]):
        sides = {
            side: {
                name: tensors[name] for name, owner in cache_names("past_key_values", config) if owner == side
            }
            for side in ("decoder", "encoder")
        }
        cache = EncoderDecoderCache(
            fill(DynamicCache(), sides["decoder"]), fill(DynamicCache(), sides["encoder"])
        )
    output = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=tensors["encoder_hidden_states"]),
        attention_mask=tensors.get("encoder_attention_mask"),
        decoder_input_ids=tensors["input_ids"],
        past_key_values=cache,
        use_cache=True,
    )
    names = [name for name, _ in cache_names("present", config)]
    return {"logits": output.logits, **dict(zip(names, present(output.past_key_values), strict=True))}


def cross_attention_in_onnx() -> Mapping[Any, Any]:
    """The lowering of `converter.wrappers.seq2seq.cross_attention_state`."""
    import torch
    from onnxscript import opset18 as op

    import converter.wrappers.seq2seq  # noqa: F401  (defines the op)

    def cross_attention_state(
        hidden: Any, weight: Any, bias: Any, past: Any, use_past: Any, heads: int
    ) -> Any:
        zero, everything = op.Constant(value_ints=[0]), op.Constant(value_ints=[2**31 - 1])
        fresh = op.Slice(hidden, zero, op.Where(use_past, zero, everything), op.Constant(value_ints=[1]))
        states = op.MatMul(fresh, op.Transpose(weight, perm=[1, 0]))
        if bias is not None:
            states = op.Add(states, bias)
        size = op.Div(op.Shape(weight, start=0, end=1), op.Constant(value_ints=[heads]))
        shape = op.Concat(op.Shape(fresh, start=0, end=2), op.Constant(value_ints=[heads]), size, axis=0)
        # The length is 0 where there is a past, which Reshape takes for "as it was" unless told otherwise.
        states = op.Transpose(op.Reshape(states, shape, allowzero=1), perm=[0, 2, 1, 3])
        kept = op.Slice(past, zero, op.Where(use_past, everything, zero), op.Constant(value_ints=[2]))
        return op.Concat(kept, states, axis=2)

    return {torch.ops.converter.cross_attention_state.default: cross_attention_state}


def decoder_component(config: Any, source: Axis, *, masked: bool) -> Component:
    """`masked` says whether the decoder is told of padding among the encoder's positions."""
    outputs = [Output("logits", NEW)]
    outputs += [Output(name, PRESENT[side]) for name, side in cache_names("present", config)]
    return Component(
        stem="decoder_model_merged",
        wrapper=_decoder,
        inputs=partial(decoder_inputs, config, masked),
        reference=decoder_reference,
        axes=(
            Axis("batch_size", 2, high=5),
            Axis("decoder_sequence_length", 3, high=12),
            Axis("past_decoder_sequence_length", 5, low=0, high=12),
            source,
        ),
        outputs=tuple(outputs),
    )


def _components(config: Any, task: str) -> Sequence[Component]:
    source = Axis("encoder_sequence_length", 7, high=40)
    encoder = Component(
        stem="encoder_model",
        wrapper=_encoder,
        inputs=partial(encoder_inputs, config),
        reference=encoder_reference,
        axes=(Axis("batch_size", 2, high=5), source),
        outputs=(Output("last_hidden_state", SOURCE),),
    )
    return encoder, decoder_component(config, source, masked=True)


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    variant = Variant(
        "text",
        ("encoder_model", "decoder_model_merged"),
        "an encoder, and a decoder whose first step has no past and use_cache_branch false",
    )
    for model_type, tiny in FAMILY.items():
        register(
            Architecture(
                name=model_type.replace("-", "_"),
                model_types=(model_type,),
                summary="encoder-decoder text model",
                reference_checkpoint="",
                source=TransformersModel(
                    classes={TASK: "AutoModelForSeq2SeqLM"}, tiny=tiny, model_type=model_type
                ),
                components=_components,
                variants={TASK: (variant,)},
                translations=cross_attention_in_onnx,
            )
        )
