"""Vision-language generation: a vision encoder, embeddings of tokens and a decoder with past, model types as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from converter.checkpoints.own_code import code_files
from converter.errors import UsageError
from converter.plugins._causal import NEW, PAST, PRESENT, TOTAL
from converter.plugins._engine import projection_of
from converter.plugins._experts import experts_in_onnx
from converter.plugins._layouts import padded
from converter.plugins._qwen_vl import conv3d_in_onnx
from converter.plugins._vision_families import FAMILIES
from converter.plugins._vision_family import Family
from converter.plugins._vision_generation import vision_scenario
from converter.plugins.decoder import cache_shape

if TYPE_CHECKING:
    import torch
    from torch import nn

    from converter.records import Checkpoint
    from converter.scenario import Scenario

TASK = "image-text-to-text"
EMBEDS = "inputs_embeds"
# What peft calls the task of an adapter that makes an embedder.
EMBEDS_TASK = "FEATURE_EXTRACTION"
# How classes that generate are called, by transformers of any age and by those who derive from its classes.
GENERATES = ("ForConditionalGeneration", "ForCausalLM", "ForVision2Seq", "LMHeadModel")
# M-RoPE: time, row and column of each token.
POSITIONS3 = {1: "batch_size", 2: "sequence_length"}


def names(prefix: str, config: Any) -> list[str]:
    """`prefix.N.key`, `prefix.N.value` for each layer N."""
    return [
        f"{prefix}.{layer}.{part}" for layer in range(config.num_hidden_layers) for part in ("key", "value")
    ]


class Generator(TransformersModel):
    """A model that generates. One that embeds has the same type, told by its class or by a projection of its own."""

    def default_task(self, checkpoint: Checkpoint) -> str:
        projection = projection_of(checkpoint)
        named = ", ".join(map(str, checkpoint.config.get("architectures") or ["no class"]))
        if projection:
            told, left = (
                f"{named}, {projection!r} beside its weights projects for late interaction",
                "the projection",
            )
        elif checkpoint.adapter is not None and checkpoint.adapter.task == EMBEDS_TASK:
            told, left = (
                f"{named}, the adapter over it says that it was trained for {EMBEDS_TASK}",
                "pooling its states",
            )
        elif _strange(checkpoint):
            told, left = f"{named}, which transformers does not have", "what that class does otherwise"
        else:
            return super().default_task(checkpoint)
        raise UsageError(
            f"{checkpoint.source}: config.json names {told}, and the one task here of a {self.model_type} generates",
            remedy=f"--task {TASK} converts what it has of a generator, without {left}",
            topic="task",
        )


def _strange(checkpoint: Checkpoint) -> bool:
    """Whether each class in config.json is somebody else's and does not say that it generates: BiQwen2 embeds.

    Where the head is tied, its weights are a generator's to the last one, so nothing later would tell. A checkpoint
    that brings its class along gets a note on that.
    """
    import transformers

    named = list(map(str, checkpoint.config.get("architectures") or ()))
    unknown = [name for name in named if not hasattr(transformers, name) and not name.endswith(GENERATES)]
    return bool(named) and unknown == named and not code_files(checkpoint.config)


# --- token ids to embeddings -----------------------------------------------------------------------------------------


def _ids(config: Any, size: Size) -> DummyInputs:
    """Any ids of the table, and image tokens, which may lie behind it."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    shape = size["batch_size"], size["sequence_length"]
    ids = torch.randint(0, config.get_text_config().vocab_size, shape, generator=generator)
    image = torch.rand(shape, generator=generator) < 0.3
    ids[image] = image_token(config)
    return DummyInputs({"input_ids": ids}, {"input_ids": NEW})


def image_token(config: Any) -> int:
    return int(getattr(config, "image_token_id", None) or config.image_token_index)


def _embedder(family: Family, config: Any, model: nn.Module) -> nn.Module:
    from converter.wrappers.vision_language import EmbedTokens

    return EmbedTokens(model, family.behind(config))


def _embedded(family: Family, config: Any, model: Any, tensors: Any) -> dict[str, torch.Tensor]:
    """The original's embeddings of text; an image token outside the table is replaced in any case."""
    import torch

    table, ids = model.get_input_embeddings(), tensors["input_ids"].clone()
    ids[ids >= table.num_embeddings] = 0
    embeds = table(ids)
    return {EMBEDS: torch.cat([embeds, embeds.new_zeros(*ids.shape, family.behind(config))], dim=-1)}


# --- embeddings to logits --------------------------------------------------------------------------------------------


def _decoder_inputs(family: Family, config: Any, size: Size) -> DummyInputs:
    import torch

    text = config.get_text_config()
    generator = torch.Generator().manual_seed(size.seed)
    batch, new, past = size["batch_size"], size["sequence_length"], size["past_sequence_length"]
    mask = padded(batch, past + new, size)
    embeds = torch.randn(batch, new, text.hidden_size, generator=generator)
    image = torch.rand(batch, new, generator=generator) < 0.5
    behind = family.marked(config, image, generator)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, past:] + family.first_position
    tensors = {EMBEDS: torch.cat([embeds, *behind], dim=-1), "attention_mask": mask}
    axes: dict[str, Mapping[int, str]] = {EMBEDS: NEW, "attention_mask": TOTAL}
    if family.mrope:
        sides = torch.randint(0, 4, (2, batch, new), generator=generator) * image
        positions = torch.stack([positions, positions + sides[0], positions + sides[1]])
    tensors["position_ids"], axes["position_ids"] = positions, POSITIONS3 if family.mrope else NEW
    heads, key, value = cache_shape(text)
    for name in names("past_key_values", text):
        width = key if name.endswith("key") else value
        tensors[name] = torch.randn(batch, heads, past, width, generator=generator)
        axes[name] = PAST
    real = mask.bool()
    valid = dict.fromkeys(names("present", text), real[:, None, :])
    return DummyInputs(tensors, axes, {"logits": real[:, past:], **valid})


def _decoded(family: Family, config: Any, model: Any, tensors: Any) -> dict[str, torch.Tensor]:
    """The logits as `generate` computes them, with a cache that forgets what a sliding window leaves behind."""
    from transformers import DynamicCache

    from converter.wrappers.decoder import fill, flat

    past = {name: tensor for name, tensor in tensors.items() if name.startswith("past_key_values")}
    rest = {name: tensor for name, tensor in tensors.items() if name not in past}
    text = model.config.get_text_config()
    empty = next(iter(past.values())).shape[2] == 0
    caches = [DynamicCache(config=text), DynamicCache()]
    if not empty:
        caches = [fill(cache, past) for cache in caches]
    logits, _ = (family.decode(model, rest, cache) for cache in caches)
    return {"logits": logits, **dict(zip(names("present", text), flat(caches[1]), strict=True))}


def _components(config: Any, task: str) -> Sequence[Component]:
    family = FAMILIES[config.model_type]
    family.check(config)
    text = config.get_text_config()
    longest = min(24, text.max_position_embeddings // 2)
    batch, new = Axis("batch_size", 2, high=5), Axis("sequence_length", 3, high=longest)
    return (
        Component(
            stem="vision_encoder",
            wrapper=family.vision,
            inputs=partial(family.images, config),
            reference=family.features,
            axes=family.image_axes(config),
            outputs=(Output("image_features", {0: family.feature_axis}),),
        ),
        Component(
            stem="embed_tokens",
            wrapper=partial(_embedder, family, config),
            inputs=partial(_ids, config),
            reference=partial(_embedded, family, config),
            axes=(batch, new),
            outputs=(Output(EMBEDS, NEW),),
        ),
        Component(
            stem="decoder_model_merged",
            wrapper=family.decoder,
            inputs=partial(_decoder_inputs, family, config),
            reference=partial(_decoded, family, config),
            axes=(batch, new, Axis("past_sequence_length", 5, low=0, high=longest)),
            outputs=(Output("logits", NEW), *(Output(name, PRESENT) for name in names("present", text))),
        ),
    )


def _scenarios(config: Any, task: str) -> Sequence[Scenario]:
    text = config.get_text_config()
    heads, key, value = cache_shape(text)
    widths = {"key": (heads, key), "value": (heads, value)}
    cache = {name.removeprefix("."): widths[name.rpartition(".")[2]] for name in names("", text)}
    return (vision_scenario(FAMILIES[config.model_type], config, image_token(config), cache),)


def _translations() -> Mapping[Any, Any]:
    return {**conv3d_in_onnx(), **experts_in_onnx()}


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    stems = ("vision_encoder", "embed_tokens", "decoder_model_merged")
    variant = Variant("split", stems, "images to features, ids to embeddings, embeddings to logits with past")
    for model_type, family in FAMILIES.items():
        register(
            Architecture(
                name=model_type,
                model_types=(model_type,),
                summary="text from images and text",
                reference_checkpoint=family.checkpoint,
                source=Generator({TASK: "AutoModelForImageTextToText"}, family.tiny, model_type),
                components=_components,
                scenarios=_scenarios,
                variants={TASK: (variant,)},
                translations=_translations,
            )
        )
