"""Positions that depend on the longest text a model has seen (rope type `dynamic`). Not a plugin itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import Component
from converter.errors import UsageError

if TYPE_CHECKING:
    from torch import nn


def trained_length(config: Any) -> int | None:
    """The length behind which all positions are turned otherwise, the more the longer a text is; None if never.

    Raises UsageError where layers of one model differ in it: each kind keeps a memory of its own.
    """
    entries = getattr(config, "rope_parameters", None) or {}
    if any(isinstance(kind, dict) and kind.get("rope_type") == "dynamic" for kind in entries.values()):
        raise UsageError(
            f"{config.model_type}: rope_type 'dynamic' for some kinds of layers turns positions by the longest text"
            " since the model was loaded",
            remedy="a graph remembers none; 'yarn' and 'linear' stretch positions by a fixed factor",
        )
    from converter.wrappers.positions import stretched_always

    if entries.get("rope_type") != "dynamic" or stretched_always(config):
        return None
    length: int = config.max_position_embeddings
    return length


def without_memory(component: Component) -> Component:
    """The component with positions turned by the text at hand alone; the original forgets before each reference.

    For a model whose positions are fixed it is the same component.
    """
    return replace(
        component,
        wrapper=partial(_wrapper, component.wrapper),
        reference=partial(_reference, component.reference),
    )


def _wrapper(make: Callable[[nn.Module], nn.Module], model: nn.Module) -> nn.Module:
    from converter.wrappers.positions import memoryless, remembering

    wrapper: Any = make(model)
    if remembering(model):
        wrapper.forward = memoryless(model)(wrapper.forward)
    made: nn.Module = wrapper
    return made


def _reference(call: Callable[[nn.Module, Any], Any], model: nn.Module, tensors: Any) -> Any:
    from converter.wrappers.positions import forget

    forget(model)
    return call(model, tensors)
