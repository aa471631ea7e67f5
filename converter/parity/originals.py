"""The untouched original, opened to be run: in memory, or with its weights on disk."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converter.errors import ConverterError
from converter.parity.runners import run_original
from converter.records import Architecture, Checkpoint, Component, Size

if TYPE_CHECKING:
    from torch import nn

# Bytes of fp32 weights up to which the original is loaded whole. Beyond, a run costs their reading, of which the
# system's cache makes a copy: 0.12 s for the 0.44 GB of bert-base.
RESIDENT = 256 * 2**20


def elements(checkpoint: Checkpoint) -> int:
    """How many numbers its tensors hold."""
    return sum(math.prod(info.shape) for info in checkpoint.tensors.values())


def stays_on_disk(checkpoint: Checkpoint) -> bool:
    """Whether the original runs with its weights on disk, read layer by layer as they are needed."""
    return 4 * elements(checkpoint) > RESIDENT


def open_original(
    architecture: Architecture,
    components: Sequence[Component],
    checkpoint: Checkpoint,
    task: str,
    folder: Path,
) -> nn.Module:
    """The original; a large one keeps its weights in `folder`, and a module's are read when it is called.

    Some models take weights of modules that they do not call (CLIP its positions, DeBERTa its heads), and find nothing
    there. One call of each component tells, and such an original is loaded whole.
    """
    load = architecture.source.original
    if stays_on_disk(checkpoint):
        model = load(checkpoint, task, folder)
        if all(_runs(model, component) for component in components):
            return model
        del model
        gc.collect()
    return load(checkpoint, task, None)


def _runs(model: nn.Module, component: Component) -> bool:
    """Whether the original and its wrapper can be called at the size of the trace."""
    try:
        for _ in run_original(model, component, [Size({axis.name: axis.traced for axis in component.axes})]):
            pass
    except ConverterError:  # if it is no matter of the weights, it is raised again by the run that counts
        return False
    return True
