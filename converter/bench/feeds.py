"""What a benchmark feeds to graphs that only their architecture knows: the inputs it makes for parity, in files.

They are made once, where torch may be imported, so that the processes of graphs have none in their memory.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.bench.load import COMPARED
from converter.bench.original import open_declared
from converter.errors import ConverterError, PackageError, PluginError
from converter.request import Progress
from converter.runtime.session import Array

if TYPE_CHECKING:
    from converter.packages.declared import Declared
    from converter.records import Component
    from converter.scenario import Scenario

PROMPTS = 2  # runs of a scenario a turn
_SCENARIO = "scenario.pickle"


@dataclass(frozen=True)
class Made:
    """What lies in the folder of feeds.

    stems     the graphs that are run
    batches   of each graph that is run by itself, the batch sizes it is timed at; none where its size is fixed
    sizes     in words, the sizes that are the same at every batch
    scenario  the name of the scenario whose prompts lie there, in the place of inputs
    """

    stems: tuple[str, ...]
    batches: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    sizes: str = ""
    scenario: str = ""


def make_feeds(
    package: Path,
    record: Mapping[str, Any],
    model: str | None,
    stems: Sequence[str],
    batches: Sequence[int],
    folder: Path,
    progress: Progress,
) -> Made:
    """Files in `folder` for the graphs `stems` of a package, by what its architecture declares of it or of `model`.

    Raises PackageError for an architecture that is not installed, or that needs `model` to tell; PluginError where
    its code fails.
    """
    name = record["architecture"]
    with _blaming(name, "say what it declares for this package"):
        declared = _declared(package, record, model)
        scenario = next((entry for entry in declared.scenarios() if entry.stems <= set(stems)), None)
    if scenario is not None:
        with _blaming(name, f"make the prompts of its scenario {scenario.name!r}"):
            return _write_prompts(scenario, folder)
    return _write_inputs(name, declared, stems, batches, folder)


def _declared(package: Path, record: Mapping[str, Any], model: str | None) -> Declared:
    from converter.packages.declared import architecture_of, declared_by

    if model is not None:
        return open_declared(record, model)[0]
    architecture = architecture_of(record, package)
    if architecture is None:
        raise PackageError(
            f"{package} was made by the architecture {record['architecture']!r}, which is not installed, so nobody"
            " knows what to feed it",
            remedy="install the plugin that brings it, or time the graphs with onnxruntime itself",
        )
    try:
        return declared_by(architecture, package, record)
    except ConverterError as error:  # some tell by the checkpoint's tensors
        raise PackageError(
            f"{package} does not say enough of its model without the checkpoint: {error.message}",
            remedy="name the checkpoint with --model",
        ) from error


def prompts_of(folder: Path) -> tuple[Any, Any, list[Mapping[str, Array]]]:
    """Of the scenario in a folder of feeds: its opening calls, those of a step, and the prompts."""
    with (folder / _SCENARIO).open("rb") as file:  # written by this very benchmark
        opening, step, prompts = pickle.load(file)
    return opening, step, prompts


def feed_of(folder: Path, stem: str, batch: int) -> dict[str, Array]:
    """The inputs of a graph at a batch size."""
    with np.load(_path(folder, stem, batch)) as arrays:
        return dict(arrays)


def _path(folder: Path, stem: str, batch: int) -> Path:
    return folder / f"{stem}-{batch}.npz"


def _write_prompts(scenario: Scenario, folder: Path) -> Made:
    prompts = [_arrays(scenario.prompt(seed)) for seed in range(PROMPTS)]
    with (folder / _SCENARIO).open("wb") as file:
        pickle.dump((scenario.opening, scenario.step, prompts), file)
    return Made(tuple(sorted(scenario.stems)), scenario=scenario.name)


def _write_inputs(
    name: str, declared: Declared, stems: Sequence[str], batches: Sequence[int], folder: Path
) -> Made:
    timed: dict[str, tuple[int, ...]] = {}
    sizes: dict[str, int] = {}
    components = declared.components()
    if unknown := [stem for stem in stems if stem not in components]:
        raise PackageError(
            f"architecture {name!r} declares no graph {unknown[0]} for {declared.task}; this package has one",
            remedy="use the version that made the package, which is in its converter.json",
        )
    stems = [stem for stem in components if stem in stems]
    for stem in stems:
        component = components[stem]
        rows = _row_axes(name, component)
        timed[stem] = tuple(batches) if rows else ()
        sizes |= {axis.name: axis.high for axis in component.axes if axis.name not in rows}
        for batch in {*timed[stem], COMPARED}:
            np.savez(_path(folder, stem, batch), **_inputs(name, component, rows, batch))
    return Made(tuple(stems), timed, ", ".join(f"{axis} {size}" for axis, size in sizes.items()))


def _row_axes(name: str, component: Component) -> set[str]:
    """The declared axes that count rows: those that an input has first."""
    from converter.records import Size

    usual = Size({axis.name: axis.traced for axis in component.axes})
    with _blaming(name, f"make inputs of {component.stem}"):
        named = component.inputs(usual).axes
    first = {axes[0] for axes in named.values() if 0 in axes}
    return first & {axis.name for axis in component.axes}


def _inputs(name: str, component: Component, rows: set[str], batch: int) -> dict[str, Any]:
    """At so many rows, and as long as the architecture's axes go otherwise."""
    from converter.records import Size

    size = {axis.name: batch if axis.name in rows else axis.high for axis in component.axes}
    most = min((axis.high for axis in component.axes if axis.name in rows), default=batch)
    remedy = f"try --batch-size {most}, the most that it declares" if batch > most else ""
    with _blaming(name, f"make inputs of {component.stem} for a batch of {batch}", remedy):
        return _arrays(component.inputs(Size(size)).tensors)


def _arrays(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@contextmanager
def _blaming(name: str, what: str, remedy: str = "") -> Iterator[None]:
    try:
        yield
    except ConverterError:
        raise
    except Exception as error:  # the plugin's code
        raise PluginError(
            f"architecture {name!r} could not {what}: {type(error).__name__}: {error}",
            remedy=remedy or "mend its plugin, or time the graphs with onnxruntime itself",
        ) from error
