"""The files every package gets besides its graphs and converter.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter import PackageBuild, PackageFile, hookimpl
from converter.json_files import object_or_empty

if TYPE_CHECKING:
    from converter.hookspecs import Register


def _companions(build: PackageBuild) -> Sequence[str]:
    from converter.checkpoints.companions import copy_companions

    if build.checkpoint is None:  # a package that gets more precisions has them
        return ()
    adapter, checkpoint = build.checkpoint.adapter, build.checkpoint
    over = None if adapter is None else adapter.folder
    inner = None if checkpoint.top is None else checkpoint.folder
    _, notes = copy_companions(checkpoint.root, build.folder, over=over, inner=inner)
    return [*notes, *_whole(checkpoint.config, build.folder / "config.json")]


def _whole(config: Mapping[str, Any], path: Path) -> list[str]:
    """Clients would quantize on loading, as config.json says, what is no longer theirs to load."""
    from converter.checkpoints.quantized import rounded_on_loading, unquantized

    method = rounded_on_loading(config)
    if method is None:
        return []
    path.write_text(json.dumps(unquantized(object_or_empty(path)), indent=2) + "\n", encoding="utf-8")
    return [
        f"config.json asks for {method} on loading; the weights are whole and were taken so, and the package's"
        " config.json does not ask for it"
    ]


def _tokenizer(build: PackageBuild) -> Sequence[str]:
    from converter.packages.tokenizer_file import write_tokenizer

    note = write_tokenizer(build.checkpoint.folder, build.folder) if build.checkpoint else None
    return (note,) if note else ()


def _clients(build: PackageBuild) -> Sequence[str]:
    from converter.packages.client_files import write_client_files

    return write_client_files(build.folder)


@hookimpl
def register_package_files(register: Register[PackageFile]) -> None:
    register(PackageFile("companions", _companions, 100, "config, tokenizer, processor and licence files"))
    register(
        PackageFile("tokenizer", _tokenizer, 150, "tokenizer.json, where a checkpoint has older files only")
    )
    register(PackageFile("client_files", _clients, 800, "spellings that other clients read"))
