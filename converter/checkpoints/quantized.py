"""Checkpoints that a library has quantized, told before anything is traced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from converter.errors import CheckpointError
from converter.records import TensorInfo

# Where libraries say it: transformers, and compressed-tensors before transformers knew it.
ENTRIES = ("quantization_config", "compression_config")
# Trained with few bits in view: transformers puts layers of ordinary operations into the model, which are traced.
LAYERED = ("bitnet", "gemma")
# GPTQ and AWQ before transformers knew them: config.json says nothing, the names of the tensors do.
PACKED = ".qweight"
# Ways to save memory that whole weights are put into on loading, and that are no part of the model.
ON_LOADING = ("bitsandbytes", "eetq", "fbgemm_fp8", "fp8", "hqq", "quanto", "torchao")
WHOLE = {"F64", "F32", "F16", "BF16"}
KEPT = WHOLE | {"I64", "BOOL"}  # positions and masks among them


def check_unquantized(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], source: str) -> None:
    """Raise CheckpointError for a checkpoint that a library quantized, unless its layers can be traced.

    Its tensors are not the model's: packed, scaled in blocks, or rounded anew by the layers that the library puts in
    the place of the model's own.
    """
    method = _method(config)
    if method is None and any(name.endswith(PACKED) for name in tensors):
        method = "GPTQ or AWQ"
    if method is None or is_layered(config) or (method in ON_LOADING and are_whole(tensors)):
        return
    raise CheckpointError(
        f"{source} is quantized already ({method}), and its weights are not read in that format",
        remedy="convert the checkpoint it was made from, for an adapter with --base-model; `--precisions q8,q4` adds"
        " small graphs",
    )


def rounded_on_loading(config: Mapping[str, Any]) -> str | None:
    """The way in which transformers would quantize whole weights on loading, as config.json asks it to."""
    return None if is_layered(config) else _method(config)


def unquantized(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a config.json without those that say how weights are quantized, at any depth."""
    return {
        name: unquantized(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in ENTRIES
    }


def are_whole(tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether these are a model's own weights: floats of 16 bits or more, with no scales beside them.

    Fine-tunes of a model that was loaded in 4 bits are saved so once they are merged; config.json says 4 bits still.
    """
    owners = {name.removesuffix("weight") for name in tensors if name.endswith(".weight")}
    return bool(owners) and not any(
        _is_scale(name, owners) or info.dtype not in (WHOLE if name.endswith(".weight") else KEPT)
        for name, info in tensors.items()
    )


def _is_scale(name: str, owners: Iterable[str]) -> bool:
    """Whether a tensor says what the weight of its module means: a scale of it, or of what comes in or goes out."""
    owner, _, last = name.rpartition(".")
    beside = f"{owner}." in owners and last not in ("weight", "bias")
    return ".weight." in name or (beside and ("scale" in last or "zero_point" in last))


def is_layered(config: Mapping[str, Any]) -> bool:
    """Whether transformers gives the model layers that round as it was trained to."""
    settings = config.get(ENTRIES[0])
    return isinstance(settings, Mapping) and settings.get("quant_method") in LAYERED


def _method(config: Mapping[str, Any]) -> str | None:
    """What config.json, or a config in it, names as the way its weights are quantized."""
    for entry in ENTRIES:
        if found := config.get(entry):
            named = found.get("quant_method") if isinstance(found, Mapping) else None
            old = isinstance(found, Mapping) and {"load_in_4bit", "load_in_8bit"} & found.keys()
            return str(named or ("bitsandbytes" if old else entry))
    parts = (part for part in config.values() if isinstance(part, Mapping))
    return next((method for part in parts if (method := _method(part))), None)
