"""Encoder-decoder text models: one wrapper, model types as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import (
    Architecture,
    Axis,
    Component,
    DummyInputs,
    GraphPass,
    Size,
    Variant,
    hookimpl,
)
from converter.errors import UsageError
from converter.plugins._encoder_decoder import (
    ANSWERS,
    CLASSES,
    ENCODED,
    TOKENS,
    EncoderDecoder,
    head_class,
    head_components,
)
from converter.plugins._generation import text_prompts
from converter.plugins._merged_decoder import (
    SOURCE,
    decoder_component,
    encoder_component,
    first_of,
    pair,
    scenario,
)
from converter.plugins._text import SIMILARITY

if TYPE_CHECKING:
    import onnx_ir as ir

    from converter.scenario import Scenario

TASK = "text2text-generation-with-past"

T5 = {
    "d_model": 32,
    "d_kv": 7,
    "d_ff": 52,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "vocab_size": 601,
    "decoder_start_token_id": 0,
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
    "bart": BART,
    "bigbird_pegasus": {**BART, "attention_type": "original_full"},
    "blenderbot": BART,
    "blenderbot-small": BART,
    "fsmt": {**BART, "src_vocab_size": 601, "tgt_vocab_size": 587, "langs": ["en", "de"]},
    "longt5": {**T5, "local_radius": 3, "global_block_size": 4},
    "m2m_100": BART,
    "marian": {**BART, "decoder_vocab_size": 601},
    "mbart": BART,
    "mt5": T5,
    "mvp": BART,
    "pegasus": BART,
    "pegasus_x": {**BART, "block_size": 4, "num_global_tokens": 3},
    "plbart": BART,
    "t5": T5,
    "umt5": T5,
}

# Encoders that are deployed alone: sentence-t5, GTR, the text encoders of diffusion models.
ENCODERS = {
    "longt5": "LongT5EncoderModel",
    "mt5": "MT5EncoderModel",
    "t5": "T5EncoderModel",
    "umt5": "UMT5EncoderModel",
}
ONE = (Variant("text", ("model",), "token ids and mask in, hidden states or logits out"),)
# task -> the types that have a class for it
HEADS: dict[str, tuple[str, ...]] = {
    CLASSES: ("bart", "bigbird_pegasus", "mbart", "mt5", "mvp", "plbart", "t5", "umt5"),
    TOKENS: ("mt5", "t5", "umt5"),
    ANSWERS: ("bart", "bigbird_pegasus", "mbart", "mt5", "mvp", "t5", "umt5"),
}


def encoder_inputs(config: Any, size: Size) -> DummyInputs:
    from dataclasses import replace

    from converter.plugins._text import token_inputs

    renamed = {"batch_size": size["batch_size"], "sequence_length": size["encoder_sequence_length"]}
    vocabulary = first_of(config, "src_vocab_size", "vocab_size")
    made = token_inputs(replace(size, axes=renamed), vocabulary=vocabulary, pad=config.pad_token_id or 0)
    valid = {"last_hidden_state": made.tensors["attention_mask"].bool()}
    return DummyInputs(made.tensors, dict.fromkeys(made.tensors, SOURCE), valid)


def _components(config: Any, task: str) -> Sequence[Component]:
    if getattr(config, "attention_type", "original_full") != "original_full":
        raise UsageError(
            f"{config.model_type}: block-sparse attention turns on by the length of the text, which a graph cannot",
            remedy='put "attention_type": "original_full" into config.json: the same weights with exact attention',
        )
    if task != TASK:
        return head_components(config, task)
    source = Axis("encoder_sequence_length", 7, high=40)
    encoder = encoder_component(partial(encoder_inputs, config), source)
    return encoder, decoder_component(config, source, masked=True)


def _scenarios(config: Any, task: str) -> Sequence[Scenario]:
    if task != TASK:
        return ()
    prompt = partial(text_prompts, first_of(config, "src_vocab_size", "vocab_size"))
    return (scenario(config, "greedy generation", prompt, masked=True),)


def _classes(model_type: str) -> dict[str, str]:
    """task -> class in transformers; the first is what these models are made for."""
    encoder = ENCODERS.get(model_type)
    classes = {TASK: "AutoModelForSeq2SeqLM", **(dict.fromkeys(ENCODED, encoder) if encoder else {})}
    return classes | {task: head_class(task) for task, types in HEADS.items() if model_type in types}


def _measure_kept_past(model: ir.Model) -> bool:
    from converter.passes.kept_past import measure_kept_past

    return measure_kept_past(model)


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    for model_type, tiny in FAMILY.items():
        source = EncoderDecoder(_classes(model_type), tiny, model_type, pooled=(SIMILARITY,))
        made = pair(source, _components, "text", _scenarios)
        register(replace(made, variants={**dict.fromkeys(source.classes, ONE), TASK: made.variants[TASK]}))


@hookimpl
def register_passes(register: Callable[[GraphPass], None]) -> None:
    # After every size is read off one input, before anything else looks at sizes.
    register(GraphPass("measure-kept-past", _measure_kept_past, 160))
