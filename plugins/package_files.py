"""The files every package gets besides its graphs and converter.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from converter import PackageBuild, PackageFile, hookimpl

if TYPE_CHECKING:
    from converter.hookspecs import Register


def _companions(build: PackageBuild) -> Sequence[str]:
    from converter.companions import copy_companions

    if build.checkpoint is None:  # a package that gets more precisions has them
        return ()
    _, notes = copy_companions(build.checkpoint.folder, build.folder)
    return notes


@hookimpl
def register_package_files(register: Register[PackageFile]) -> None:
    register(PackageFile("companions", _companions, 100, "config, tokenizer, processor and licence files"))
