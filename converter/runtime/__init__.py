"""Running a package: text to vectors, pages and queries to scores. No torch and no transformers.

    from converter.runtime import Encoder, LateInteraction

docs/runtime.md is the guide.
"""

from __future__ import annotations

from converter.runtime.encoder import Encoder
from converter.runtime.images import list_images
from converter.runtime.late_interaction import LateInteraction
from converter.runtime.maxsim import maxsim, top_k

__all__ = ["Encoder", "LateInteraction", "list_images", "maxsim", "top_k"]
