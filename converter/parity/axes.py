"""Axes that are not what was declared: fixed where they could vary, or fixed in the graph where they should."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converter.records import Component, DummyInputs, Size

if TYPE_CHECKING:
    import onnxruntime
    import torch
    from torch import nn

_LOG = logging.getLogger(__name__)
# Of one component, for runs of the original at sizes that may not even work.
SECONDS = 2.0

Place = tuple[str, int]


def could_vary(model: nn.Module, component: Component) -> list[str]:
    """Sentences on axes of inputs that no axis was declared for, and that the original also takes at other sizes.

    Each is stretched to one more and to twice its length, alone and with those of the same length, and the original is
    called. That it runs, and gives something else, is taken for a sign. Inputs that `fixed` names are left out.
    """
    size = Size({axis.name: axis.traced for axis in component.axes})
    inputs = component.inputs(size)
    end = time.monotonic() + SECONDS
    before = _run(model, component, inputs)
    found: list[tuple[Place, ...]] = []
    for places in _undeclared(inputs, component.fixed):
        if time.monotonic() > end or before is None:
            break
        if not any(set(places) <= set(others) for others in found) and _takes(
            model, component, inputs, places, before
        ):
            found.append(places)
    return [_sentence(component, inputs, places) for places in found]


def _undeclared(inputs: DummyInputs, fixed: Mapping[str, str]) -> Iterator[tuple[Place, ...]]:
    """Groups of undeclared axes of one length, the whole group first. An axis of length 1 is none."""
    groups: dict[int, list[Place]] = defaultdict(list)
    for name, tensor in inputs.tensors.items():
        for dim, length in enumerate(tensor.shape):
            if length > 1 and dim not in inputs.axes.get(name, {}) and name not in fixed:
                groups[length].append((name, dim))
    for places in groups.values():
        yield tuple(places)
        if len(places) > 1:
            yield from ((place,) for place in places)


def _takes(
    model: nn.Module,
    component: Component,
    inputs: DummyInputs,
    places: Sequence[Place],
    before: Mapping[str, Any],
) -> bool:
    import torch

    length = inputs.tensors[places[0][0]].shape[places[0][1]]
    changed = False
    for longer in (length + 1, 2 * length):
        after = _run(model, component, _stretched(inputs, places, longer))
        if after is None:
            return False
        changed |= any(not torch.equal(before[name], after[name]) for name in before)
    return changed


def _run(model: nn.Module, component: Component, inputs: DummyInputs) -> dict[str, torch.Tensor] | None:
    """What the original gives, or None where it refuses, in whatever way."""
    import torch

    try:
        with torch.no_grad():
            given = component.reference(
                model, {name: tensor.clone() for name, tensor in inputs.tensors.items()}
            )
            return {output.name: given[output.name].detach().clone() for output in component.outputs}
    except Exception as error:  # a model says in its own way that it cannot take a size
        _LOG.debug("%s does not run at a stretched size: %r", component.stem, error)
        return None


def _stretched(inputs: DummyInputs, places: Sequence[Place], length: int) -> DummyInputs:
    """The inputs with these axes repeated from their beginning, so that ids stay ids and masks masks."""
    import torch

    tensors = dict(inputs.tensors)
    for name, dim in places:
        index = torch.arange(length) % tensors[name].shape[dim]
        tensors[name] = tensors[name].index_select(dim, index)
    return replace(inputs, tensors=tensors, axes={}, valid={})


def _sentence(component: Component, inputs: DummyInputs, places: Sequence[Place]) -> str:
    length = inputs.tensors[places[0][0]].shape[places[0][1]]
    named = " and ".join(f"axis {dim} of {name!r}" for name, dim in places)
    return (
        f"{component.stem}: {named} is fixed at {length}, but the original also takes {length + 1} and {2 * length};"
        " declare an axis, or say in `fixed` why not"
    )


def came_out_fixed(
    session: onnxruntime.InferenceSession, stem: str, declared: Mapping[str, Mapping[int, str]]
) -> list[str]:
    """Sentences on declared axes that the graph has as a number, or under the name of another one."""
    names = {axis for axes in declared.values() for axis in axes.values()}
    sentences = []
    for kind, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        for value in values:
            for dim, axis in declared.get(value.name, {}).items():
                found = value.shape[dim] if dim < len(value.shape) else None
                if isinstance(found, int):
                    what = f"came out fixed at {found}"
                elif kind == "input" and found != axis and found in names:
                    what = f"came out as {found!r}: it only works where both are equal"
                else:
                    continue
                sentences.append(f"{stem}: axis {axis!r} of {kind} {value.name!r} {what}")
    return sentences
