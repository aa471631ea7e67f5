"""LoRA adapters: which weights of a base model they change, and by what. Merging is a recipe; nothing is loaded.

Hu et al., LoRA, https://arxiv.org/abs/2106.09685; Kalajdzievski, rsLoRA, https://arxiv.org/abs/2312.03732. The layout
is peft's: adapter_config.json and adapter_model.safetensors. What a merge cannot express, such as DoRA, is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.checkpoints.pickles import index_pickle
from converter.checkpoints.tensor_file import read_header
from converter.errors import CheckpointError
from converter.json_files import DOWNLOAD_AGAIN, read_object
from converter.recipes import AddLowRank, Cast, Load, Transpose, WeightRecipe, leaves
from converter.records import Checkpoint, TensorInfo

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
MERGE_FIRST = (
    "merge it with the library that trained it (peft's merge_and_unload), and convert what that saves"
)

OTHER_BASE = "is this the base model it was trained on? --base-model names another"

_FACTOR = re.compile(r"(?P<path>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.weight)?")
# Settings under which an adapted layer is more than its weights plus a low-rank product.
_REFUSED = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "layer_replication",
    "alora_invocation_tokens",
    "trainable_token_indices",
    "target_parameters",
    "monteclora_config",
    "velora_config",
)
# Ways to begin training that leave the base model itself changed.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class LowRank:
    """What is added to one weight: `scale * b @ a`, transposed for embeddings and for weights stored (in, out)."""

    a: TensorInfo
    b: TensorInfo
    scale: float
    turned: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that it is added to."""
        rows, columns = self.b.shape[0], self.a.shape[1]
        return (columns, rows) if self.turned else (rows, columns)

    def added_to(self, base: WeightRecipe) -> WeightRecipe:
        """The merged weight, in float32: rounding it to the base's bfloat16 would lose much of what was learned."""
        a, b = Load(self.a), Load(self.b)
        if self.turned:
            return AddLowRank(_exact(base), Transpose(b, (1, 0)), Transpose(a, (1, 0)), self.scale)
        return AddLowRank(_exact(base), a, b, self.scale)


def _exact(base: WeightRecipe) -> WeightRecipe:
    return Cast(base, np.dtype(np.float32))


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk. Weights are named as in the model it was trained on, without peft's prefix.

    added     weight -> its low-rank change
    replaced  weight -> the tensor that stands in for it, of a module that was trained as a whole
    base      what the base model is called, and its commit hash where that is known
    task      what peft calls the task it was trained for, FEATURE_EXTRACTION say; empty where it names none
    """

    folder: Path
    source: str
    added: Mapping[str, LowRank]
    replaced: Mapping[str, TensorInfo]
    base: str = ""
    base_revision: str | None = None
    task: str = ""

    @property
    def weights(self) -> frozenset[str]:
        return frozenset((*self.added, *self.replaced))

    def applied(self, weight: str, base: WeightRecipe | None) -> WeightRecipe:
        """A weight of the base model, if it has one, with the change of the adapter's weight of that name."""
        replaced = self.replaced.get(weight)
        shape = self.added[weight].shape if replaced is None else replaced.shape
        if base is None and replaced is None:
            raise CheckpointError(
                f"{self.source} changes {weight!r}, which {self.base} does not store", remedy=OTHER_BASE
            )
        if base is not None and base.shape != shape:
            raise CheckpointError(
                f"{self.source} changes {weight!r} of shape {shape}, in {self.base} it has shape {base.shape}",
                remedy=OTHER_BASE,
            )
        if replaced is not None:
            return Load(replaced)
        assert base is not None
        return self.added[weight].added_to(base)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter instead of a model."""
    own = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    return (folder / CONFIG).is_file() and not any((folder / name).is_file() for name in own)


def base_model_of(folder: Path) -> str:
    """The base model that an adapter names; empty where it names none. Raises CheckpointError if it is damaged."""
    name = read_object(folder / CONFIG).get("base_model_name_or_path")
    return name if isinstance(name, str) else ""


def open_adapter(folder: Path, source: str, *, allow_pickle: bool = False) -> Adapter:
    """Read what an adapter changes. Raises CheckpointError for a kind, a setting or a tensor that cannot be merged."""
    config = read_object(folder / CONFIG)
    _check(config, source)
    factors: dict[str, dict[str, TensorInfo]] = {}
    replaced: dict[str, TensorInfo] = {}
    embeddings: set[str] = set()
    for name, info in _index(folder, source, allow_pickle).items():
        short = name.removeprefix("base_model.model.")
        found = _FACTOR.fullmatch(short)
        if found:
            factors.setdefault(found["path"], {})[found["side"]] = info
            embeddings |= {found["path"]} if found["embedding"] else set()
        elif "lora_" in short:
            raise CheckpointError(f"{source}: {name!r} cannot be merged", remedy=MERGE_FIRST)
        else:
            replaced[short.replace(".modules_to_save", "").replace(".base_layer", "")] = info
    turned = bool(config.get("fan_in_fan_out"))
    added = {
        f"{path}.weight": _low_rank(path, sides, config, turned or path in embeddings, source)
        for path, sides in factors.items()
    }
    if not added and not replaced:
        raise CheckpointError(f"{source} has an adapter without tensors", remedy=DOWNLOAD_AGAIN)
    return Adapter(folder, source, added, replaced, task=str(config.get("task_type") or ""))


def require_applied(checkpoint: Checkpoint, mapping: Mapping[str, WeightRecipe]) -> None:
    """Raise CheckpointError for a weight of the checkpoint's adapter that goes nowhere: `mapping` does not use it.

    A weight of a part that is not converted, which the base model's checkpoint has, is no error.
    """
    adapter = checkpoint.adapter
    if adapter is None:
        return
    used = {
        leaf.info.name for recipe in mapping.values() for leaf in leaves(recipe) if isinstance(leaf, Load)
    }
    own = {weight: change.a.name for weight, change in adapter.added.items()}
    own |= {weight: info.name for weight, info in adapter.replaced.items()}
    lost = sorted(
        weight for weight, name in own.items() if name not in used and weight not in checkpoint.tensors
    )
    if lost:
        raise CheckpointError(
            f"{checkpoint.source} changes {lost[0]!r}, which {adapter.base} does not have"
            f"{f', and {len(lost) - 1} more' if len(lost) > 1 else ''}",
            remedy="is this the base model, and --arch the architecture, that it was trained with?",
        )


def recipe_beside(checkpoint: Checkpoint, name: str) -> WeightRecipe:
    """A tensor that lies beside the backbone's, such as a projection's, as the checkpoint's adapter leaves it."""
    adapter, stored = checkpoint.adapter, checkpoint.tensors.get(name)
    load = None if stored is None else Load(stored)
    if adapter is not None and name in adapter.weights:
        return adapter.applied(name, load)
    if load is None:
        raise CheckpointError(
            f"{checkpoint.source} has no tensor {name!r}",
            remedy="is --arch the architecture of this checkpoint, or of the adapter's base model?",
        )
    return load


def _check(config: Mapping[str, Any], source: str) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{source} is an adapter of type {kind}, not LORA", remedy=MERGE_FIRST)
    bad = [name for name in _REFUSED if config.get(name)]
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        bad.append(f"init_lora_weights={start}")
    if config.get("bias", "none") != "none":
        bad.append(f"bias={config['bias']}")
    if bad:
        raise CheckpointError(
            f"{source} is an adapter with {', '.join(bad)}, which cannot be merged here", remedy=MERGE_FIRST
        )


def _index(folder: Path, source: str, allow_pickle: bool) -> dict[str, TensorInfo]:
    if (folder / WEIGHTS).is_file():
        return read_header(folder / WEIGHTS)
    if (folder / PICKLE).is_file():
        if allow_pickle:
            return index_pickle(folder / PICKLE)
        raise CheckpointError(
            f"{source} has its adapter only as a pickle, which can run code on loading",
            remedy="--allow-pickle reads it, tensors only",
        )
    raise CheckpointError(f"{source} has {CONFIG} but no {WEIGHTS}", remedy=DOWNLOAD_AGAIN)


def _low_rank(
    path: str, sides: Mapping[str, TensorInfo], config: Mapping[str, Any], turned: bool, source: str
) -> LowRank:
    if set(sides) != {"A", "B"}:
        raise CheckpointError(f"{source}: {path} has only one of its two factors", remedy=DOWNLOAD_AGAIN)
    a, b = sides["A"], sides["B"]
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise CheckpointError(
            f"{source}: the factors of {path} are not matrices: {a.shape}, {b.shape}", remedy=MERGE_FIRST
        )
    rank = _setting(config, "rank_pattern", "r", path, source)
    if not a.shape[0] == b.shape[1] == rank:
        raise CheckpointError(
            f"{source}: {path} has factors {b.shape} and {a.shape}, {CONFIG} says rank {rank}",
            remedy=DOWNLOAD_AGAIN,
        )
    alpha = _setting(config, "alpha_pattern", "lora_alpha", path, source)
    return LowRank(a, b, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank), turned)


def _setting(config: Mapping[str, Any], patterns: str, default: str, path: str, source: str) -> float:
    """The number for one module: of the first pattern that its path ends in, as peft matches them."""
    for pattern, value in (config.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return float(value)
    if not isinstance(config.get(default), int | float):
        raise CheckpointError(f"{source}: {CONFIG} has no number {default!r}", remedy=DOWNLOAD_AGAIN)
    return float(config[default])
