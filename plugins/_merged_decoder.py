"""What encoder-decoder models share: an encoder graph, and one decoder graph for first and later steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import Architecture, Axis, Component, DummyInputs, Output, Size, TransformersModel, Variant
from converter.plugins._generation import encoder_decoder_scenario

if TYPE_CHECKING:
    import torch
    from torch import nn

    from converter.scenario import Scenario

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


def first_of(config: Any, *names: str) -> int:
    """The first of these entries that a config has: what configs call one thing differs."""
    value: int = next(getattr(config, name) for name in names if getattr(config, name, None) is not None)
    return value


def cache_names(prefix: str, config: Any) -> list[tuple[str, str]]:
    """(`prefix.N.decoder|encoder.key|value`, which of the two) for each layer, in graph order."""
    layers = first_of(config, "num_decoder_layers", "decoder_layers", "decoder_num_hidden_layers")
    return [
        (f"{prefix}.{layer}.{side}.{part}", side)
        for layer in range(layers)
        for side in ("decoder", "encoder")
        for part in ("key", "value")
    ]


def width(config: Any) -> int:
    """Of the hidden states."""
    return first_of(config, "d_model", "hidden_size")


def head_shape(config: Any) -> tuple[int, int]:
    """(key and value heads, head size) of the decoder."""
    if hasattr(config, "d_kv"):
        return config.num_heads, config.d_kv
    heads = first_of(
        config, "decoder_attention_heads", "num_decoder_attention_heads", "decoder_num_attention_heads"
    )
    shared = getattr(config, "decoder_num_key_value_heads", None) or heads
    return shared, width(config) // heads


def encoder_mask(size: Size) -> torch.Tensor:
    """Of the encoder's positions, padded on the asked side: int64 (batch, encoder length)."""
    from dataclasses import replace

    from converter.plugins.text_encoder import token_inputs

    renamed = {"batch_size": size["batch_size"], "sequence_length": size["encoder_sequence_length"]}
    return token_inputs(replace(size, axes=renamed), vocabulary=9, pad=0).tensors["attention_mask"]


def decoder_inputs(config: Any, hidden: int, masked: bool, size: Size) -> DummyInputs:
    """Without past the first step, with past a later one, which has one of the encoder's length too.

    `hidden` is the width of the encoder's states. An odd batch comes with a dummy past of length 1 at the first step,
    as optimum sends it; it must not matter.
    """
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    batch, past, source = (
        size[name] for name in ("batch_size", "past_decoder_sequence_length", "encoder_sequence_length")
    )
    tensors = {"encoder_attention_mask": encoder_mask(size)} if masked else {}
    new, dummy = size["decoder_sequence_length"], batch % 2
    vocabulary = first_of(config, "tgt_vocab_size", "decoder_vocab_size", "vocab_size")
    tensors["input_ids"] = torch.randint(3, vocabulary - 1, (batch, new), generator=generator)
    tensors["encoder_hidden_states"] = torch.randn(batch, source, hidden, generator=generator)
    axes: dict[str, Mapping[int, str]] = {name: NEW if name == "input_ids" else SOURCE for name in tensors}
    heads, dim = head_shape(config)
    lengths = {"decoder": past or dummy, "encoder": source if past else dummy}
    for name, side in cache_names("past_key_values", config):
        tensors[name] = torch.randn(batch, heads, lengths[side], dim, generator=generator)
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


def decoder_reference(config: Any, model: Any, tensors: Any) -> dict[str, torch.Tensor]:
    """As `generate` calls it: with no cache at first, then with the one it made."""
    from transformers import DynamicCache, EncoderDecoderCache

    from converter.wrappers.decoder import fill
    from converter.wrappers.seq2seq import encoder_output, present

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
        encoder_outputs=encoder_output(tensors["encoder_hidden_states"]),
        attention_mask=tensors.get("encoder_attention_mask"),
        decoder_input_ids=tensors["input_ids"],
        cache=cache,
        use_cache=True,
    )
    names = [name for name, _ in cache_names("present", config)]
    return {"logits": output.logits, **dict(zip(names, present(output.cache), strict=True))}


def cross_attention_in_onnx() -> Mapping[Any, Any]:
    """The lowering of the ops that `converter.wrappers.seq2seq` defines."""
    import torch
    from onnxscript import opset18 as op

    import converter.wrappers.seq2seq  # noqa: F401  (defines the ops)

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
        return op.Concat(kept_past(past, use_past), states, axis=2)

    def kept_past(past: Any, use_past: Any) -> Any:
        zero, everything = op.Constant(value_ints=[0]), op.Constant(value_ints=[2**31 - 1])
        return op.Slice(past, zero, op.Where(use_past, everything, zero), op.Constant(value_ints=[2]))

    ops = torch.ops.converter
    return {ops.cross_attention_state.default: cross_attention_state, ops.kept_past.default: kept_past}


def encoder_component(
    inputs: Callable[[Size], DummyInputs], *lengths: Axis, hidden: Mapping[int, str] = SOURCE
) -> Component:
    """`lengths` are the axes beside the batch that the encoder's inputs have."""
    return Component(
        stem="encoder_model",
        wrapper=_encoder,
        inputs=inputs,
        reference=encoder_reference,
        axes=(Axis("batch_size", 2, high=5), *lengths),
        outputs=(Output("last_hidden_state", hidden),),
    )


def decoder_component(config: Any, source: Axis, *, masked: bool, hidden: int | None = None) -> Component:
    """`config` is the decoder's, `hidden` the width of the encoder's states where it is another.

    `masked` says whether the decoder is told of padding among the encoder's positions.
    """
    outputs = [Output("logits", NEW)]
    outputs += [Output(name, PRESENT[side]) for name, side in cache_names("present", config)]
    return Component(
        stem="decoder_model_merged",
        wrapper=_decoder,
        inputs=partial(decoder_inputs, config, hidden or width(config), masked),
        reference=partial(decoder_reference, config),
        axes=(
            Axis("batch_size", 2, high=5),
            Axis("decoder_sequence_length", 3, high=12),
            Axis("past_decoder_sequence_length", 5, low=0, high=12),
            source,
        ),
        outputs=tuple(outputs),
    )


def scenario(
    config: Any, name: str, prompt: Callable[[int], dict[str, torch.Tensor]], *, masked: bool
) -> Scenario:
    """Greedy tokens from what the encoder is prompted with."""
    cache = [(entry.removeprefix("."), head_shape(config)) for entry, _ in cache_names("", config)]
    named = getattr(config, "decoder_start_token_id", None)  # left out where it is the padding's
    start = config.pad_token_id if named is None else named
    return encoder_decoder_scenario(name, prompt, start, cache, masked=masked)


def pair(
    source: TransformersModel,
    components: Callable[[Any, str], Sequence[Component]],
    what: str,
    scenarios: Callable[[Any, str], Sequence[Scenario]],
    *,
    variant: str = "text",
    checkpoint: str = "",
) -> Architecture:
    """An architecture of two graphs, whose encoder takes `what`."""
    summary = f"an encoder of {what}, and a decoder whose first step has no past and use_cache_branch false"
    stems = ("encoder_model", "decoder_model_merged")
    return Architecture(
        name=source.model_type.replace("-", "_"),
        model_types=(source.model_type,),
        summary=f"encoder-decoder of {what}",
        reference_checkpoint=checkpoint,
        source=source,
        components=components,
        scenarios=scenarios,
        variants={task: (Variant(variant, stems, summary),) for task in source.classes},
        translations=cross_attention_in_onnx,
    )
