"""How an architecture gets from a checkpoint to a model. `converter.records` re-exports it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn

    from converter.recipes import WeightRecipe
    from converter.records import Checkpoint


class ModelSource(Protocol):
    """How an architecture gets from a checkpoint to a model. `converter.sources` has the usual ones."""

    def config(self, checkpoint: Checkpoint) -> Any:
        """The model's configuration object, read from the checkpoint's own files. Imports torch at most lazily."""

    def default_task(self, checkpoint: Checkpoint) -> str:
        """The task the checkpoint was made for, one of the architecture's tasks."""

    def skeleton(self, config: Any, task: str) -> nn.Module:
        """The untouched model class, built from its config. Runs inside the engine's no-weights context."""

    def original(self, checkpoint: Checkpoint, task: str, offload: Path | None) -> nn.Module:
        """The untouched model with its weights, fp32, in eval mode, on the CPU.

        With `offload`, a scratch folder, the weights must stay on disk and be read as they are needed.
        """

    def key_mapping(self, model: nn.Module, checkpoint: Checkpoint) -> Mapping[str, WeightRecipe]:
        """Parameter name of `model` -> `WeightRecipe` over the checkpoint's tensors."""

    def write_tiny(self, folder: Path, *, like: Any | None, seed: int, task: str) -> None:
        """Write a checkpoint of two layers and small odd sizes with seeded random weights, shaped `like` a config."""
