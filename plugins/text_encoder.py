"""Bidirectional text encoders (BERT and its kin) with their heads: one wrapper, model types as data."""

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

TOKENS = {0: "batch_size", 1: "sequence_length"}

# task -> (class in transformers, the output fields it gives, whether they are per token)
TASKS: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "feature-extraction": ("AutoModel", ("last_hidden_state",), True),
    "fill-mask": ("AutoModelForMaskedLM", ("logits",), True),
    "text-classification": ("AutoModelForSequenceClassification", ("logits",), False),
    "token-classification": ("AutoModelForTokenClassification", ("logits",), True),
    "question-answering": ("AutoModelForQuestionAnswering", ("start_logits", "end_logits"), True),
}

# Two layers of odd sizes; what a model type calls differently is translated by its config's attribute map.
TINY = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 52,
    "vocab_size": 601,
    "max_position_embeddings": 70,
}

# One segment only, as their published checkpoints have it.
ONE_SEGMENT = {"type_vocab_size": 1}
LOW_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
XLM = {"emb_dim": 36, "n_layers": 2, "n_heads": 3, "hidden_size": None, "num_hidden_layers": None}
XLM["num_attention_heads"] = None

# model type -> what its tiny config needs beyond TINY
FAMILY: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 20},
    "bert": {},
    "big_bird": {"attention_type": "original_full"},
    "camembert": ONE_SEGMENT,
    "convbert": {"embedding_size": 20, "num_attention_heads": 6},
    "data2vec-text": ONE_SEGMENT,
    "deberta": {"pos_att_type": ["p2c", "c2p"], "relative_attention": True, "pooler_hidden_size": 36},
    "deberta-v2": {
        "pos_att_type": ["p2c", "c2p"],
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pooler_hidden_size": 36,
    },
    "distilbert": {"dim": 36, "hidden_dim": 52, "n_layers": 2, "n_heads": 3},
    "electra": {"embedding_size": 20},
    "ernie": {},
    "esm": {"pad_token_id": 1, "mask_token_id": 32, "position_embedding_type": "rotary"},
    "esmc": {"head_dim": 12, "num_key_value_heads": 3},
    "eurobert": {**LOW_IDS, "head_dim": None, "num_key_value_heads": 3, "mask_token_id": 4},
    "flaubert": XLM,
    "gte": {},
    "ibert": ONE_SEGMENT,
    "jina_embeddings_v3": {},
    "layoutlm": {},
    "lilt": {},
    "luke": {"entity_vocab_size": 30, "entity_emb_size": 20, "type_vocab_size": 1},
    "markuplm": {},
    "megatron-bert": {},
    "modernbert": {**LOW_IDS, "layer_types": None, "local_attention": 8},
    "mpnet": {},
    "nomic_bert": {"head_dim": None},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 4, "conv_kernel_size": 5},
    "rembert": {
        "input_embedding_size": 20,
        "output_embedding_size": 28,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "roberta": ONE_SEGMENT,
    "roberta-prelayernorm": ONE_SEGMENT,
    "roc_bert": {
        "pronunciation_vocab_size": 11,
        "pronunciation_embed_dim": 8,
        "shape_vocab_size": 13,
        "shape_embed_dim": 8,
    },
    "roformer": {"embedding_size": 20},
    "splinter": {},
    "squeezebert": {"embedding_size": 36, "num_attention_heads": 4},
    "ultrabert": {"head_dim": 12, "num_key_value_heads": 3, "layer_types": None, "sliding_window": 8},
    "xlm": XLM,
    "xlm-roberta": ONE_SEGMENT,
    "xlm-roberta-xl": ONE_SEGMENT,
    "xmod": {"type_vocab_size": 1, "default_language": "en_XX"},
    "yoso": {},
}

# What transformers has no class for, or one that takes more than token ids.
WITHOUT: dict[str, tuple[str, ...]] = {
    "question-answering": ("esm", "esmc", "eurobert", "gte", "layoutlm", "nomic_bert"),
    "fill-mask": ("lilt", "markuplm", "splinter"),
    "text-classification": ("splinter",),
    "token-classification": ("splinter",),
}


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


def _inputs(config: Any, fields: tuple[str, ...], per_token: bool, size: Size) -> DummyInputs:
    from dataclasses import replace

    pad = config.pad_token_id or 0
    inputs = token_inputs(
        size, vocabulary=config.vocab_size, pad=pad, segments=getattr(config, "type_vocab_size", 0) or 0
    )
    valid = inputs.tensors["attention_mask"].bool()
    return replace(inputs, valid=dict.fromkeys(fields, valid) if per_token else {})


def _wrapper(fields: tuple[str, ...], model: nn.Module) -> nn.Module:
    from converter.wrappers.text_encoder import TextEncoder

    return TextEncoder(model, fields)


def _reference(fields: tuple[str, ...], model: nn.Module, tensors: Any) -> dict[str, torch.Tensor]:
    output = model(**tensors)
    return {field: output[field] for field in fields}


def _components(config: Any, task: str) -> Sequence[Component]:
    _, fields, per_token = TASKS[task]
    longest = min(48, config.max_position_embeddings - 2 - (config.pad_token_id or 0))
    axes = TOKENS if per_token else {0: "batch_size"}
    return (
        Component(
            stem="model",
            wrapper=partial(_wrapper, fields),
            inputs=partial(_inputs, config, fields, per_token),
            reference=partial(_reference, fields),
            axes=(Axis("batch_size", 2, high=6), Axis("sequence_length", 7, high=longest)),
            outputs=tuple(Output(field, axes) for field in fields),
        ),
    )


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    variants = (Variant("text", ("model",), "token ids and mask in, hidden states or logits out"),)
    for model_type, extra in FAMILY.items():
        tasks = [task for task in TASKS if model_type not in WITHOUT.get(task, ())]
        register(
            Architecture(
                name=model_type.replace("-", "_"),
                model_types=(model_type,),
                summary="bidirectional text encoder and its heads",
                reference_checkpoint="sentence-transformers/all-MiniLM-L6-v2" if model_type == "bert" else "",
                source=TransformersModel(
                    classes={task: TASKS[task][0] for task in tasks},
                    tiny={**TINY, **extra},
                    model_type=model_type,
                ),
                components=_components,
                variants=dict.fromkeys(tasks, variants),
            )
        )
