"""A small config out of a large one, by the names of its entries. Not a plugin itself: it registers nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# (pattern of the name, value), the first that matches. Sizes are odd where models leave them free, and agree where
# they must: 4 heads of 8 make 32, two of them share keys and values.
DEPTHS = (
    r"num_(hidden_|encoder_|decoder_)?layers|n_layers?|(encoder|decoder)_layers|.*num_blocks|depth"
    r"|.*num_hidden_layers|.*num_(encoder|decoder)_layers|.*_num_layers"
)
EXPERTS: list[tuple[str, int]] = [
    (r"(n_routed_experts|num_experts|num_local_experts|moe_num_experts)", 5),
    (r"(num_experts_per_tok|top_k|moe_k|num_selects|moe_topk|num_experts_per_token)", 2),
    (r"(n_group|topk_group|first_k_dense_replace|n_shared_experts)", 1),
]
LENGTHS: list[tuple[str, int]] = [
    (r"(max_position_embeddings|n_positions|max_seq_len|n_ctx|max_sequence_length)", 128),
    (r"sliding_window|attention_window|window_size|local_attention|attention_chunk_size", 6),
    (r"max_source_positions", 30),
    (r"num_queries|num_detection_tokens", 7),
    (r"num_kv_shared_layers", 0),
]
VOCABULARY: list[tuple[str, int]] = [(r".*vocab_size.*", 601)]
WIDTHS: list[tuple[str, int]] = [
    (r"(num_key_value_heads|num_kv_heads|n_kv_heads|multi_query_group_num)", 2),
    (r"(.*num_.*heads|n_heads?|heads|(encoder_|decoder_)?attention_heads|.*_attention_heads|.*_n_heads)", 4),
    (r"num_pos_feats", 16),  # two of them make a width
    (r"kv_lora_rank", 12),
    (r"q_lora_rank", 20),
    (r"qk_rope_head_dim", 4),
    (r"qk_nope_head_dim", 6),
    (r"v_head_dim|.*head_dim|d_kv|key_dim", 8),
    (r"moe_intermediate_size|expert_ffn_hidden_size", 20),
    (r".*(intermediate|ffn|feed_?forward|mlp|inner).*(size|dim)|d_ff|n_inner|d_inner|ffn_hidden_size", 52),
    (
        r"(hidden_size|d_model|n_embd|embed_dim|emb_dim|model_dim|dim|hidden_dim|.*_hidden_size|d_embed|vit_dim"
        r"|output_channels)",
        32,
    ),
    (
        r"(embedding_size|projection_dim|.*_projection_size|pooler_output_size|.*_embed_dim|.*embedding_dim)",
        32,
    ),
]
IMAGES: list[tuple[str, int]] = [
    (r"image_size|input_size|img_size", 32),
    (r"patch_size", 4),
    (r"image_embedding_size", 8),  # patches to a side
    (r"num_mel_bins", 16),
]
# What counts channels, and what only sounds like it.
WIDTH = re.compile(r".*(size|dim|width|channels|features|rank|hidden|embd|model|ff|kv|inner|filters|_head).*")
NO_WIDTH = {
    "vocab",
    "patch",
    "image",
    "kernel",
    "window",
    "stride",
    "position",
    "positions",
    "embeddings",
    "batch",
}
NO_WIDTH |= {"max", "group", "groups", "num", "n", "heads", "id", "layers", "input"}
HEADS, HEAD = re.compile(r".*(heads|n_head|kv_heads).*"), re.compile(r".*(head_dim|d_kv|key_dim|d_head)")
# Entries that say something for each layer, which the config works out again from their number.
PER_LAYER = re.compile(
    r"layer_types|.*_layer_types|layers_block_type|no_rope_layers|attention_layers|mlp_layer_types"
)
SPECIAL = re.compile(r".*token_(id|index)$|.*_token$")
# What a config says of itself, not of the model.
KEPT = {"model_type", "transformers_version", "architectures", "auto_map", "dtype", "num_labels"}


@dataclass(frozen=True)
class Way:
    """How a config is made small.

    rules   (pattern, value) of the counts and sizes that are set
    part    every width is divided by it, and heads keep their number: what hangs together goes on doing so
    heads   or there are as many times fewer of them, which keep their width
    alike   widths that were equal stay equal; kinds of layers are thinned out, not left out; and what is not set, but
            needed, is
    """

    rules: tuple[tuple[str, int], ...]
    part: int = 1
    heads: bool = False
    alike: bool = False


ALL = (*VOCABULARY, *WIDTHS, *EXPERTS, *LENGTHS, *IMAGES)
WIDTHS_KEPT = (*VOCABULARY, *EXPERTS, *LENGTHS)
# Smaller and odder ones first; the last cuts nothing but depth and vocabulary.
WAYS = (
    Way(ALL),
    Way(ALL, alike=True),
    *(Way(WIDTHS_KEPT, part, heads, alike=True) for part in (16, 8, 4) for heads in (False, True)),
    Way(tuple(VOCABULARY)),
)


def smaller(entries: Mapping[str, Any], *, depth: int = 2) -> Iterator[dict[str, Any]]:
    """Small configs of the same kind, likelier to be small ones first; a model may refuse any of them."""
    seen = []
    for way in WAYS:
        small = shrunk(entries, way, depth=depth)
        if small not in seen:
            seen.append(small)
            yield small


def shrunk(entries: Mapping[str, Any], way: Way = WAYS[0], *, depth: int = 2) -> dict[str, Any]:
    """The same kind of model, small."""
    layers = next((v for k, v in entries.items() if type(v) is int and re.fullmatch(DEPTHS, k)), 0)
    layers = 0 if "depths" in entries else layers  # stages stay as many as they are
    taps = entries.get("out_indices") if layers else None
    if isinstance(taps, list | tuple):  # one layer for each of those whose output is asked for
        depth = max(depth, len(taps))
    small: dict[str, Any] = {}
    for name, value in entries.items():
        if name in KEPT:
            small[name] = value
        elif value is None:
            small[name] = missing(name) if way.alike else None
        elif isinstance(value, Mapping):
            small[name] = part_of(name, value, way, depth)
        elif layers and name in ("stage_names", "out_features"):  # these follow from `out_indices`
            continue
        elif layers and name == "out_indices":
            spread = [round(index * depth / layers) for index in value]
            distinct = len(set(spread)) == len(spread)
            small[name] = spread if distinct else list(range(depth - len(value) + 1, depth + 1))
        elif PER_LAYER.fullmatch(name) and not way.alike:
            continue
        elif isinstance(value, list) and layers > 2 and len(value) == layers:
            kept = [value[place * (layers - 1) // max(1, depth - 1)] for place in range(min(depth, layers))]
            small[name] = [fewer(name, item, depth, way) if type(item) is int else item for item in kept]
        elif isinstance(value, list) and value and all(type(item) is int for item in value):
            small[name] = shorter(name, value, way)
        elif type(value) is int:
            small[name] = fewer(name, value, depth, way)
        else:
            small[name] = value
    return evened(entries, small) if way.alike and way.part == 1 else small


def part_of(name: str, value: Mapping[str, Any], way: Way, depth: int) -> dict[str, Any]:
    """An entry with entries of its own: another config, something for each layer, or how positions turn."""
    numbered = bool(value) and all(str(key).isdigit() for key in value)
    if (name.endswith("config") and not numbered) or "model_type" in value:
        return shrunk(value, way, depth=depth)
    if numbered:  # layer -> what it differs in
        kept = {key: entry for key, entry in value.items() if int(key) < depth}
        last = max(value, key=int)
        return kept or {type(last)(depth - 1): value[last]}
    if isinstance(sections := value.get("mrope_section"), list):
        widths = [2, 1, 1] if way.part == 1 else [count // way.part for count in sections]
        return {**value, "mrope_section": widths}
    return dict(value)


def fewer(name: str, value: int, depth: int, way: Way) -> int:
    """A count or a size, no larger than it was; ids of special tokens find room in the small vocabulary."""
    if SPECIAL.fullmatch(name):
        return value if value < 601 else 10 + sum(map(ord, name)) % 500
    if re.fullmatch(DEPTHS, name):
        return min(value, depth)
    for pattern, small in way.rules:
        if re.fullmatch(pattern, name):
            return min(value, small)
    return divided(name, value, way)


def divided(name: str, value: int, way: Way) -> int:
    """A width in parts, or a number of heads. What is too small for that stays; of heads one is left."""
    if way.heads and HEADS.fullmatch(name):
        return max(1, value // way.part)
    wide = WIDTH.fullmatch(name) and not NO_WIDTH & set(name.split("_"))
    wide = wide and not (way.heads and HEAD.fullmatch(name))
    return value // way.part if wide and value % way.part == 0 and value >= 2 * way.part else value


def missing(name: str) -> int | None:
    """What a default config leaves open although models need it: the width of a head, the number of experts."""
    rules = [*EXPERTS, *((pattern, small) for pattern, small in WIDTHS if "head_dim" in pattern)]
    return next((small for pattern, small in rules if re.fullmatch(pattern, name)), None)


def shorter(name: str, values: list[int], way: Way) -> list[int]:
    """A list with one number for each stage: depths become 1 and 2, widths keep their ratios."""
    if re.search(r"depths|blocks|layers", name):
        return [min(value, 1 + place % 2) for place, value in enumerate(values)]
    if way.part > 1:
        return [divided(name, value, way) for value in values]
    wide = re.search(r"size|dim|channel|width", name) and way.rules[1:]
    if wide and min(values) > 8 and len(values) > 1:
        return [max(1, round(value / min(values))) * 8 for value in values]
    return values


def evened(entries: Mapping[str, Any], small: dict[str, Any]) -> dict[str, Any]:
    """Widths, and numbers of heads, that were equal are so again, as small as the smallest of them became."""
    groups: dict[tuple[int, bool], list[str]] = {}
    for name, value in entries.items():
        if type(value) is int and any(re.fullmatch(pattern, name) for pattern, _ in WIDTHS):
            groups.setdefault((value, bool(HEADS.fullmatch(name))), []).append(name)
    least = {name: min(small[other] for other in names) for names in groups.values() for name in names}
    return {**small, **least}


def without_timm(config: Any) -> Any:
    """The config with transformers' own ResNet where it names a backbone of timm's, which may not be there."""
    from transformers import ResNetConfig

    backbone = getattr(config, "backbone_config", None)
    if str(getattr(backbone, "model_type", "")).startswith("timm_"):
        count = len(getattr(backbone, "out_indices", None) or [4])
        config.backbone_config = ResNetConfig(out_indices=list(range(5 - min(count, 4), 5)))
        config.use_timm_backbone = False
    return config
