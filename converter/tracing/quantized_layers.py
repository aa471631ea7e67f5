"""Models that round as they were trained to: the layers that transformers gives them, which are traced as written."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from converter.recipes import WeightRecipe
from converter.weights.unpacked import PER_BYTE, Ternary


def place_layers(model: Any) -> None:
    """Put the layers that the model's config asks for into a model that was built without them, in place.

    Everything they store is a parameter, of integers too; packed ternary weights are what they unpack to.
    """
    import transformers.integrations
    from transformers.quantizers.auto import AutoHfQuantizer

    settings = getattr(model.config, "quantization_config", None)
    if settings is None:
        return
    quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=True)
    quantizer.preprocess_model(model)
    run_as_written()
    for module in model.modules():
        own = type(module).__module__.startswith(transformers.integrations.__name__)
        for name, tensor in _stored(module, buffers=own).items():
            packed = name == "weight" and tensor.dtype == torch.uint8
            shape = (PER_BYTE * tensor.shape[0], *tensor.shape[1:]) if packed else tensor.shape
            module._buffers.pop(name, None)
            empty = torch.empty(shape, dtype=torch.float32 if packed else tensor.dtype)
            module.register_parameter(name, nn.Parameter(empty, requires_grad=False))


def _stored(module: nn.Module, *, buffers: bool) -> dict[str, torch.Tensor]:
    """What has no memory until it is loaded, and `buffers`, of which a checkpoint of whole size is too much to hold."""
    held = dict(module._buffers) if buffers else {}
    held |= {name: entry for name, entry in module._parameters.items() if entry is not None and entry.is_meta}
    return {name: tensor for name, tensor in held.items() if tensor is not None}


def run_as_written() -> None:
    """From now on what BitNet's layers hand to torch.compile, which asks for a compiler, is called as it stands."""
    from transformers.integrations import bitnet

    owners: dict[Any, tuple[str, ...]] = {
        bitnet: ("unpack_weights",),
        bitnet.BitLinear: ("activation_quant", "post_quant_process"),
        bitnet.WeightQuant: ("forward",),
        bitnet.ActQuant: ("forward",),
    }
    for owner, name in ((owner, name) for owner, names in owners.items() for name in names):
        held = vars(owner)[name]
        compiled = held.__func__ if isinstance(held, staticmethod) else held
        plain = getattr(compiled, "_torchdynamo_orig_callable", compiled)
        setattr(owner, name, staticmethod(plain) if isinstance(held, staticmethod) else plain)


@contextmanager
def unpacking_traced() -> Iterator[None]:
    """While tracing, weights are unpacked by operations that ONNX has; those that a recipe unpacks stay as they are."""
    # A model that has such layers has imported them.
    bitnet, gemma = (
        sys.modules.get(f"transformers.integrations.{name}") for name in ("bitnet", "gemma_quant")
    )
    with ExitStack() as patches:
        if bitnet:
            patches.enter_context(patch.object(bitnet, "unpack_weights", torch.Tensor.to))
        for bits in (2, 4) if gemma else ():
            patches.enter_context(patch.object(gemma, f"_unpack_int{bits}", partial(fields, bits=bits)))
        yield


def fields(packed: torch.Tensor, width: int, bits: int) -> torch.Tensor:
    """transformers' `_unpack_int2` and `_unpack_int4`, in floats: ONNX shifts only integers without a sign."""
    whole = packed.to(torch.float32)
    above = [torch.floor(whole / 2**shift) for shift in range(0, 9, bits)]
    numbers = [low - 2**bits * high - 2 ** (bits - 1) for low, high in pairwise(above)]
    return torch.stack(numbers, dim=-1).reshape(*packed.shape[:-1], -1)[..., :width]


def unpack_recipes(
    recipes: Mapping[str, WeightRecipe], state: Mapping[str, torch.Tensor]
) -> dict[str, WeightRecipe]:
    """The recipes, those of weights that the checkpoint stores packed unpacked."""
    return {
        name: Ternary(recipe) if _is_packed(recipe, state.get(name)) else recipe
        for name, recipe in recipes.items()
    }


def _is_packed(recipe: WeightRecipe, parameter: torch.Tensor | None) -> bool:
    if parameter is None or not parameter.is_floating_point() or recipe.dtype != np.uint8:
        return False
    rows, *rest = recipe.shape
    return tuple(parameter.shape) == (PER_BYTE * rows, *rest)


def packed_state(model: nn.Module) -> dict[str, torch.Tensor] | None:
    """What a model stores whose layers unpack their weights at every call: these packed. None of any other model."""
    from transformers.integrations.bitnet import BitLinear, pack_weights

    layers = [name for name, module in model.named_modules() if isinstance(module, BitLinear)]
    if not layers:
        return None
    state = dict(model.state_dict())
    for name in layers:
        weights = state[f"{name}.weight"]
        state[f"{name}.weight"] = pack_weights((weights * weights.shape[1] ** 0.5).round().clamp(-1, 1))
    return state
