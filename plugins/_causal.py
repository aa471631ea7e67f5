"""Causal language models, with their past as flat tensors or without. Not a plugin itself: it registers nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import Axis, Component, DummyInputs, Output, Size
from converter.errors import ExportError
from converter.plugins._generation import decoder_scenario
from converter.plugins._layouts import padded
from converter.plugins._positions import trained_length

if TYPE_CHECKING:
    import torch
    from torch import nn

    from converter.scenario import Scenario

NEW = {0: "batch_size", 1: "sequence_length"}
TOTAL = {0: "batch_size", 1: "total_sequence_length"}
PAST = {0: "batch_size", 2: "past_sequence_length"}
PRESENT = {0: "batch_size", 2: "total_sequence_length"}
PASTLESS = "--task text-generation writes a graph without past"


@dataclass(frozen=True)
class Causal:
    """How a causal language model is called.

    vocabulary  ids are drawn below it
    longest     sequence worth trying, in tokens, new and past each
    positions   whether it takes `position_ids`
    layers      of each layer's past: heads, size of a key, size of a value; None for a graph without past
    anew        a text longer than so many tokens turns its positions otherwise, all of them: the past of a shorter one
                does not go with it
    trained     behind this position all of them are turned otherwise, the more the longer the text is
    """

    vocabulary: int
    longest: int
    positions: bool
    layers: tuple[tuple[int, int, int], ...] | None = None
    anew: int | None = None
    trained: int | None = None

    def names(self, prefix: str) -> list[str]:
        """`prefix.N.key`, `prefix.N.value` for each layer N."""
        return [f"{prefix}.{name}" for name, _ in self.tensors()]

    def tensors(self) -> list[tuple[str, tuple[int, int]]]:
        """(`N.key` or `N.value`, (heads, width)) in graph order."""
        return [
            (f"{layer}.{part}", (heads, width))
            for layer, (heads, key, value) in enumerate(self.layers or ())
            for part, width in (("key", key), ("value", value))
        ]


def causal_component(causal: Causal) -> Component:
    """One graph: token ids and mask in, logits out; with past, each layer's keys and values in and out as well."""
    axes = [Axis("batch_size", 2, high=5), Axis("sequence_length", 3, high=causal.longest)]
    outputs = [Output("logits", NEW), *(Output(name, PRESENT) for name in causal.names("present"))]
    if causal.layers is not None:
        axes.append(Axis("past_sequence_length", 5, low=0, high=causal.longest))
    return Component(
        stem="model",
        wrapper=_with_past if causal.layers is not None else _without,
        inputs=partial(_inputs, causal),
        reference=partial(_reference, causal),
        axes=tuple(axes),
        outputs=tuple(outputs),
    )


def _inputs(causal: Causal, size: Size) -> DummyInputs:
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    batch, new = size["batch_size"], size["sequence_length"]
    past = 0 if causal.layers is None else size["past_sequence_length"]
    mask = padded(batch, past + new, size)
    tensors = {
        "input_ids": torch.randint(0, causal.vocabulary, (batch, new), generator=generator),
        "attention_mask": mask,
    }
    axes: dict[str, dict[int, str]] = {
        "input_ids": NEW,
        "attention_mask": NEW if causal.layers is None else TOTAL,
    }
    if causal.positions:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, past:]
        tensors["position_ids"] = positions + _start(causal.trained, past + new)
        axes["position_ids"] = NEW
    for name, (heads, width) in causal.tensors():
        tensors[f"past_key_values.{name}"] = torch.randn(batch, heads, past, width, generator=generator)
        axes[f"past_key_values.{name}"] = PAST
    real = mask.bool()
    valid = {"logits": real[:, past:], **dict.fromkeys(causal.names("present"), real[:, None, :])}
    return DummyInputs(tensors, axes, valid)


def _start(trained: int | None, length: int) -> int:
    """Where the positions of a text begin: at 0, but some around and some far behind the trained length.

    Texts that long are too slow to try, and only the positions make the difference.
    """
    return 0 if trained is None else (0, max(0, trained - length // 2), 2 * trained)[length % 3]


def _with_past(model: nn.Module) -> nn.Module:
    from converter.wrappers.decoder import DecoderWithPast

    return DecoderWithPast(model)


def _without(model: nn.Module) -> nn.Module:
    from converter.wrappers.decoder import Decoder

    return Decoder(model)


def _reference(causal: Causal, model: nn.Module, tensors: Any) -> dict[str, torch.Tensor]:
    """The logits as `generate` computes them, with a cache that forgets what a sliding window leaves behind."""
    from transformers import DynamicCache

    from converter.wrappers.decoder import cache_name, fill, flat

    past = {name: tensor for name, tensor in tensors.items() if name.startswith("past_key_values")}
    rest = {name: tensor for name, tensor in tensors.items() if name not in past}
    if causal.layers is None:
        return {"logits": model(**rest, use_cache=False).logits}
    config: Any = model.config
    whole, own = fill(DynamicCache(), past), fill(DynamicCache(config=config), past)
    logits = model(**rest, **{cache_name(model): own}, use_cache=True).logits
    model(**rest, **{cache_name(model): whole}, use_cache=True)
    return {"logits": logits, **dict(zip(causal.names("present"), flat(whole), strict=True))}


def causal_scenarios(causal: Causal) -> Sequence[Scenario]:
    """Greedy generation by the one graph. One without past generates nothing by itself."""
    if causal.layers is None:
        return ()
    scenario = decoder_scenario(
        causal.vocabulary, causal.tensors(), stem="model", positions=causal.positions, anew=causal.anew
    )
    return (scenario,)


def probed(model: Any, config: Any, mode: Any) -> Causal:
    """How a causal language model nobody described is called, by what its cache holds after one call.

    mode  the fake mode its parameters live in, None for real ones. Raises ExportError for a cache of anything else
          than keys and values of every token: states of linear attention, windows of convolutions.
    """
    import inspect

    from transformers import DynamicCache

    text, length = config.get_text_config(), 7
    try:
        shapes = _shapes(_cache_after(model, length, mode))
        # A window has let go of the first tokens.
        if any(len(shape) == 4 and shape[2] < length for shape in shapes):
            shapes = _shapes(_cache_after(model, length, mode, DynamicCache()))
    except Exception as error:  # whatever a model raises, or a cache of its own has not
        raise ExportError(
            f"{config.model_type} has no past of keys and values: {type(error).__name__}: {error}",
            remedy=PASTLESS,
        ) from error
    if not shapes or any(len(shape) != 4 or shape[2] != length for shape in shapes):
        raise ExportError(
            f"the past of {config.model_type} is not keys and values of every token: {shapes[:4]}",
            remedy=PASTLESS,
        )
    positions = getattr(text, "max_position_embeddings", None) or 64
    return Causal(
        vocabulary=text.vocab_size,
        longest=min(24, positions // 2),
        positions="position_ids" in inspect.signature(model.forward).parameters,
        layers=tuple(
            (keys[1], keys[3], values[3]) for keys, values in zip(shapes[::2], shapes[1::2], strict=True)
        ),
        trained=trained_length(text),
    )


def _cache_after(model: Any, length: int, mode: Any, cache: Any = None) -> Any:
    """The cache that a call with `length` tokens leaves behind; the model's own kind, or the one given, filled."""
    from contextlib import nullcontext

    import torch

    from converter.wrappers.decoder import cache_name

    name = cache_name(model)
    tensors = {key: torch.ones(2, length, dtype=torch.int64) for key in ("input_ids", "attention_mask")}
    given = {} if cache is None else {name: cache}
    with torch.no_grad(), mode or nullcontext():
        if mode is not None:
            tensors = {key: mode.from_tensor(tensor) for key, tensor in tensors.items()}
        return getattr(model(**tensors, **given, use_cache=True), name)


def _shapes(cache: Any) -> list[tuple[int, ...]]:
    """Of the first layer's keys, its values, the second layer's keys..."""
    pairs = [(layer.keys, layer.values) for layer in cache.layers]
    return [tuple(tensor.shape) for pair in pairs for tensor in pair]
