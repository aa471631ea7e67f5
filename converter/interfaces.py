"""The graphs that an architecture makes, seen without making them: inputs and outputs of each component."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from converter.records import Architecture, Component, Size
from converter.scratch import scratch_folder


@dataclass(frozen=True)
class Interface:
    """One graph of a task: names with their dtypes and shapes, sizes that vary by name."""

    task: str
    stem: str
    inputs: tuple[tuple[str, str, tuple[str | int, ...]], ...]
    outputs: tuple[str, ...]


def interfaces(architecture: Architecture) -> tuple[Interface, ...]:
    """Those of a small model of the architecture, for every task it can make one of. Takes seconds, and imports torch.

    Nothing without the libraries that make models.
    """
    found: list[Interface] = []
    if find_spec("torch") is None or find_spec("transformers") is None:
        return ()
    for task in architecture.tasks:
        try:
            found += [_interface(task, component) for component in _components(architecture, task)]
        except Exception:  # what stands in for many types makes none; and a plugin may raise anything
            continue
    return tuple(found)


def _components(architecture: Architecture, task: str) -> Any:
    from converter.checkpoint import open_for

    with scratch_folder() as scratch:
        folder = scratch / "checkpoint"
        architecture.source.write_tiny(folder, like=None, seed=0, task=task)
        config = architecture.source.config(open_for(architecture, folder))
    return architecture.components(config, task)


def _interface(task: str, component: Component) -> Interface:
    made = component.inputs(Size({axis.name: axis.traced for axis in component.axes}))
    inputs = tuple(
        (
            name,
            str(tensor.dtype).removeprefix("torch."),
            tuple(made.axes.get(name, {}).get(place, size) for place, size in enumerate(tensor.shape)),
        )
        for name, tensor in made.tensors.items()
    )
    return Interface(task, component.stem, inputs, tuple(output.name for output in component.outputs))
