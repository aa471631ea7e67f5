"""A small config out of a large one, by the names of its entries. Not a plugin itself: it registers nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# (pattern of the name, value), the first that matches. Sizes are odd where models leave them free, and agree where
# they must: 4 heads of 8 make 32, two of them share keys and values.
COUNTS: list[tuple[str, int]] = [
    (r"num_(hidden_|encoder_|decoder_)?layers|n_layers?|(encoder|decoder)_layers|.*num_blocks|depth", 2),
    (r".*num_hidden_layers|.*num_(encoder|decoder)_layers|.*_num_layers", 2),
    (r".*vocab_size", 601),
    (r"(num_key_value_heads|num_kv_heads|n_kv_heads|multi_query_group_num)", 2),
    (r"(.*num_.*heads|n_heads?|heads|(encoder_|decoder_)?attention_heads|.*_attention_heads)", 4),
    (r"kv_lora_rank", 12),
    (r"q_lora_rank", 20),
    (r"qk_rope_head_dim", 4),
    (r"qk_nope_head_dim", 6),
    (r"v_head_dim|.*head_dim|d_kv|key_dim", 8),
    (r"moe_intermediate_size|expert_ffn_hidden_size", 20),
    (r".*(intermediate|ffn|feed_?forward|mlp|inner).*(size|dim)|d_ff|n_inner|d_inner|ffn_hidden_size", 52),
    (r"(hidden_size|d_model|n_embd|embed_dim|emb_dim|model_dim|dim|hidden_dim|.*_hidden_size|d_embed)", 32),
    (
        r"(embedding_size|projection_dim|.*_projection_size|pooler_output_size|.*_embed_dim|.*embedding_dim)",
        32,
    ),
    (r"(n_routed_experts|num_experts|num_local_experts|moe_num_experts)", 5),
    (r"(num_experts_per_tok|top_k|moe_k|num_selects|moe_topk|num_experts_per_token)", 2),
    (r"(n_group|topk_group|first_k_dense_replace)", 1),
    (r"(max_position_embeddings|n_positions|max_seq_len|n_ctx|max_sequence_length)", 128),
    (r"image_size|input_size|img_size", 32),
    (r"patch_size", 4),
    (r"sliding_window|attention_window|window_size|local_attention|attention_chunk_size", 6),
    (r"max_source_positions", 30),
    (r"num_mel_bins", 16),
    (r"num_queries|num_detection_tokens", 7),
]
# Entries that say something for each layer, which the config works out again from their number.
PER_LAYER = re.compile(
    r"layer_types|.*_layer_types|layers_block_type|no_rope_layers|attention_layers|mlp_layer_types"
)
SPECIAL = re.compile(r".*token_(id|index)$|.*_token$")
# What a config says of itself, not of the model.
KEPT = {"model_type", "transformers_version", "architectures", "auto_map", "dtype", "num_labels"}


def shrunk(entries: Mapping[str, Any], *, depth: int = 2, widths: bool = True) -> dict[str, Any]:
    """The same kind of model, small. With `widths` off only its depth, its vocabulary and its images are cut."""
    small: dict[str, Any] = {}
    for name, value in entries.items():
        if name in KEPT or value is None:
            small[name] = value
        elif isinstance(value, Mapping):
            small[name] = (
                shrunk(value, depth=depth, widths=widths) if name.endswith(("_config", "config")) else value
            )
        elif PER_LAYER.fullmatch(name):
            continue
        elif isinstance(value, list) and widths and value and all(type(item) is int for item in value):
            small[name] = shorter(name, value)
        elif type(value) is int:
            small[name] = fewer(name, value, depth, widths)
        else:
            small[name] = value
    return small


def fewer(name: str, value: int, depth: int, widths: bool) -> int:
    """A count or a size, no larger than it was; ids of special tokens find room in the small vocabulary."""
    if SPECIAL.fullmatch(name):
        return value if value < 601 else 10 + sum(map(ord, name)) % 500
    rules = COUNTS if widths else COUNTS[:3]
    for place, (pattern, small) in enumerate(rules):
        if re.fullmatch(pattern, name):
            return min(value, depth if place < 2 else small)
    return value


def shorter(name: str, values: list[int]) -> list[int]:
    """A list with one number for each stage: depths become 1 and 2, widths keep their ratios."""
    if re.search(r"depths|blocks|layers", name):
        return [min(value, 1 + place % 2) for place, value in enumerate(values)]
    if re.search(r"size|dim|channel|width", name) and min(values) > 8 and len(values) > 1:
        return [max(1, round(value / min(values))) * 8 for value in values]
    return values
