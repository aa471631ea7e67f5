"""Text in, hidden states or a head's logits out: what encoders and decoders share. Not a plugin itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import Axis, Component, DummyInputs, Output, Size
from converter.errors import UsageError
from converter.plugins._sentence import TOKENS, sentence_component

if TYPE_CHECKING:
    import torch
    from torch import nn

SIMILARITY, CHOICE = "sentence-similarity", "multiple-choice"

# task -> (class in transformers, the output fields it gives, whether they are per token)
TASKS: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "feature-extraction": ("AutoModel", ("last_hidden_state",), True),
    SIMILARITY: ("AutoModel", ("last_hidden_state",), True),
    "fill-mask": ("AutoModelForMaskedLM", ("logits",), True),
    "text-classification": ("AutoModelForSequenceClassification", ("logits",), False),
    "token-classification": ("AutoModelForTokenClassification", ("logits",), True),
    "question-answering": ("AutoModelForQuestionAnswering", ("start_logits", "end_logits"), True),
    CHOICE: ("AutoModelForMultipleChoice", ("logits",), False),
}


def padding_unknown(name: str) -> UsageError:
    """Of a classifier that cannot tell where a text ends: it takes no batch of several."""
    return UsageError(
        f"{name}: a classifier reads the last token before padding, and config.json names no padding",
        remedy='put the id that its tokenizer pads with into config.json, as "pad_token_id"',
    )


def token_inputs(size: Size, *, vocabulary: int, pad: int, segments: int = 0) -> DummyInputs:
    """Random token ids in which each row is padded on the asked side, the first row least."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    batch, length = size["batch_size"], size["sequence_length"]
    ids = torch.randint(0, vocabulary - 1, (batch, length), generator=generator)
    ids = ids + (ids >= pad)  # every id but the padding's: some models read positions off it
    mask = torch.ones(batch, length, dtype=torch.int64)
    if size.padding != "none":
        for row in range(batch):
            filler = min((row + 1) * max(1, length // 4), length - 1)
            span = slice(length - filler, length) if size.padding == "right" else slice(0, filler)
            mask[row, span] = 0
            ids[row, span] = pad
    tensors = {"input_ids": ids, "attention_mask": mask}
    if segments > 1:
        tensors["token_type_ids"] = torch.randint(0, segments, (batch, length), generator=generator)
    return DummyInputs(tensors, dict.fromkeys(tensors, TOKENS))


def text_inputs(config: Any, masked: tuple[str, ...], size: Size) -> DummyInputs:
    """Ids, mask and, where the model has several, segments. The outputs `masked` mean something at real tokens only."""
    inputs = token_inputs(
        size,
        vocabulary=config.vocab_size,
        pad=getattr(config, "pad_token_id", None) or 0,
        segments=getattr(config, "type_vocab_size", 0) or 0,
    )
    valid = inputs.tensors["attention_mask"].bool()
    return replace(inputs, valid=dict.fromkeys(masked, valid))


def page_inputs(config: Any, masked: tuple[str, ...], size: Size) -> DummyInputs:
    """Those of a text, and where its tokens stand on their page for models that look at that."""
    inputs = text_inputs(config, masked, size)
    places: dict[str, torch.Tensor] = {}
    if getattr(config, "max_2d_position_embeddings", None) is not None:
        places = _boxes(config, inputs.tensors["attention_mask"], size.seed)
    elif getattr(config, "max_xpath_tag_unit_embeddings", None) is not None:
        places = _paths(config, inputs.tensors["attention_mask"], size.seed)
    axes = {**inputs.axes, **dict.fromkeys(places, TOKENS)}
    return replace(inputs, tensors={**inputs.tensors, **places}, axes=axes)


def _boxes(config: Any, mask: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """On a scan (LayoutLM, LiLT): left, top, right and bottom; at padding all are 0."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    page = config.max_2d_position_embeddings
    corners = torch.randint(0, page, (*mask.shape, 2, 2), generator=generator).sort(dim=-2).values
    return {"bbox": corners.flatten(2) * mask[..., None]}


def _paths(config: Any, mask: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """In HTML (MarkupLM): tags that lead to a token and which of its kind each is, with filler up to a fixed depth."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    depths = torch.randint(1, config.max_depth + 1, mask.shape, generator=generator) * mask
    inside = torch.arange(config.max_depth) < depths[..., None]

    def steps(kinds: int, filler: int) -> torch.Tensor:
        return torch.where(inside, torch.randint(0, kinds, inside.shape, generator=generator), filler)

    tags = steps(config.max_xpath_tag_unit_embeddings, config.tag_pad_id)
    subscripts = steps(config.max_xpath_subs_unit_embeddings, config.subs_pad_id)
    return {"xpath_tags_seq": tags, "xpath_subs_seq": subscripts}


def choice_inputs(config: Any, size: Size) -> DummyInputs:
    """(batch, choices, sequence): every choice is a text of its own."""
    batch, choices = size["batch_size"], size["num_choices"]
    flat = text_inputs(config, (), replace(size, axes={**size.axes, "batch_size": batch * choices}))
    tensors = {name: tensor.view(batch, choices, -1) for name, tensor in flat.tensors.items()}
    axes = {0: "batch_size", 1: "num_choices", 2: "sequence_length"}
    return DummyInputs(tensors, dict.fromkeys(tensors, axes))


def longest_text(config: Any) -> int:
    """How long a text parity may try. RoBERTa and its kin count positions from behind the padding's id.

    T5's positions are relative and have no end.
    """
    pad = getattr(config, "pad_token_id", None) or 0
    room = int(getattr(config, "max_position_embeddings", 64))
    return min(48, room - 2 - (pad if pad < room // 2 else 0))


def text_components(config: Any, task: str) -> Sequence[Component]:
    """The one graph of a task."""
    _, fields, per_token = TASKS[task]
    axes: tuple[Axis, ...] = (
        Axis("batch_size", 2, high=6),
        Axis("sequence_length", 7, high=longest_text(config)),
    )
    if task == SIMILARITY:
        hidden = "token_embeddings"
        return (sentence_component(config, partial(text_inputs, config, (hidden,)), axes, hidden),)
    if task == CHOICE:
        return (
            _component(fields, partial(choice_inputs, config), (*axes, Axis("num_choices", 3, high=5)), 2),
        )
    inputs = partial(page_inputs, config, fields if per_token else ())
    return (_component(fields, inputs, axes, 2 if per_token else 1),)


def decoder_components(config: Any, task: str) -> Sequence[Component]:
    """A causal model as an encoder: hidden states, with the embedding its checkpoint asks for, or a classifier."""
    head = getattr(config, "sentence_head", None)
    if task != "feature-extraction" or not head:
        return text_components(config, task)
    axes = (Axis("batch_size", 2, high=6), Axis("sequence_length", 7, high=24))
    inputs = partial(text_inputs, config, ("last_hidden_state",))
    return (sentence_component(config, inputs, axes, "last_hidden_state"),)


def _component(fields: tuple[str, ...], inputs: Any, axes: tuple[Axis, ...], leading: int) -> Component:
    """`leading` dimensions of each output vary: the batch, and tokens or choices."""
    second = "num_choices" if len(axes) == 3 else "sequence_length"
    varying = dict(list({0: "batch_size", 1: second}.items())[:leading])
    return Component(
        stem="model",
        wrapper=partial(_wrapper, fields),
        inputs=inputs,
        reference=partial(_reference, fields),
        axes=axes,
        outputs=tuple(Output(field, varying) for field in fields),
    )


def _wrapper(fields: tuple[str, ...], model: nn.Module) -> nn.Module:
    from converter.wrappers.text_encoder import TextEncoder

    return TextEncoder(model, fields)


def _reference(fields: tuple[str, ...], model: nn.Module, tensors: Any) -> dict[str, torch.Tensor]:
    output = model(**tensors)
    return {field: output[field] for field in fields}
