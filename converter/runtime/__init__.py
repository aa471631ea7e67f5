"""Running a package: text to vectors, pages and queries to scores. No torch and no transformers, but for `load`.

    from converter.runtime import EncodeBatches, Encoder, LateInteraction, load

docs/runtime.md is the guide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converter.runtime.batches import EncodeBatches
from converter.runtime.encoder import Encoder
from converter.runtime.images import list_images
from converter.runtime.late_interaction import LateInteraction
from converter.runtime.maxsim import maxsim, top_k

if TYPE_CHECKING:
    from converter.adapters.load import load

__all__ = ["EncodeBatches", "Encoder", "LateInteraction", "list_images", "load", "maxsim", "top_k"]


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from converter.adapters.load import load

    return load
