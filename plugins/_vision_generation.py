"""Generation from images and text as a scenario: three graphs, fed as clients feed them. Not a plugin itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import Size
from converter.plugins._generation import greedy
from converter.plugins._vision_family import Family
from converter.scenario import Call, Scenario, State

if TYPE_CHECKING:
    import torch

VISION, EMBED, DECODER = "vision_encoder", "embed_tokens", "decoder_model_merged"
# Tokens of text around each row's image; the second row is the shorter one. Of the prompt, so many come last, alone.
TEXTS, LAST = (9, 6), 3


def vision_scenario(
    family: Family, config: Any, image: int, cache: Mapping[str, tuple[int, int]]
) -> Scenario:
    """An image in each of two prompts, features put in place of its tokens, then greedy tokens.

    `image` is the id of an image token; `cache` names each tensor (`0.key`) and its (heads, width).
    """
    feed = partial(_decoder, family, image)
    bound = {f"past_key_values.{name}": f"present.{name}" for name in cache}
    cuts = [slice(0, -LAST), slice(-LAST, None)] if family.chunks else [slice(None)]
    return Scenario(
        name="greedy generation from images",
        prompt=partial(_prompt, family, config, image),
        opening=(
            Call(VISION, _images),
            Call(EMBED, _prompt_ids),
            Call(DECODER, partial(feed, cuts[0], dict(cache))),
            *(Call(DECODER, partial(feed, cut, {}), bound) for cut in cuts[1:]),
        ),
        step=(Call(EMBED, _last_ids), Call(DECODER, partial(feed, slice(-1, None), {}), bound)),
        original=partial(_generate, family, image),
    )


def _prompt(family: Family, config: Any, image: int, seed: int) -> dict[str, torch.Tensor]:
    """Images, and rows of text around runs of image tokens, of different lengths, padded on the left."""
    import torch

    axes = {axis.name: axis.traced for axis in family.image_axes(config)}
    images = family.images(config, Size({**axes, "num_images": len(TEXTS)}, seed=seed)).tensors
    counts = family.image_tokens(config, images)
    generator = torch.Generator().manual_seed(seed)
    rows = [_row(config, text, image, count, generator) for text, count in zip(TEXTS, counts, strict=True)]
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    positions = family.positions(config, ids == image, mask, images)
    return {**images, "input_ids": ids, "attention_mask": mask, "position_ids": positions}


def _row(config: Any, text: int, image: int, count: int, generator: torch.Generator) -> list[int]:
    """Two tokens of text, the image's, the other tokens of text; none of those that a config gives a meaning."""
    import torch

    entries = config.to_dict().items()
    named = [value for name, value in entries if name.endswith(("_token_id", "_token_index"))]
    # A text may end in any of several tokens: Gemma 3's config.json lists two.
    special = {token for value in named for token in (value if isinstance(value, list) else [value])}
    free = [token for token in range(3, config.get_text_config().vocab_size) if token not in special]
    words = [free[place] for place in torch.randint(len(free), (text,), generator=generator)]
    return [*words[:2], *[image] * count, *words[2:]]


def _images(state: State) -> Any:
    text = ("input_ids", "attention_mask", "position_ids")
    return {name: value for name, value in state.prompt.items() if name not in text}


def _prompt_ids(state: State) -> Any:
    return {"input_ids": state.prompt["input_ids"]}


def _last_ids(state: State) -> Any:
    return {"input_ids": state.tokens[-1][:, None]}


def _decoder(
    family: Family, image: int, part: slice, empty: Mapping[str, tuple[int, int]], state: State
) -> dict[str, Any]:
    """The columns `part` of the prompt, or of the tokens chosen since; the past that starts out `empty`."""
    import numpy as np

    embeds, mask, positions = (
        state.outputs["inputs_embeds"],
        state.prompt["attention_mask"],
        state.prompt["position_ids"],
    )
    if state.tokens:
        added = len(state.tokens)
        mask = np.concatenate([mask, np.ones((len(mask), added), np.int64)], axis=1)
        furthest = positions.max(axis=-1).max(axis=0) if positions.ndim == 3 else positions.max(axis=-1)
        positions = np.broadcast_to((furthest + added)[:, None], (*positions.shape[:-1], 1))
    else:
        embeds = embeds.copy()
        embeds[state.prompt["input_ids"] == image] = state.outputs["image_features"].reshape(
            -1, embeds.shape[-1]
        )
        mask = mask[:, : part.stop]
    fed = {
        "inputs_embeds": embeds[:, part],
        "attention_mask": mask,
        "position_ids": np.ascontiguousarray(positions[..., part]),
    }
    for name, (heads, width) in empty.items():
        fed[f"past_key_values.{name}"] = np.zeros((len(mask), heads, 0, width), np.float32)
    return fed


def _generate(family: Family, image: int, model: Any, prompt: Any, steps: int) -> torch.Tensor:
    """By the model's own `generate`, which works out its positions itself."""
    given = {name: value for name, value in prompt.items() if name != "position_ids"}
    return greedy(model, steps, **family.as_processed(given, given["input_ids"] == image))
