"""Bidirectional text encoders (BERT and its kin) with their heads: one wrapper, model types as data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from converter import Architecture, Variant, hookimpl
from converter.plugins._ibert import whole_arithmetic
from converter.plugins._sentence import SentenceModel
from converter.plugins._text import CHOICE, SIMILARITY, TASKS, text_components
from converter.plugins._text import token_inputs as token_inputs

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
    "markuplm": {"max_depth": 4, "xpath_unit_hidden_size": 8},
    "megatron-bert": {},
    "mobilebert": {
        "embedding_size": 20,
        "intra_bottleneck_size": 24,
        "true_hidden_size": None,
        "normalization_type": "layer_norm",
    },
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

# Of questions about a page.
OTHERS = {("question-answering", "layoutlm"): "AutoModelForDocumentQuestionAnswering"}

# What transformers has no class for, or one that takes more than token ids.
WITHOUT: dict[str, tuple[str, ...]] = {
    "question-answering": ("esm", "esmc", "eurobert", "gte", "nomic_bert"),
    "fill-mask": ("lilt", "markuplm", "splinter"),
    "text-classification": ("splinter",),
    "token-classification": ("splinter",),
    CHOICE: (
        "deberta",
        "esm",
        "esmc",
        "eurobert",
        "gte",
        "jina_embeddings_v3",
        "layoutlm",
        "lilt",
        "markuplm",
    ),
}
WITHOUT[CHOICE] += ("nomic_bert", "splinter", "ultrabert")


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
                source=SentenceModel(
                    classes={task: OTHERS.get((task, model_type), TASKS[task][0]) for task in tasks},
                    tiny={**TINY, **extra},
                    model_type=model_type,
                    pooled=(SIMILARITY,),
                ),
                components=text_components,
                variants=dict.fromkeys(tasks, variants),
                patches=whole_arithmetic if model_type == "ibert" else nullcontext,
            )
        )
