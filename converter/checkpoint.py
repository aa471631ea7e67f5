"""A checkpoint folder, opened: its config and where each tensor lies. Nothing is loaded or mapped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.checkpoints.pickles import index_pickles, pickle_files, pickle_to_safetensors
from converter.checkpoints.quantized import check_unquantized
from converter.checkpoints.tensor_file import read_block, read_header
from converter.errors import CheckpointError, ConfigError, ConverterError, PluginError
from converter.json_files import DOWNLOAD_AGAIN, read_object, read_weight_map
from converter.records import Architecture, Checkpoint, TensorInfo
from converter.sentence_modules import check_transformer, encoder_folder, module_tensors, read_modules

__all__ = [
    "open_as",
    "open_checkpoint",
    "open_for",
    "pickle_to_safetensors",
    "read_block",
    "read_header",
    "read_tensors",
]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def open_for(architecture: Architecture, folder: Path, *, allow_pickle: bool = False) -> Checkpoint:
    """Read a folder as the architecture lays its checkpoints out, or as transformers does."""
    return open_as(architecture, folder, allow_pickle) or open_checkpoint(folder, allow_pickle=allow_pickle)


def open_as(architecture: Architecture, folder: Path, allow_pickle: bool) -> Checkpoint | None:
    """What the architecture's own way of opening a folder finds there; None where it has none, or finds nothing.

    Raises PluginError, naming the architecture, for a fault in its code.
    """
    try:
        opened = None if architecture.opens is None else architecture.opens(folder, allow_pickle)
    except ConverterError:
        raise
    except Exception as error:  # the plugin's code
        raise PluginError(
            f"architecture {architecture.name!r} failed to open {folder.name}: {type(error).__name__}: {error}",
            remedy="fix or uninstall its plugin, or exclude it with CONVERTER_PLUGINS",
        ) from error
    if opened is None:
        return None
    # Files of a checkpoint may hold tensors of one name: what tells them apart is the name in the index.
    tensors = {name: replace(info, name=name) for name, info in opened.tensors.items()}
    return replace(opened, tensors=tensors)


def open_checkpoint(
    folder: Path,
    *,
    source: str | None = None,
    revision: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """Read a folder's config.json and the headers of its weight files, also where modules.json puts them below it.

    `source` is what the user called it, for messages and records; the folder's name if left out. Weights are
    one `model.safetensors` or the shards of its index. With `allow_pickle` a `pytorch_model.bin` will do: it
    is read with `weights_only=True`. Raises CheckpointError for whatever is missing, damaged, unsafe or quantized.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"no checkpoint at {folder}: {'it is a file' if folder.exists() else 'no such folder'}",
            remedy="name a folder that holds config.json and model.safetensors",
        )
    modules = read_modules(folder)
    inner = encoder_folder(folder, modules)
    check_transformer(folder, inner, modules)
    config = _read_config(inner)
    tensors = read_tensors(inner, allow_pickle=allow_pickle)
    source = source or folder.resolve().name
    check_unquantized(config, tensors, source)
    return Checkpoint(
        folder=inner,
        source=source,
        revision=revision,
        config=config,
        tensors=tensors | module_tensors(folder, modules, allow_pickle=allow_pickle),
        trust_remote_code=trust_remote_code,
        modules=modules,
        top=None if inner == folder else folder,
    )


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        pipeline = (folder / "model_index.json").is_file()
        raise CheckpointError(
            f"{folder} has no config.json" + (": it is a pipeline of diffusers" if pipeline else ""),
            remedy="name the folder of a transformers checkpoint, not one above or below it",
        )
    try:
        return read_object(path)
    except CheckpointError as error:
        raise ConfigError(error.message, remedy=error.remedy) from error


def read_tensors(folder: Path, *, allow_pickle: bool = False) -> dict[str, TensorInfo]:
    """Where the tensors of a folder lie: in `model.safetensors`, the shards of its index, or pickles if allowed."""
    if (folder / SINGLE).is_file():
        return read_header(folder / SINGLE)
    if (folder / INDEX).is_file():
        return _read_shards(folder)
    if pickles := pickle_files(folder):
        if allow_pickle:
            return index_pickles(folder)
        raise CheckpointError(
            f"{folder} has only a pickle of weights ({pickles[0].name}), which can run code on loading",
            remedy="`converter download MODEL --output DIR` turns it into safetensors; "
            "--allow-pickle reads it as it is, tensors only",
        )
    raise CheckpointError(f"{folder} holds no weights: neither {SINGLE} nor {INDEX}", remedy=_advice(folder))


def _advice(folder: Path) -> str:
    """What the folder seems to be instead of a whole checkpoint."""
    if (folder / "adapter_config.json").is_file():
        return "it is an adapter: name it with --model, or merge it into its base model first, and open that"
    variants = sorted(path.name for path in folder.glob("model.*.safetensors"))
    if len(variants) == 1:  # transformers loads it when told `variant="fp16"`
        return f"it has a variant alone: rename or link {variants[0]} to {SINGLE} to convert that"
    others = [
        name for name in ("tf_model.h5", "flax_model.msgpack", "model.onnx") if (folder / name).is_file()
    ]
    others += sorted(path.name for ending in ("safetensors", "gguf") for path in folder.glob(f"*.{ending}"))[
        :3
    ]
    found = (
        f"it has {', '.join(others)}, which transformers does not load as a whole model; " if others else ""
    )
    return found + DOWNLOAD_AGAIN


def _read_shards(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor that the index names, out of the shard that the index names for it."""
    places = read_weight_map(folder / INDEX)
    headers = {shard: _read_shard(folder, shard, places) for shard in sorted(set(places.values()))}
    absent = [name for name, shard in places.items() if name not in headers[shard]]
    if absent:
        raise CheckpointError(
            f"{places[absent[0]]} lacks tensor {absent[0]!r}, which {INDEX} places in it{_and_more(absent)}",
            remedy=DOWNLOAD_AGAIN,
        )
    return {name: headers[shard][name] for name, shard in places.items()}


def _read_shard(folder: Path, shard: str, places: Mapping[str, str]) -> dict[str, TensorInfo]:
    path = folder / shard
    if not path.is_file():
        lost = [name for name, place in places.items() if place == shard]
        raise CheckpointError(
            f"{folder} lacks {shard}, which holds {lost[0]!r}{_and_more(lost)}", remedy=DOWNLOAD_AGAIN
        )
    return read_header(path)


def _and_more(names: Iterable[str]) -> str:
    more = len(list(names)) - 1
    return f" and {more} more" if more else ""
