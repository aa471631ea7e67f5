"""The model without its weights: fake parameters, real buffers.

A module built inside `weightless()` runs its own constructor unchanged. Each parameter is swapped for a fake one the
moment it is registered, before anything is written into it, so that its memory is never touched. Buffers stay real:
tracing folds them into constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from converter.errors import WeightError
from converter.recipes import Load, WeightRecipe, leaves, read
from converter.records import Dtype

TORCH_DTYPES: Mapping[Dtype, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


@contextmanager
def weightless() -> Iterator[FakeTensorMode]:
    """Modules built inside have `FakeTensor` parameters. Not reentrant across threads: it patches `nn.Module`.

    `torch.nn.Module` offers no hook for this that keeps buffers real (its meta device takes both), hence the patch;
    it is undone on leaving.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    register = nn.Module.register_parameter

    def register_fake(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is None or isinstance(parameter, FakeTensor):
            return
        with mode:
            empty = torch.empty(parameter.shape, dtype=parameter.dtype)
        module._parameters[name] = nn.Parameter(empty, requires_grad=False)

    nn.Module.register_parameter = register_fake  # type: ignore[method-assign, assignment]
    try:
        yield mode
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def load_buffers(model: nn.Module, mapping: Mapping[str, WeightRecipe]) -> frozenset[str]:
    """Give the buffers that a checkpoint stores (a batch norm's statistics) its values; they become constants.

    Returns the names of the checkpoint's tensors that were read.
    """
    used: set[str] = set()
    for name, buffer in model.named_buffers():
        if name not in mapping or isinstance(buffer, FakeTensor):
            continue
        recipe = mapping[name]
        if recipe.shape != tuple(buffer.shape):
            raise WeightError(
                f"buffer {name!r} has shape {tuple(buffer.shape)}, the checkpoint's has {recipe.shape}"
            )
        values = read(recipe)
        numbers = values.astype(np.float32) if buffer.is_floating_point() else values
        buffer.copy_(torch.from_numpy(numbers.reshape(recipe.shape)))
        used.update(leaf.info.name for leaf in leaves(recipe) if isinstance(leaf, Load))
    return frozenset(used)


def copy_buffers(buffers: Mapping[str, torch.Tensor], model: nn.Module) -> None:
    """Give a second skeleton the values that the buffers of the first one have, by name."""
    for name, buffer in model.named_buffers():
        if name in buffers and not isinstance(buffer, FakeTensor):
            buffer.copy_(buffers[name])


def cast_skeleton(model: nn.Module, dtype: Dtype) -> None:
    """Give every floating-point parameter, and every buffer a checkpoint stores, the dtype to trace in.

    Other buffers stay as they are: a rotary table in half precision is off by radians far from the start. Fake
    parameters stay fake, tied ones one object.
    """
    kind = TORCH_DTYPES[dtype]
    if kind is torch.float32:
        return
    cast: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
    for module in model.modules():
        if isinstance(vars(module).get("dtype"), torch.dtype):  # what BitNet's layers unpack to
            vars(module)["dtype"] = kind
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_floating_point():
                if id(parameter) not in cast:
                    cast[id(parameter)] = (
                        parameter,
                        nn.Parameter(parameter.detach().to(kind), requires_grad=False),
                    )
                module._parameters[name] = cast[id(parameter)][1]
        for name, buffer in module._buffers.items():
            if (
                buffer is not None
                and buffer.is_floating_point()
                and name not in module._non_persistent_buffers_set
            ):
                module._buffers[name] = buffer.to(kind)


def parameter_names(model: nn.Module) -> dict[int, str]:
    """`id(parameter)` -> its first name in `model`. A wrapper that holds the model shares its parameter objects."""
    return {id(parameter): name for name, parameter in reversed(list(named_parameters(model)))}


def named_parameters(model: nn.Module) -> list[tuple[str, Any]]:
    """Every parameter under every name it has, tied ones included."""
    return list(model.named_parameters(remove_duplicate=False))
