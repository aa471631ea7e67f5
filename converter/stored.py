"""Records of a checkpoint on disk. `converter.records` re-exports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converter.checkpoints.lora import Adapter
    from converter.sentence_modules import SentenceModule


@dataclass(frozen=True)
class TensorInfo:
    """Where one checkpoint tensor lies: `length` bytes at `offset` of `file`.

    `dtype` is safetensors' spelling (`BF16`).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    length: int


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: its files, its configuration and an index of its tensors. Nothing is loaded.

    `config` is what config.json holds, `tensors` what the weight files do, unless an architecture opens its checkpoints
    itself: then both are what it says, and tensors of several files need names that tell them apart. `modules` are
    those of a sentence-transformers checkpoint, in their order. With an `adapter`, folder and tensors are the base
    model's, source and revision the adapter's. `top` is the folder of modules.json where config.json, weights and
    tokenizer lie in a folder below it, as in sentence-transformers checkpoints of 2020; `folder` is the one below.
    """

    folder: Path
    source: str
    revision: str | None
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    trust_remote_code: bool = False
    modules: tuple[SentenceModule, ...] = ()
    adapter: Adapter | None = None
    top: Path | None = None

    @property
    def root(self) -> Path:
        """The folder that holds all of the checkpoint."""
        return self.top or self.folder
