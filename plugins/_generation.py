"""Generation as a scenario: greedy tokens, of text decoders and of encoder-decoders. Not a plugin itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from converter.scenario import Call, Scenario, State

if TYPE_CHECKING:
    import torch

# Tokens of each row's prompt, and where the padded prompt is cut in two.
LENGTHS, CUT = (4, 11, 7), 5


def greedy(model: Any, steps: int, *, start: int | None = None, **inputs: Any) -> torch.Tensor:
    """The tokens of the model's own `generate`, with every choice greedy and nothing that ends a row.

    `start` is the token a decoder beside an encoder begins with: not every config says which.
    """
    from transformers import GenerationConfig, GenerationMixin

    from converter.wrappers.positions import forget

    own = model.generation_config
    # In place of the model's own, not beside it: what a call leaves open is filled in from there.
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=steps,
        pad_token_id=0,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=start,
    )
    forget(model)
    renaming = model.register_forward_pre_hook(_cache_as_taken, with_kwargs=True)
    try:
        # The mixin's own method: speech models put one over it that cuts audio in windows and forces tokens.
        made: torch.Tensor = GenerationMixin.generate(model, **inputs)
    finally:
        renaming.remove()
    return made[:, -steps:]


def _cache_as_taken(model: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What `generate` calls a model with, the cache under the name that its forward takes.

    Since transformers 5.24 that is `cache`. Code that a checkpoint brings takes `past_key_values`, and one that takes
    any other argument as well drops the cache without a word: each token would be told from the one before it alone.
    """
    from converter.wrappers.decoder import cache_name

    name = cache_name(model)
    # Its own `prepare_inputs_for_generation` may have named it already.
    if "cache" in given and name not in given:
        given = {**given, name: given["cache"]}
        del given["cache"]
    return args, given


def text_prompts(vocabulary: int, seed: int) -> dict[str, torch.Tensor]:
    """Rows of different lengths in one batch, padded on the left as for generation."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocabulary, (len(LENGTHS), max(LENGTHS)), generator=generator)
    places = torch.arange(max(LENGTHS))
    mask = (places >= max(LENGTHS) - torch.tensor(LENGTHS)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def decoder_scenario(
    vocabulary: int,
    cache: Sequence[tuple[str, tuple[int, int]]],
    *,
    stem: str,
    positions: bool,
    anew: int | None = None,
) -> Scenario:
    """Prefill in two chunks, then token by token. `cache` names each tensor (`0.key`) and its (heads, width).

    A text that outgrows `anew` tokens is fed once more from its start, with nothing past, as `generate` does it.
    """
    bound = {f"past_key_values.{name}": f"present.{name}" for name, _ in cache}
    feed = partial(_chunk, positions, cache, anew)
    return Scenario(
        name="greedy generation, prefill in two chunks",
        prompt=partial(text_prompts, vocabulary),
        opening=(
            Call(stem, partial(feed, slice(0, CUT), seen=CUT)),
            Call(stem, partial(feed, slice(CUT, None)), bound),
        ),
        step=(Call(stem, partial(feed, slice(-1, None)), bound),),
        original=_generate_text,
    )


def _generate_text(model: Any, prompt: Any, steps: int) -> torch.Tensor:
    return greedy(model, steps, **prompt)


def _chunk(
    positions: bool,
    cache: Sequence[tuple[str, tuple[int, int]]],
    anew: int | None,
    part: slice,
    state: State,
    seen: int | None = None,
) -> dict[str, Any]:
    """The columns `part` of prompt and tokens so far, under the mask of all that has been `seen` with them.

    What stands at the start, or outgrows `anew` now, has an empty past.
    """
    import numpy as np

    chosen = np.stack(state.tokens, axis=1) if state.tokens else np.zeros((len(LENGTHS), 0), np.int64)
    ids = np.concatenate([state.prompt["input_ids"], chosen], axis=1)
    mask = np.concatenate([state.prompt["attention_mask"], np.ones_like(chosen)], axis=1)[:, :seen]
    length = mask.shape[1]
    past = part.indices(length)[0]
    if anew is not None and past <= anew < length:
        past = 0
    fed = {"input_ids": ids[:, past:length], "attention_mask": mask}
    if positions:
        fed["position_ids"] = (mask.cumsum(1) - 1).clip(0)[:, past:]
    if not past:
        empty = {name: np.zeros((len(ids), heads, 0, width), np.float32) for name, (heads, width) in cache}
        fed |= {f"past_key_values.{name}": tensor for name, tensor in empty.items()}
    return fed


def encoder_decoder_scenario(
    name: str,
    prompt: Callable[[int], dict[str, torch.Tensor]],
    start: int,
    cache: Sequence[tuple[str, tuple[int, int]]],
    *,
    masked: bool,
) -> Scenario:
    """The encoder once, then the merged decoder from its start token. `cache` names `0.decoder.key` and so on.

    `masked` says whether the decoder is told of padding among the encoder's positions.
    """
    hidden = {"encoder_hidden_states": "last_hidden_state"}
    past = {f"past_key_values.{name}": f"present.{name}" for name, _ in cache}
    return Scenario(
        name=name,
        prompt=prompt,
        opening=(
            Call("encoder_model", _whole_prompt),
            Call("decoder_model_merged", partial(_decoder_step, start, cache, masked), hidden),
        ),
        step=(Call("decoder_model_merged", partial(_decoder_step, start, (), masked), {**hidden, **past}),),
        original=partial(_generate_from, start),
    )


def _whole_prompt(state: State) -> Any:
    return state.prompt


def _generate_from(start: int, model: Any, prompt: Any, steps: int) -> torch.Tensor:
    import torch

    batch = len(next(iter(prompt.values())))
    return greedy(model, steps, start=start, **prompt, decoder_input_ids=torch.full((batch, 1), start))


def _decoder_step(
    start: int, cache: Sequence[tuple[str, tuple[int, int]]], masked: bool, state: State
) -> dict[str, Any]:
    import numpy as np

    batch = len(state.outputs["last_hidden_state"])
    last = state.tokens[-1][:, None] if state.tokens else np.full((batch, 1), start, np.int64)
    fed: dict[str, Any] = {"input_ids": last, "use_cache_branch": np.array([bool(state.tokens)])}
    if masked:
        fed["encoder_attention_mask"] = state.prompt["attention_mask"]
    for name, (heads, width) in cache:
        fed[f"past_key_values.{name}"] = np.zeros((batch, heads, 0, width), np.float32)
    return fed


def tone(seed: int, samples: int) -> Any:
    """Synthetic audio, float32 (2, samples): in each row a rising tone over noise, of another pitch and loudness."""
    import numpy as np

    noise = np.random.default_rng(seed)
    time = np.arange(samples) / 16000
    rows = [
        loud * np.sin(2 * np.pi * (pitch + 300 * time) * time) + 0.02 * noise.standard_normal(samples)
        for pitch, loud in ((220, 0.5), (440, 0.1))
    ]
    return np.stack(rows).astype(np.float32)
