"""The untouched original of a package in a benchmark, called as its architecture's own references call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import PackageError
from converter.packages.staging import RECORD
from converter.runtime.files import PackageFiles
from converter.runtime.session import Array, OneByOne

if TYPE_CHECKING:
    from converter.packages.declared import Declared
    from converter.records import Checkpoint, Component


def open_declared(record: Mapping[str, Any], model: str) -> tuple[Declared, Checkpoint]:
    """What a package's architecture declares of a checkpoint, which is opened and not loaded.

    Raises PackageError for a package that does not say which architecture it was made by.
    """
    from converter.packages.declared import Declared
    from converter.packages.record import maker_of
    from converter.registry import load_registry
    from converter.request import ConversionRequest
    from converter.scratch import scratch_folder
    from converter.selection import find_source, settle_task

    if not record.get("architecture"):
        raise PackageError(
            "the package does not say which architecture it was made by, so the original cannot be called",
            remedy="leave out --model to compare the precisions with each other",
        )
    registry, trusted = load_registry(), bool(record.get("settings", {}).get("trust_remote_code"))
    request = ConversionRequest(model=model, arch=maker_of(record), trust_remote_code=trusted)
    with scratch_folder() as scratch:
        architecture, checkpoint = find_source(request, registry, scratch)
    architecture, task = settle_task(record.get("task"), architecture, checkpoint, registry)
    return Declared(architecture, architecture.source.config(checkpoint), task), checkpoint


def load_declared(files: PackageFiles, model: str, threads: int) -> tuple[Any, Declared]:
    """The model of a checkpoint in float32, on so many threads, and what the package's architecture declares of it."""
    import torch

    torch.set_num_threads(threads)
    declared, checkpoint = open_declared(files.read_object(RECORD), model)
    return declared.architecture.source.original(checkpoint, declared.task, None), declared


def call(original: Any, component: Component, feed: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a component by name, as the original computes them."""
    import torch

    with torch.inference_mode():
        found = component.reference(original, {name: torch.from_numpy(feed[name]) for name in feed})
    return {name: tensor.numpy() for name, tensor in found.items()}


class TorchComponent(OneByOne):
    """The original behind the interface of a graph that takes `inputs` and gives `output`."""

    def __init__(self, original: Any, component: Component, inputs: Sequence[str], output: str) -> None:
        self._original, self._component, self._output = original, component, output
        self.inputs = tuple(inputs)

    def run(self, feed: Mapping[str, Array]) -> NDArray[np.float32]:
        """The output, float32."""
        return call(self._original, self._component, {name: feed[name] for name in self.inputs})[self._output]
