"""Parameters that no checkpoint stores, because the model computes them: sinusoidal positions, for one."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from converter.recipes import Constant, WeightRecipe


def computed_parameters(model: nn.Module, missing: Iterable[str]) -> dict[str, WeightRecipe]:
    """Values of those of the `missing` parameters that transformers' own initialisation computes.

    Loading a checkpoint initialises what it lacks. Whether that means a computed table or random numbers is found
    by doing it twice: what comes out the same from two seeds and is not one number throughout is computed. (One
    number throughout is how untrained scales and biases start; a checkpoint without those is incomplete.)
    """
    initialise = getattr(model, "_init_weights", None)
    if initialise is None:
        return {}
    found: dict[str, WeightRecipe] = {}
    for name in missing:
        path, _, attribute = name.rpartition(".")
        value = _initialised(model.get_submodule(path), attribute, initialise)
        if value is not None:
            found[name] = Constant.of(value.numpy())
    return found


def _initialised(module: nn.Module, attribute: str, initialise: Any) -> torch.Tensor | None:
    """The parameter as `initialise` leaves it on twins of the module that have memory; None unless computed."""
    try:
        first, second = (_from_seed(module, attribute, initialise, seed) for seed in (0, 1))
    except AttributeError:  # it sets its children from here (CLIP's projections), and the twin has none
        return None
    if not torch.equal(first, second) or (first == first.flatten()[0]).all():
        return None  # not a number equals nothing, itself included, so what was left unset differs as well
    return first


def _from_seed(module: nn.Module, attribute: str, initialise: Any, seed: int) -> torch.Tensor:
    twin = copy.copy(module)
    twin._modules = {}
    twin._parameters = {
        name: None
        if parameter is None
        else nn.Parameter(torch.full(parameter.shape, torch.nan, dtype=parameter.dtype), requires_grad=False)
        for name, parameter in module._parameters.items()
    }
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        initialise(twin)
    value = twin._parameters[attribute]
    assert value is not None
    return value.detach()
