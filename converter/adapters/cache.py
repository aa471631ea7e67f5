"""Past key values as transformers' generation handles them: an object that it hands back at every step."""

from __future__ import annotations

from typing import Any

from transformers import Cache

from converter.errors import UsageError
from converter.runtime.bound import BoundGraph


class GraphCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """The states of a graph after `length` positions. transformers hands it on and reorders it; the graph fills it."""

    def __init__(self, graph: BoundGraph) -> None:
        super().__init__(layers=[])
        self.graph = graph
        self.states: dict[str, Any] = {}
        self.length = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions seen so far, padding included."""
        return self.length

    def reorder_cache(self, beam_idx: Any) -> None:
        rows = beam_idx.cpu().numpy()
        if (rows != range(len(rows))).any():
            self.states = {name: self.graph.pick(state, rows) for name, state in self.states.items()}

    def crop(self, *_: Any, **__: Any) -> None:
        raise UsageError(
            "past key values of a graph cannot be shortened",
            remedy="assisted and speculative decoding need the torch model",
        )
