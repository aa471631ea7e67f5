"""How to call a model nobody described, found by calling it. Not a plugin itself: it registers nothing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import TYPE_CHECKING, Any

from converter import Axis, Output, Size
from converter.errors import ExportError
from converter.plugins._layouts import (
    BATCH,
    FRAMES,
    HEIGHT,
    SAMPLES,
    SEQUENCE,
    TARGET,
    WIDTH,
    Layout,
    described,
    draw,
    frame_counts,
    image_sizes,
    layouts,
    number,
)
from converter.plugins._text import padding_unknown

if TYPE_CHECKING:
    import torch
    from torch import nn

# Ways of calling a model that are tried before it counts as one that cannot be called.
ATTEMPTS = 60
# Inputs a model may need besides those it says it needs, likelier ones first.
OPTIONAL = ("decoder_input_ids", "pixel_values", "input_ids", "bbox", "input_features", "input_values")
# What transformers says of a batch of texts to a classifier over a decoder without a `pad_token_id`.
NO_PADDING = "no padding token is defined"
TRACED = {BATCH: 2, SEQUENCE: 7, TARGET: 5}


class UnreadableError(ExportError):
    """Nothing is known of a model's inputs but names that say nothing."""


@dataclass(frozen=True)
class Plan:
    """How a model is called and what comes back.

    units    elements that one step of an axis stands for, where it is not 1
    options  fixed arguments
    masked   output -> the input that says which of its positions are real
    """

    inputs: Mapping[str, Layout]
    axes: tuple[Axis, ...]
    units: Mapping[str, int]
    options: Mapping[str, Any]
    outputs: tuple[Output, ...]
    masked: Mapping[str, str]


@dataclass
class Prober:
    """Calls one model. `mode` is the fake mode its parameters live in, None for real ones."""

    model: nn.Module
    config: Any
    mode: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    def shapes(
        self, inputs: Mapping[str, Layout], sizes: Mapping[str, int]
    ) -> dict[str, tuple[int, ...]] | None:
        """Shapes of the output's tensors at these sizes, in elements; None where the model refuses them."""
        found = self.call(inputs, sizes)
        return None if found is None else {name: tuple(tensor.shape) for name, tensor in found.items()}

    def call(self, inputs: Mapping[str, Layout], sizes: Mapping[str, int]) -> dict[str, torch.Tensor] | None:
        from contextlib import nullcontext

        import torch

        from converter.wrappers.generic import tensors_of

        tensors = dict(draw(inputs, {}, Size(sizes)).tensors)
        try:
            with torch.no_grad(), self.mode or nullcontext():
                if self.mode is not None:
                    tensors = {name: self.mode.from_tensor(tensor) for name, tensor in tensors.items()}
                found = tensors_of(self.model(**tensors, **self.options))
        except Exception as error:  # whatever a model raises at what it does not take
            lines = str(error).strip().splitlines()
            self.refusals.append(f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:160])
            return None
        return found or None

    def plan(self) -> Plan:
        """The inputs, the axes that may vary, the outputs. Raises ExportError if no way of calling is found."""
        inputs, sizes = self._first_call()
        axes, units = self._axes(inputs, sizes)
        outputs = self._outputs(inputs, sizes, axes, units)
        masks = {layout.dims[1]: name for name, layout in inputs.items() if layout.kind == "mask"}
        masked = {
            output.name: masks[axis]
            for output in outputs
            if (axis := output.axes.get(1)) in masks and output.axes.get(0) == BATCH
        }
        # What is not among the axes has one size only, and is a number from here on.
        varying = {axis.name for axis in axes}
        fixed = {
            name: Layout(
                tuple(
                    sizes[dim] if isinstance(dim, str) and dim not in varying else dim for dim in each.dims
                ),
                each.kind,
                each.below,
                each.avoid,
            )
            for name, each in inputs.items()
        }
        return Plan(fixed, axes, units, dict(self.options), outputs, masked)

    # --- a call that works ---

    def _first_call(self) -> tuple[dict[str, Layout], dict[str, int]]:
        parameters = inspect.signature(self.model.forward).parameters
        if "use_cache" in parameters:
            self.options["use_cache"] = False
        width = first_width(self.model)
        for names in islice(self._sets(parameters), ATTEMPTS):
            choices = [list(layouts(name, self.config, frozenset(names), width)) for name in names]
            if not all(choices):
                continue
            for chosen in product(*choices):
                inputs = dict(zip(names, chosen, strict=True))
                for sizes in self._sizes(inputs):
                    if self.shapes(inputs, sizes):
                        return inputs, sizes
        # The likeliest way was tried first, so its refusal tells most.
        error = ExportError if self.refusals else UnreadableError
        first = self.refusals[0] if self.refusals else "its inputs have names that say nothing"
        if NO_PADDING in str(first):
            raise padding_unknown(type(self.model).__name__)
        raise error(
            f"{type(self.model).__name__}: no way was found to call its forward({', '.join(parameters)}): {first}",
            remedy="a plugin can say how it is called; docs/plugins.md shows how to write one",
        )

    def _sets(self, parameters: Mapping[str, inspect.Parameter]) -> Iterator[tuple[str, ...]]:
        """Sets of inputs, likelier ones first: what is required, what usually goes with it, then more."""
        plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        required = [
            name
            for name, entry in parameters.items()
            if entry.default is inspect.Parameter.empty and entry.kind in plain
        ]
        main = getattr(self.model, "main_input_name", "input_ids")
        first = dict.fromkeys([*([main] if main in parameters else []), *required])
        more = [name for name in OPTIONAL if name in parameters and name not in first]
        if getattr(self.config, "is_encoder_decoder", False) and "decoder_input_ids" in more:
            first["decoder_input_ids"] = None
            more.remove("decoder_input_ids")
        for extra in [(), *((name,) for name in more), *((a, b) for a in more for b in more if a < b)]:
            names = [*first, *extra]
            usual = self._usual(parameters, names)
            yield tuple(dict.fromkeys([*names, *usual]))
            for left_out in usual:
                yield tuple(dict.fromkeys([*names, *(name for name in usual if name != left_out)]))

    def _usual(self, parameters: Mapping[str, inspect.Parameter], names: Sequence[str]) -> list[str]:
        usual = []
        if "attention_mask" in parameters and set(names) & {"input_ids", "input_values", "input_features"}:
            usual.append("attention_mask")
        if "input_features_mask" in parameters and "input_features_mask" not in names:
            usual.append("input_features_mask")
        segments = number(described(self.config, "text_config"), "type_vocab_size") or 0
        if "token_type_ids" in parameters and "input_ids" in names and segments > 1:
            usual.append("token_type_ids")
        return usual

    def _sizes(self, inputs: Mapping[str, Layout]) -> Iterator[dict[str, int]]:
        """Sizes to call with at first, in elements."""
        used = {dim for layout in inputs.values() for dim in layout.dims if isinstance(dim, str)}
        images = image_sizes(self.config) if HEIGHT in used else [(0, 0)]
        windows = frame_counts(self.config) if FRAMES in used else [0]
        waves = (2000, 16000) if SAMPLES in used else (0,)
        for (height, width), frames, samples in product(images, windows, waves):
            every = {**TRACED, HEIGHT: height, WIDTH: width, FRAMES: frames, SAMPLES: samples}
            yield {axis: count for axis, count in every.items() if axis in used}

    # --- which axes may vary ---

    def _axes(
        self, inputs: Mapping[str, Layout], sizes: dict[str, int]
    ) -> tuple[tuple[Axis, ...], dict[str, int]]:
        axes, units = [], {}
        for name in sizes:
            if name in (HEIGHT, WIDTH, FRAMES, SAMPLES):
                unit = self._unit(inputs, sizes, name)
                if unit:
                    own = sizes[name] // unit
                    # Not at its first size: models take a shortcut there.
                    traced = max(2, own + (2 if name == WIDTH else 1))
                    axes.append(Axis(name, traced, low=min(own, traced), high=2 * own + 2))
                    units[name] = unit
            else:
                longest = 5 if name == BATCH else self._longest()
                low = next((n for n in (1, 2, 3, 4) if self.shapes(inputs, {**sizes, name: n})), sizes[name])
                if self.shapes(inputs, {**sizes, name: longest}) and longest > sizes[name]:
                    axes.append(Axis(name, sizes[name], low=low, high=longest))
        if not any(axis.name == BATCH for axis in axes):
            raise ExportError(f"{type(self.model).__name__} does not take batches of another size than 2")
        return tuple(axes), units

    def _unit(self, inputs: Mapping[str, Layout], sizes: dict[str, int], name: str) -> int:
        """The smallest step by which the axis can grow; 0 where it cannot."""
        vision = described(self.config, "vision_config")
        patch = number(vision, "patch_size", "patch_stride") or 16
        steps = (1, patch, 32, 64) if name in (HEIGHT, WIDTH) else (1, 16)
        for options in self._stretching():
            before = dict(self.options)
            self.options.update(options)
            for step in steps:
                # The last is as far as the axis will go: small steps may stay within one patch.
                far = sizes[name] // step + 2
                if sizes[name] % step == 0 and all(
                    self.shapes(inputs, {**sizes, name: sizes[name] + more * step}) for more in (1, 3, far)
                ):
                    return step
            self.options = before
        return 0

    def _stretching(self) -> list[dict[str, Any]]:
        can = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        return [{}, {"interpolate_pos_encoding": True}] if can else [{}]

    def _longest(self) -> int:
        """Tokens worth trying: as many as there are positions, up to 24."""
        text = described(self.config, "text_config")
        names = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
        room, pad = number(text, *names) or 64, number(text, "pad_token_id") or 0
        room = room if room > 0 else 64  # XLNet says -1 for no bound
        # Some count positions from behind the padding's id; where there is no room for that, they do not.
        return max(3, min(24, room - 2 - (pad if pad < room // 2 else 0)))

    # --- what comes back ---

    def _outputs(
        self,
        inputs: Mapping[str, Layout],
        sizes: dict[str, int],
        axes: Sequence[Axis],
        units: Mapping[str, int],
    ) -> tuple[Output, ...]:
        base = self.shapes(inputs, sizes)
        assert base is not None
        named: dict[str, dict[int, str]] = {name: {} for name in base}
        for axis in axes:
            grown = sizes[axis.name] + units.get(axis.name, 1)
            other = self.shapes(inputs, {**sizes, axis.name: grown}) or base
            for name, shape in base.items():
                pairs = enumerate(zip(shape, other.get(name, shape), strict=False))
                named[name].update({place: axis.name for place, (a, b) in pairs if a != b and b == grown})
        return tuple(Output(name, axes_of) for name, axes_of in named.items())


def first_width(model: nn.Module) -> int:
    """What the model's first layer takes, if that is a product or a convolution over time; else 0."""
    from torch import nn

    first = next((part for part in model.modules() if isinstance(part, nn.Linear | nn.Conv1d)), None)
    return 0 if first is None else first.in_features if isinstance(first, nn.Linear) else first.in_channels
