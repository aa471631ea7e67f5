"""From hidden states of tokens to one vector a text, as sentence-transformers configures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import PackageError, UsageError
from converter.runtime.files import PackageFiles
from converter.runtime.session import Array

Vectors = NDArray[np.float32]

# In the order in which sentence-transformers concatenates them.
MODES = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
_KEYS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@dataclass(frozen=True)
class Pooling:
    """One or more modes, concatenated; and whether the checkpoint normalises what comes out."""

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    include_prompt: bool = True

    def __post_init__(self) -> None:
        if not self.modes or (unknown := [mode for mode in self.modes if mode not in MODES]):
            names = ", ".join(unknown) if self.modes else "none"
            raise UsageError(f"no pooling {names}", remedy=f"choose from {', '.join(MODES)}")

    def __call__(self, hidden: Vectors, mask: Array) -> Vectors:
        """(batch, tokens, dim) and (batch, tokens) to (batch, dim x modes); a text without tokens is zero."""
        parts = [_pool(mode, hidden, mask.astype(np.float32)) for mode in self.modes]
        pooled = np.concatenate(parts, axis=1)
        pooled[~mask.any(axis=1)] = 0
        return pooled


def _pool(mode: str, hidden: Vectors, mask: Vectors) -> Vectors:
    if mode in ("cls", "lasttoken"):
        column = mask.argmax(axis=1) if mode == "cls" else mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
        picked: Vectors = hidden[np.arange(len(hidden)), column]
        return picked
    if mode == "max":
        largest: Vectors = np.where(mask[:, :, None] > 0, hidden, np.float32(-np.inf)).max(axis=1)
        return largest
    if mode == "weightedmean":
        mask = mask * np.arange(1, mask.shape[1] + 1, dtype=np.float32)
    total = np.matmul(mask[:, None, :], hidden)[:, 0]
    count = np.maximum(mask.sum(axis=1, keepdims=True), 1e-9)
    pooled: Vectors = total / (np.sqrt(count) if mode == "mean_sqrt_len" else count)
    return pooled


def normalize_rows(vectors: Vectors) -> Vectors:
    """Rows of length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(lengths, 1e-12)
    return scaled


def read_pooling(files: PackageFiles, mode: str | None, *, in_graph: bool = False) -> Pooling:
    """The pooling of a package: `mode` if given, what modules.json lists, or the mean of all tokens.

    With `in_graph` the graph does all that modules.json lists, and nothing is left to normalise. Otherwise raises
    PackageError for a module that has weights of its own, which are not in the graph.
    """
    modules = files.read_json("modules.json") or []
    if not isinstance(modules, list):
        raise PackageError(f"{files.folder / 'modules.json'} is not a list", remedy="copy the package again")
    kinds = {str(entry.get("type", "")).rpartition(".")[2]: str(entry.get("path", "")) for entry in modules}
    strange = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if strange and not in_graph:
        raise PackageError(
            f"{files.folder} ends in a module {', '.join(strange)}, which is not in its graph",
            remedy="convert it with --task sentence-similarity, which puts Dense modules into the graph"
            if strange == ["Dense"]
            else "run it with sentence-transformers",
        )
    name = f"{kinds.get('Pooling') or '1_Pooling'}/config.json"
    if "Pooling" in kinds:
        files.require(name, purpose="pooling")
    config = files.read_object(name)
    modes = (mode,) if mode else modes_of(config)
    return Pooling(modes, "Normalize" in kinds and not in_graph, bool(config.get("include_prompt", True)))


def modes_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The modes that a `1_Pooling/config.json` names, in the order in which they are concatenated."""
    named = config.get("pooling_mode")
    if isinstance(named, str):
        named = [named]
    if isinstance(named, Sequence):
        return tuple(str(mode).removesuffix("_tokens") for mode in named)
    return tuple(mode for mode in MODES if config.get(_KEYS[mode])) or ("mean",)
