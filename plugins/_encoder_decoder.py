"""Encoder-decoders whose checkpoints may be less than that: an encoder alone, or a head. Not a plugin itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import Axis, Component, DummyInputs, Output, Size
from converter.errors import UsageError
from converter.plugins._sentence import SentenceModel
from converter.plugins._text import SIMILARITY, TASKS, longest_text, text_components, text_inputs
from converter.sentence_modules import embeds

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from converter.recipes import WeightRecipe
    from converter.records import Checkpoint

FEATURES, CLASSES = "feature-extraction", "text-classification"
TOKENS, ANSWERS = "token-classification", "question-answering"
# The tasks of the encoder alone.
ENCODED = (FEATURES, SIMILARITY)


@dataclass(frozen=True)
class EncoderDecoder(SentenceModel):
    """An encoder-decoder. Its first task generates; further ones are those of its encoder alone, and of its heads."""

    def default_task(self, checkpoint: Checkpoint) -> str:
        """As of other models; one whose config.json names no class with a task generates, if it has a decoder."""
        classes = list(self.class_names(checkpoint).values())
        named = checkpoint.config.get("architectures") or ()
        usual = next(iter(self.classes))
        pooled = FEATURES in self.classes and embeds(checkpoint.root)
        if classes[0] in named and not pooled:  # files of BART name several classes
            return usual
        if pooled or set(classes) & set(named) or self.strangers(checkpoint):
            return super().default_task(checkpoint)
        return FEATURES if FEATURES in self.classes and not _has(checkpoint.tensors, "decoder") else usual

    def key_mapping(self, model: nn.Module, checkpoint: Checkpoint) -> Mapping[str, WeightRecipe]:
        """Raises UsageError, before anything is traced, for a checkpoint of other parts than the task needs."""
        mapping = super().key_mapping(model, checkpoint)
        named, kind = checkpoint.config.get("architectures") or (), type(model).__name__
        for side in ("encoder", "decoder"):
            wanted = [name for name, _ in model.named_parameters()]
            if _has(wanted, side) and not _has(mapping, side):
                raise UsageError(
                    f"{checkpoint.source} has no {side}, which {kind} needs; its config.json names"
                    f" {', '.join(named) or 'no class'}",
                    remedy="leave --task out to have it found, or convert a checkpoint of the whole model",
                )
        whole = kind == self.classes.get(FEATURES) and _has(checkpoint.tensors, "decoder")
        if whole and kind not in named and not embeds(checkpoint.root):
            raise UsageError(
                f"{checkpoint.source} is a whole encoder-decoder, and the task is one of its encoder alone",
                remedy=f'put "architectures": ["{kind}"] into its config.json to convert the encoder and no more',
            )
        return mapping


def _has(names: Iterable[str], side: str) -> bool:
    """Whether a first layer of the encoder or the decoder is among these parameters: `decoder.block.0.`."""
    layer = re.compile(rf"\b{side}\.\w+\.0\.")
    return any(layer.search(name) for name in names)


def head_components(config: Any, task: str) -> Sequence[Component]:
    """The one graph of a task that does not generate."""
    if task == ANSWERS:
        return tuple(replace(component, wrapper=_answers) for component in text_components(config, task))
    if task != CLASSES:
        return text_components(config, task)
    if getattr(config, "decoder_start_token_id", None) is None:
        raise UsageError(
            f"{config.model_type}: config.json has no decoder_start_token_id, without which no classifier of it runs",
            remedy="write the one it was trained with; T5's is its pad_token_id",
        )
    return (
        Component(
            stem="model",
            wrapper=_classifier,
            inputs=partial(_ended_inputs, config),
            reference=_classify,
            axes=(Axis("batch_size", 2, high=6), Axis("sequence_length", 7, high=longest_text(config))),
            outputs=(Output("logits", {0: "batch_size"}),),
        ),
    )


def head_class(task: str) -> str:
    return TASKS[task][0]


def _ended_inputs(config: Any, size: Size) -> DummyInputs:
    """Texts that end in the one token at which these classifiers are read, as their tokenizers end them."""
    import torch

    inputs = text_inputs(config, (), size)
    ids, mask = inputs.tensors["input_ids"], inputs.tensors["attention_mask"]
    end = config.eos_token_id
    ids = ids.where(ids != end, end + 1)
    last = (mask * torch.arange(mask.shape[1])).amax(1, keepdim=True)
    return replace(inputs, tensors={**inputs.tensors, "input_ids": ids.scatter(1, last, end)})


def _classifier(model: nn.Module) -> nn.Module:
    from converter.wrappers.seq2seq import Classifier

    return Classifier(model)


def _answers(model: nn.Module) -> nn.Module:
    from converter.wrappers.seq2seq import Answers

    return Answers(model)


def _classify(model: nn.Module, tensors: Any) -> dict[str, torch.Tensor]:
    return {"logits": model(**tensors).logits}
