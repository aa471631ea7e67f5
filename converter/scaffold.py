"""A plugin package to start from: the tutorial's files under another name."""

from __future__ import annotations

import keyword
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from converter.errors import UsageError

SUFFIX = ".template"
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def write_plugin(name: str, folder: Path | None = None) -> Path:
    """Write a package whose plugin registers the architecture `name`, and return its folder.

    The package converts and passes parity as it is; its model, wrapper and source are an example to replace. `folder`
    is `converter-<name>` if left out, and may not exist. Raises UsageError for a name that no architecture can have, or
    that another plugin has, and for a folder that cannot be written.
    """
    fields = names(name)
    _require_free(fields)
    target = folder or Path(fields["distribution"])
    try:
        target.mkdir(parents=True)
    except FileExistsError as error:
        raise UsageError(f"{target} exists already", remedy="name another folder with --output") from error
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        for path, template in _templates(files("converter") / "templates" / "plugin", Path()):
            file = target / Path(*(fields["package"] if part == "package" else part for part in path.parts))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(template).substitute(fields), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise _unwritable(target, error) from error
    return target


def _unwritable(target: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{target} cannot be written: {error.strerror}", remedy="name another folder with --output"
    )


def _require_free(fields: Mapping[str, str]) -> None:
    """A name that another distribution's plugin claims would make a package that cannot be loaded."""
    from converter.registry import load_registry

    name, registry = fields["name"], load_registry()
    for plugin in registry.plugins:
        types = (kind for entry in plugin.architectures for kind in registry.architectures[entry].model_types)
        if plugin.distribution != fields["distribution"] and name in (
            plugin.name,
            *plugin.architectures,
            *types,
        ):
            raise UsageError(
                f"{name!r} is taken: plugin {plugin.name!r} ({plugin.label}) has it",
                remedy="choose another name, such as my_" + name,
            )


def names(name: str) -> dict[str, str]:
    """What the architecture, its package and its distribution are called: `my_arch`, `converter_my_arch` and so on."""
    spelled = name.replace("-", "_")
    if not NAME.fullmatch(spelled) or keyword.iskeyword(spelled):
        raise UsageError(
            f"{name!r} cannot name an architecture: it names a Python module, an entry point and a distribution",
            remedy="use small letters, digits and single underscores, a letter first: my_arch",
        )
    return {
        "name": spelled,
        "package": f"converter_{spelled}",
        "distribution": f"converter-{spelled.replace('_', '-')}",
    }


def _templates(folder: Traversable, path: Path) -> Iterator[tuple[Path, str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, path / entry.name)
        elif entry.name.endswith(SUFFIX):
            yield path / entry.name.removesuffix(SUFFIX), entry.read_text(encoding="utf-8")
