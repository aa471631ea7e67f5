"""Opening what a request names: a checkpoint, or an adapter together with its base model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converter.checkpoint import open_checkpoint
from converter.checkpoints.download import resolve_model
from converter.checkpoints.lora import base_model_of, is_adapter, open_adapter
from converter.errors import CheckpointError, UsageError
from converter.records import Checkpoint
from converter.request import ConversionRequest


def open_source(request: ConversionRequest, folder: Path, source: str) -> Checkpoint:
    """The checkpoint in `folder`, where the request's model, called `source`, was found. Nothing is loaded.

    An adapter is opened as its base model's checkpoint that carries the adapter. Raises CheckpointError for what is
    missing or cannot be merged, UsageError for a base model given with something that is no adapter.
    """
    if not is_adapter(folder):
        if request.base_model is not None:
            raise UsageError(
                f"{source} is not an adapter, so there is nothing to merge into {request.base_model}",
                remedy="leave --base-model out",
            )
        return open_checkpoint(folder, source=source, allow_pickle=request.allow_pickle)
    adapter = open_adapter(folder, source, allow_pickle=request.allow_pickle)
    base_folder, base, revision = _resolve_base(request, folder, source)
    if is_adapter(base_folder):
        raise CheckpointError(
            f"{base}, the base model of {source}, is an adapter itself", remedy="merge that one first"
        )
    # What is wrong in the base model's folder is told of the base model.
    checkpoint = open_checkpoint(base_folder, source=base, allow_pickle=request.allow_pickle)
    return replace(checkpoint, source=source, adapter=replace(adapter, base=base, base_revision=revision))


def _resolve_base(request: ConversionRequest, folder: Path, source: str) -> tuple[Path, str, str | None]:
    """The base model asked for, or the one the adapter names: a path may be meant from the adapter's folder."""
    named = request.base_model or base_model_of(folder)
    if not named:
        raise CheckpointError(
            f"{source} is an adapter and does not name its base model", remedy="name it with --base-model"
        )
    beside = folder / named
    if request.base_model is None and not Path(named).is_dir() and beside.is_dir():
        named = str(beside)
    try:
        return resolve_model(
            named, token=request.token, cache_dir=request.cache_dir, allow_pickle=request.allow_pickle
        )
    except CheckpointError as error:
        raise CheckpointError(
            f"the base model of adapter {source} cannot be found: {error.message}",
            remedy="name it, a folder or a hub id, with --base-model",
        ) from error
