"""An encoder as engines of bulk work call it: columns in, the same columns and one of vectors out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Unpack

from converter.errors import UsageError
from converter.runtime.encoder import Encoder
from converter.runtime.session import SessionKeywords


class EncodeBatches:
    """A plain callable for Ray Data's `map_batches`, `datasets.map(batched=True)` and their kin.

    A batch maps names of columns to their values; `text` is the one to encode, and `vector` the one that is added,
    float32 (rows, dimension). The other settings are those of `Encoder` and of its `encode`. It can be pickled before
    and after it has run, and holds nothing open until it is called. One thread a worker is usual, as the engine runs as
    many workers as there are cores.

    Raises UsageError for a batch without the column, and what `Encoder` raises when it is first called.
    """

    def __init__(
        self,
        package: str | Path,
        *,
        text: str = "text",
        vector: str = "vector",
        batch_size: int = 32,
        normalize: bool | None = None,
        prompt_name: str | None = None,
        precision: str = "auto",
        pooling: str | None = None,
        max_length: int | None = None,
        **session: Unpack[SessionKeywords],
    ) -> None:
        self.text, self.vector = text, vector
        self._opened = partial(
            Encoder, package, precision=precision, pooling=pooling, max_length=max_length, **session
        )
        self._encoding: dict[str, Any] = {
            "batch_size": batch_size,
            "normalize": normalize,
            "prompt_name": prompt_name,
        }

    @cached_property
    def encoder(self) -> Encoder:
        """Opened when it is first needed, in the process that needs it."""
        return self._opened()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "encoder"}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        if self.text not in batch:
            raise UsageError(
                f"the batch has no column {self.text!r}; it has {', '.join(batch) or 'none'}",
                remedy="name the column of texts with text=...",
            )
        return {**batch, self.vector: self.encoder.encode(list(batch[self.text]), **self._encoding)}
