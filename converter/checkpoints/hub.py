"""The model hub: its cache, what it says about a model, and fetching what a conversion needs.

The hub is given seconds to answer. When it does not, the cache is tried, and then the error says what to do
without it.
"""

from __future__ import annotations

import glob
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from converter.checkpoints.companions import check_weights, choose_files, is_weight, list_files
from converter.errors import CheckpointError, ConverterError
from converter.json_files import read_weight_map

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

T = TypeVar("T")
# Seconds for the hub's first answer; a network that swallows packets would take minutes to say so.
PATIENCE = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or 6)
WITHOUT_HUB = "name a local folder with --model PATH, or try a small random model with --tiny"


@dataclass(frozen=True)
class HubModel:
    """A model on the hub, and how to get at it."""

    name: str
    revision: str | None = None
    token: str | None = None
    cache_dir: str | Path | None = None
    allow_pickle: bool = True


def find_on_hub(model: HubModel) -> tuple[Path, str]:
    """The folder in the cache, fetched if need be, and the commit hash. Raises CheckpointError."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError

    try:
        cached = _cached(model)
    except HFValidationError as error:
        raise CheckpointError(
            f"{model.name!r} is neither a folder nor a hub id", remedy="check the name given with --model"
        ) from error
    if constants.HF_HUB_OFFLINE:
        if cached is None:
            raise CheckpointError(
                f"{model.name} is not in the hub's cache, and HF_HUB_OFFLINE is set", remedy=WITHOUT_HUB
            )
        return cached, cached.name
    try:
        info = _within(PATIENCE, lambda: _ask(model))
    except ConverterError:
        raise
    except Exception as error:  # the client under huggingface_hub changes, and its errors share no base
        if cached is not None:
            return cached, cached.name
        raise _unreachable(model.name, error) from error
    return _fetch(model, info)


def _ask(model: HubModel) -> ModelInfo:
    """What the hub says about a model. Its refusals become CheckpointError; its silence stays what it is."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, revision = model.name, model.revision
    try:
        return HfApi(token=model.token).model_info(name, revision=revision, timeout=PATIENCE)
    except GatedRepoError as error:
        raise CheckpointError(
            f"{name} is gated: the hub gives it only to those who accepted its terms",
            remedy=f"accept them at https://huggingface.co/{name}, then pass --token or run `hf auth login`",
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{name} has no revision {revision!r}", remedy="check --revision") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"there is no folder {name}, and the hub has no model of that name, or it is private",
            remedy="check --model; for a private model pass --token or run `hf auth login`",
        ) from error
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise CheckpointError(
            f"the hub refuses the token for {name} ({error.response.status_code})",
            remedy="pass a valid one with --token, or run `hf auth login`",
        ) from error


def _within(seconds: float, call: Callable[[], T]) -> T:
    """The result of `call`, or TimeoutError. Name resolution and connecting have no timeout of their own."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # raised by the caller, below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="ask the hub")
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    return results[0]


def _unreachable(name: str, error: BaseException) -> CheckpointError:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return CheckpointError(
        f"{name} is neither a folder nor in the hub's cache, and {endpoint} cannot be reached"
        f" ({type(error).__name__}: {error})",
        remedy=WITHOUT_HUB,
    )


def _fetch(model: HubModel, info: ModelInfo) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download

    wanted = choose_files([entry.rfilename for entry in info.siblings or []])
    check_weights(wanted, model.name, allow_pickle=model.allow_pickle)
    try:
        folder = snapshot_download(
            model.name,
            revision=model.revision,
            token=model.token,
            cache_dir=model.cache_dir,
            allow_patterns=[glob.escape(file) for file in wanted],
        )
    except Exception as error:  # as in find_on_hub
        raise CheckpointError(
            f"the download of {model.name} was interrupted ({type(error).__name__}: {error})",
            remedy="run it again: it resumes where it stopped",
        ) from error
    return Path(folder), Path(folder).name


def _cached(model: HubModel) -> Path | None:
    """The snapshot of a model in the hub's cache, if config and all weights are in it."""
    from huggingface_hub import try_to_load_from_cache

    # Checkpoints of sentence-transformers may have their config in a folder of its own.
    found = (
        try_to_load_from_cache(model.name, name, cache_dir=model.cache_dir, revision=model.revision)
        for name in ("config.json", "modules.json")
    )
    config = next((path for path in found if isinstance(path, str)), None)
    if config is None:
        return None
    folder = Path(config).parent
    files = list_files(folder)
    indices = [folder / file for file in files if file.endswith(".index.json")]
    try:
        shards = {
            PurePosixPath(shard).as_posix() for path in indices for shard in read_weight_map(path).values()
        }
    except CheckpointError:
        return None
    return folder if any(is_weight(file) for file in files) and shards <= set(files) else None
