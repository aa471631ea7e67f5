"""The files every package gets besides its graphs and converter.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from converter import PackageBuild, PackageFile, hookimpl

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
    return notes


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
