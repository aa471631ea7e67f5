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
    Output,
    Size,
    TransformersModel,
    Variant,
    hookimpl,
)
from converter.errors import UsageError
from converter.plugins._generation import text_prompts
from converter.plugins._merged_decoder import (
    SOURCE,
    decoder_component,
    encoder_component,
    first_of,
    pair,
    scenario,
)

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch
    from torch import nn

    from converter.records import Checkpoint
    from converter.scenario import Scenario

TASK, CLASSES = "text2text-generation-with-past", "text-classification"

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
    "decoder_start_token_id": 0,
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

# Those that transformers has a classifier for, which reads the text twice: NLI models over BART are such.
CLASSIFIED = ("bart", "bigbird_pegasus", "mbart", "mt5", "mvp", "plbart", "t5", "umt5")


class Seq2SeqModel(TransformersModel):
    """An encoder-decoder, which is a classifier only where config.json names that class."""

    def default_task(self, checkpoint: Checkpoint) -> str:
        named = checkpoint.config.get("architectures") or ()
        return CLASSES if self.class_names(checkpoint).get(CLASSES) in named else TASK


def encoder_inputs(config: Any, size: Size) -> DummyInputs:
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
    if task == CLASSES:
        return (_classifier(config),)
    source = Axis("encoder_sequence_length", 7, high=40)
    encoder = encoder_component(partial(encoder_inputs, config), source)
    return encoder, decoder_component(config, source, masked=True)


def _classified_inputs(config: Any, size: Size) -> DummyInputs:
    """Texts with one end-of-text token each, the last that is real: the originals refuse others."""
    import torch

    from converter.plugins._text import token_inputs

    made = token_inputs(size, vocabulary=config.vocab_size, pad=config.pad_token_id or 0)
    ids, mask, end = made.tensors["input_ids"], made.tensors["attention_mask"], config.eos_token_id
    last = (mask * torch.arange(mask.shape[1])).argmax(dim=1, keepdim=True)
    ids = ids.where(ids != end, config.vocab_size - 1).scatter(1, last, end)
    return replace(made, tensors={**made.tensors, "input_ids": ids})


def _classifier(config: Any) -> Component:
    positions = getattr(config, "max_position_embeddings", None) or 40
    return Component(
        stem="model",
        wrapper=_end_classifier,
        inputs=partial(_classified_inputs, config),
        reference=_classified,
        axes=(Axis("batch_size", 2, high=6), Axis("sequence_length", 7, high=min(40, positions - 2))),
        outputs=(Output("logits", {0: "batch_size"}),),
    )


def _end_classifier(model: nn.Module) -> nn.Module:
    from converter.wrappers.seq2seq import EndClassifier

    return EndClassifier(model)


def _classified(model: nn.Module, tensors: Any) -> dict[str, torch.Tensor]:
    return {"logits": model(**tensors).logits}


def _scenarios(config: Any, task: str) -> Sequence[Scenario]:
    if task == CLASSES:
        return ()
    prompt = partial(text_prompts, first_of(config, "src_vocab_size", "vocab_size"))
    return (scenario(config, "greedy generation", prompt, masked=True),)


def _measure_kept_past(model: ir.Model) -> bool:
    from converter.passes.kept_past import measure_kept_past

    return measure_kept_past(model)


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    scores = (Variant("text", ("model",), "texts that end in their end-of-text token in, logits out"),)
    for model_type, tiny in FAMILY.items():
        classes = {TASK: "AutoModelForSeq2SeqLM"}
        if model_type in CLASSIFIED:
            classes[CLASSES] = "AutoModelForSequenceClassification"
        made = pair(Seq2SeqModel(classes, tiny, model_type), _components, "text", _scenarios)
        own = {task: made.variants[task] if task == TASK else scores for task in classes}
        register(replace(made, variants=own))


@hookimpl
def register_passes(register: Callable[[GraphPass], None]) -> None:
    # After every size is read off one input, before anything else looks at sizes.
    register(GraphPass("measure-kept-past", _measure_kept_past, 160))
