"""The graphs that an architecture makes, seen without making them: inputs and outputs of each component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converter.errors import ConverterError, UsageError
from converter.extras import require_export
from converter.records import Architecture, Component, Size
from converter.scratch import scratch_folder


@dataclass(frozen=True)
class Interface:
    """One graph of a task: names with their dtypes and shapes, sizes that vary by name."""

    task: str
    stem: str
    inputs: tuple[tuple[str, str, tuple[str | int, ...]], ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Unshown:
    """A task whose graphs cannot be shown, and why, in one line."""

    task: str
    reason: str


def interfaces(architecture: Architecture) -> tuple[tuple[Interface, ...], tuple[Unshown, ...]]:
    """Those of a small model of the architecture, for every task it can make one of, and the tasks it cannot.

    Takes seconds, and imports torch.
    """
    shown: list[Interface] = []
    unshown: list[Unshown] = []
    for task in architecture.tasks:
        try:
            require_export()
            shown += [_interface(task, component) for component in _components(architecture, task)]
        except ConverterError as error:
            unshown.append(Unshown(task, "; ".join(filter(None, (error.message, error.remedy)))))
        except Exception as error:  # a plugin may raise anything; what went wrong is the answer
            unshown.append(Unshown(task, " ".join(f"{type(error).__name__}: {error}".split())))
    return tuple(shown), tuple(unshown)


def _components(architecture: Architecture, task: str) -> Sequence[Component]:
    """Those that a variant of the task writes."""
    from converter.checkpoint import open_for

    if architecture.stand_in is not None:
        raise UsageError("it stands in for many model types", remedy="name one of them with --arch")
    with scratch_folder() as scratch:
        folder = scratch / "checkpoint"
        architecture.source.write_tiny(folder, like=None, seed=0, task=task)
        config = architecture.source.config(open_for(architecture, folder))
    written = {stem for variant in architecture.variants[task] for stem in variant.stems}
    return [component for component in architecture.components(config, task) if component.stem in written]


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
