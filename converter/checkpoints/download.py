"""From a model's name to a folder on this disk: a local folder, the hub's cache, or the hub."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

from converter.checkpoints.companions import check_weights, choose_files, copy_file, is_pickle, list_files
from converter.checkpoints.hub import WITHOUT_HUB, HubModel, find_on_hub
from converter.errors import CheckpointError, UsageError
from converter.packages.package import stage_package, write_record
from converter.packages.staging import RECORD, check_target
from converter.paths import stays_inside

KIND = "checkpoint"
_SNAPSHOT = re.compile(r"models--(.+)/snapshots/([0-9a-f]{40})")


def resolve_model(
    model: str | None,
    *,
    reference: str = "",
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    allow_pickle: bool = True,
) -> tuple[Path, str, str | None]:
    """The folder of a checkpoint, the name of its source, and its commit hash where that is known.

    `model` is a folder or a hub id; without it `reference`, a hub id, is meant. Raises CheckpointError: a
    folder that does not exist, a model that the hub does not have or give, a hub that cannot be reached.
    """
    name = model or reference
    if not name:
        raise UsageError(
            "no model is given, and the architecture has no reference checkpoint", remedy=WITHOUT_HUB
        )
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise UsageError(
                f"{name} is a folder and has no revision {revision}", remedy="leave --revision out"
            )
        return (path.resolve(), *_origin(path.resolve()))
    if path.exists():
        raise CheckpointError(
            f"{name} is a file", remedy=f"name the checkpoint's folder: --model {path.parent}"
        )
    if _looks_like_path(name):
        raise CheckpointError(f"there is no folder {name}", remedy="check the path given with --model")
    folder, commit = find_on_hub(HubModel(name, revision, token, cache_dir, allow_pickle))
    return folder, name, commit


def download(
    model: str,
    output: Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    allow_pickle: bool = True,
    overwrite: bool = False,
) -> Path:
    """Make `output` a local copy of a checkpoint, weights as safetensors, and return it.

    `model` is a hub id or a folder. A pickle is read with torch's `weights_only=True`, which runs no code.
    The copy carries a converter.json with source, revision and hashes, and appears in one step (see
    `stage_package`).
    """
    check_target(output, overwrite=overwrite, kind=KIND)
    folder, source, commit = resolve_model(
        model, revision=revision, token=token, cache_dir=cache_dir, allow_pickle=allow_pickle
    )
    names = choose_files(list_files(folder))
    check_weights(names, source, allow_pickle=allow_pickle)
    for name in names:
        if not stays_inside(folder / name, folder):
            raise CheckpointError(
                f"{folder / name} is a link to a file outside its folder", remedy="copy the file there"
            )
    with stage_package(output, overwrite=overwrite, source=folder, kind=KIND) as staging:
        for name in names:
            if not PurePosixPath(name).name.startswith("pytorch_model"):
                copy_file(folder / name, staging.folder / name)
        for place in {PurePosixPath(name).parent for name in filter(is_pickle, names)}:
            from converter.checkpoint import pickle_to_safetensors

            pickle_to_safetensors(folder / place, staging.folder / place)
        write_record(staging.folder, {"source": {"name": source, "revision": commit}}, kind=KIND)
    return staging.target


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name or Path(name).is_absolute()


def _origin(folder: Path) -> tuple[str, str | None]:
    """Source and revision of a local folder: as `download` or the hub's cache noted, or just its name."""
    try:
        source = json.loads((folder / RECORD).read_text(encoding="utf-8"))["source"]
        return str(source["name"]), source["revision"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if cached := _SNAPSHOT.search(folder.as_posix()):
        return cached[1].replace("--", "/"), cached[2]
    return folder.name, None
