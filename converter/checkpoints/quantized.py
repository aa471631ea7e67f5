"""Checkpoints that a library has quantized, told before anything is traced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from converter.errors import CheckpointError

# Where libraries say it: transformers, and compressed-tensors before transformers knew it.
ENTRIES = ("quantization_config", "compression_config")
# GPTQ and AWQ before transformers knew them: config.json says nothing, the names of the tensors do.
PACKED = ".qweight"


def check_unquantized(config: Mapping[str, Any], tensors: Iterable[str], source: str) -> None:
    """Raise CheckpointError for a checkpoint that a library quantized.

    Its tensors are not the model's: packed, scaled in blocks, or rounded anew by the layers that the library puts in
    the place of the model's own.
    """
    method = _method(config)
    if method is None and any(name.endswith(PACKED) for name in tensors):
        method = "GPTQ or AWQ"
    if method is None:
        return
    raise CheckpointError(
        f"{source} is quantized already ({method}), and its weights are not read in that format",
        remedy="convert the checkpoint it was made from, for an adapter with --base-model; `--precisions q8,q4` adds"
        f" small graphs. If its weights are whole after all, take {' or '.join(ENTRIES)} out of config.json",
    )


def _method(config: Mapping[str, Any]) -> str | None:
    """What config.json, or a config in it, names as the way its weights are quantized."""
    for entry in ENTRIES:
        if found := config.get(entry):
            named = found.get("quant_method") if isinstance(found, Mapping) else None
            return str(named or entry)
    parts = (part for part in config.values() if isinstance(part, Mapping))
    return next((method for part in parts if (method := _method(part))), None)
