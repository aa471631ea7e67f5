"""Causal language models with past key values: one wrapper, model types as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from converter import (
    Architecture,
    Component,
    Variant,
    hookimpl,
)
from converter.plugins._causal import Causal, causal_component, causal_scenarios
from converter.plugins._experts import experts_in_onnx
from converter.plugins._positions import trained_length, without_memory
from converter.plugins._sentence import SentenceModel
from converter.plugins._text import TASKS, decoder_components, padding_unknown

if TYPE_CHECKING:
    from converter.scenario import Scenario

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 52,
    "vocab_size": 601,
    "max_position_embeddings": 128,
    "layer_types": None,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

# A window shorter than most of the texts that parity tries.
WINDOW = {"sliding_window": 6}
N_EMBD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
GEMMA = {**WINDOW, "query_pre_attn_scalar": 8}
LATENT = {
    "kv_lora_rank": 12,
    "q_lora_rank": 20,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "qk_head_dim": 10,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}

EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
ROUTED = {
    "n_routed_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}

# model type -> what its tiny config needs beyond TINY
FAMILY: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": WINDOW,
    "qwen2": {"head_dim": None},
    "qwen3": {},
    "gpt2": N_EMBD,
    "gpt_neox": {},
    "phi": {},
    "phi3": {},
    "gemma": {},
    "gemma2": GEMMA,
    "gemma3_text": {**GEMMA, "_sliding_window_pattern": 2, "sliding_window_pattern": 2},
    "smollm3": {"no_rope_layers": None},
    "granite": {},
    "olmo": {},
    "olmo2": {},
    "starcoder2": WINDOW,
    "stablelm": {},
    "cohere": {},
    "opt": {"ffn_dim": 52, "word_embed_proj_dim": 20},
    "bloom": {"n_layer": 2, "n_head": 4},
    "gpt_neo": {
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "attention_layers": None,
        "window_size": 6,
    },
    "gptj": {**N_EMBD, "rotary_dim": 4},
    "codegen": {**N_EMBD, "rotary_dim": 4},
    "arcee": {},
    "biogpt": {},
    "bitnet": {},
    "cohere2": {**WINDOW, "sliding_window_pattern": 2},
    "cwm": WINDOW,
    "diffllama": {},
    "ernie4_5": {},
    "exaone4": {**WINDOW, "sliding_window_pattern": 2},
    "glm": {},
    "glm4": {},
    "gpt_bigcode": N_EMBD,
    "gpt_neox_japanese": {},
    "helium": {},
    "hunyuan_v1_dense": {},
    "hyperclovax": {},
    "internlm3": {},
    "jais2": {},
    "minicpm3": LATENT,
    "ministral": WINDOW,
    "ministral3": {},
    "modernbert-decoder": {"local_attention": 12, **WINDOW, "cls_token_id": 1, "sep_token_id": 2},
    "nanochat": {},
    "nemotron": {},
    "olmo3": WINDOW,
    "persimmon": {},
    "seed_oss": {},
    "vaultgemma": GEMMA,
    "xglm": {"d_model": 32, "attention_heads": 4, "num_layers": 2, "ffn_dim": 52},
    # Mixtures of experts.
    "mixtral": {"num_local_experts": 5, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_local_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 28},
    "olmoe": EXPERTS,
    "phimoe": {"num_local_experts": 5, "num_experts_per_tok": 2},
    "granitemoe": {"num_local_experts": 5, "num_experts_per_tok": 2},
    "gpt_oss": {**WINDOW, "num_local_experts": 5, "num_experts_per_tok": 2},
    "deepseek_v3": {**LATENT, **ROUTED, "head_dim": 4},
    "glm4_moe": ROUTED,
}

# Types that transformers reads with another's config.
ALIASES = {"gpt2": ("gpt-sw3",)}

GENERATING = ("text-generation-with-past", "text-generation")
ENCODING = ("feature-extraction", "text-classification")
# What transformers has no classifier for.
UNCLASSIFIED: tuple[str, ...] = ("bitnet", "codegen", "cohere", "cohere2", "cwm", "ernie4_5", "glm4_moe")
UNCLASSIFIED += ("gpt_neox_japanese", "granite", "granitemoe", "hyperclovax", "internlm3", "jais2")
UNCLASSIFIED += ("nanochat", "olmoe", "vaultgemma", "xglm")

# ALiBi: the mask says all there is to say about positions.
WITHOUT_POSITIONS = ("bloom",)
# Every head has its own keys and values, whatever a stray `num_key_value_heads` in the config may say.
OWN_HEADS: tuple[str, ...] = (
    "gpt2",
    "gpt_neo",
    "gptj",
    "codegen",
    "opt",
    "bloom",
    "biogpt",
    "xglm",
    "gpt_neox",
)
OWN_HEADS += ("gpt_neox_japanese", "modernbert-decoder", "persimmon")
# LongRoPE: `generate` drops the past of a text that outgrows the length the model was first trained at.
FED_ANEW = ("phi3", "phimoe")
# What is cached is not keys and values but what both are made from, and the rotated part of the keys.
LATENT_CACHE = ("minicpm3", "deepseek_v3")


def cache_shape(config: Any) -> tuple[int, int, int]:
    """(key-value heads, size of a key, size of a value) of every layer."""
    kind, heads = config.model_type, config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    if kind in LATENT_CACHE:
        return 1, config.kv_lora_rank, config.qk_rope_head_dim
    if kind == "gpt_bigcode":
        return 1 if config.multi_query else heads, width, width
    grouped = None if kind in OWN_HEADS else getattr(config, "num_key_value_heads", None)
    return grouped or heads, width, width


def _causal(config: Any, task: str) -> Causal:
    trained = trained_length(config)
    return Causal(
        vocabulary=config.vocab_size,
        # BLOOM's positions have no end, and its config names none.
        longest=24 if trained else min(24, getattr(config, "max_position_embeddings", 48) // 2),
        positions=config.model_type not in WITHOUT_POSITIONS,
        layers=(cache_shape(config),) * config.num_hidden_layers if task == GENERATING[0] else None,
        anew=getattr(config, "original_max_position_embeddings", None)
        if config.model_type in FED_ANEW
        else None,
        trained=trained,
    )


def _scenarios(config: Any, task: str) -> Sequence[Scenario]:
    return () if task in ENCODING else causal_scenarios(_causal(config, task))


def _check_padding(config: Any, task: str) -> None:
    """Raise UsageError for a classifier that cannot tell where a text ends: it takes no batch of several."""
    if task == ENCODING[1] and getattr(config, "pad_token_id", None) is None:
        raise padding_unknown(config.model_type)


def _components(config: Any, task: str) -> Sequence[Component]:
    _check_padding(config, task)
    made = (
        decoder_components(config, task) if task in ENCODING else (causal_component(_causal(config, task)),)
    )
    return made if trained_length(config) is None else tuple(map(without_memory, made))


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    past = (Variant("text", ("model",), "prefill and decode in one graph"),)
    plain = (Variant("text", ("model",), "logits for a whole sequence"),)
    encoded = (
        Variant("text", ("model",), "token ids and mask in, hidden states and embedding or logits out"),
    )
    variants = {GENERATING[0]: past, GENERATING[1]: plain, **dict.fromkeys(ENCODING, encoded)}
    classes = {
        **dict.fromkeys(GENERATING, "AutoModelForCausalLM"),
        **{task: TASKS[task][0] for task in ENCODING},
    }
    for model_type, extra in FAMILY.items():
        without = ENCODING[1:] if model_type in UNCLASSIFIED else ()
        register(
            Architecture(
                name=model_type.replace("-", "_"),
                model_types=(model_type, *ALIASES.get(model_type, ())),
                summary="causal language model",
                reference_checkpoint="",
                source=SentenceModel(
                    classes={task: name for task, name in classes.items() if task not in without},
                    tiny={**TINY, **extra},
                    model_type=model_type,
                    pooled=ENCODING[:1],
                ),
                components=_components,
                scenarios=_scenarios,
                translations=experts_in_onnx,
                variants={task: made for task, made in variants.items() if task not in without},
            )
        )
