"""Where plugins may be: files of `converter.plugins`, and entry points of what is installed. Loads none."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions
from pkgutil import iter_modules
from typing import Any

from converter.text import did_you_mean

GROUP = "converter"

# (plugin, distribution, message) of an entry point that cannot even be tried
Refusal = tuple[str, str, str]


@dataclass(frozen=True)
class Candidate:
    """A plugin that can be tried: `load()` imports it and hands back the object that carries the hooks.

    `may_be_shared`: without a hook it is a file that other plugins share, not a broken plugin.
    """

    name: str
    distribution: str
    version: str
    module: str
    load: Callable[[], Any]
    may_be_shared: bool = False

    @property
    def label(self) -> str:
        return f"{self.distribution} {self.version}".strip()


def builtin_candidates() -> list[Candidate]:
    """Every module of `converter.plugins`, by name: a new file is found by itself."""
    from converter import __version__, plugins

    return [
        Candidate(
            module.name, "converter", __version__, path, partial(import_module, path), may_be_shared=True
        )
        for module in sorted(iter_modules(plugins.__path__), key=lambda module: module.name)
        if not module.name.startswith("_")
        for path in (f"{plugins.__name__}.{module.name}",)
    ]


def third_party_candidates(selected: frozenset[str] | None) -> tuple[list[Candidate], list[Refusal]]:
    """Entry points by name, only those in `selected` (None is all), and those that cannot be tried.

    Two distributions with one entry-point name refuse each other: neither can be told to be the one meant.
    """
    declared: defaultdict[str, list[Candidate]] = defaultdict(list)
    refusals: list[Refusal] = []
    for distribution in _installed():
        try:
            entry_points = {(entry.name, entry.value): entry for entry in _entry_points(distribution)}
        except Exception as error:  # the metadata is another package's file
            refusals.append(
                ("unknown", _label(distribution), f"its entry_points.txt cannot be read: {error}")
            )
            continue
        for entry in entry_points.values():
            declared[entry.name].append(_candidate(entry, distribution))
    wanted = set(declared) if selected is None else selected
    refusals += [
        (
            name,
            "not installed",
            f"CONVERTER_PLUGINS names it, but no distribution declares it{did_you_mean(name, declared)}",
        )
        for name in sorted(wanted - set(declared))
    ]
    candidates: list[Candidate] = []
    for name in sorted(wanted & set(declared)):
        first = declared[name][0]
        if len(declared[name]) == 1 and first.module:
            candidates.append(first)
            continue
        if len(declared[name]) == 1:
            refusals.append((name, first.label, "its entry point names no module: write `package.module`"))
            continue
        labels = ", ".join(sorted(candidate.label for candidate in declared[name]))
        refusals.append(
            (name, labels, "declared more than once, so none was loaded; rename one or uninstall it")
        )
    return candidates, refusals


def _installed() -> Iterator[Distribution]:
    """Each installed distribution once, the first on the path, as an import would find it."""
    seen: set[str] = set()
    for distribution in distributions():
        name = re.sub(r"[-_.]+", "-", _field(distribution, "Name")).lower()
        if name not in seen:
            seen.update({name} - {""})
            yield distribution


def _entry_points(distribution: Distribution) -> list[EntryPoint]:
    return [entry for entry in distribution.entry_points if entry.group == GROUP]


def _candidate(entry: EntryPoint, distribution: Distribution) -> Candidate:
    module = entry.module if entry.pattern.match(entry.value) else ""
    return Candidate(
        entry.name, _field(distribution, "Name"), _field(distribution, "Version"), module, entry.load
    )


def _label(distribution: Distribution) -> str:
    return f"{_field(distribution, 'Name') or 'nameless'} {_field(distribution, 'Version')}".strip()


def _field(distribution: Distribution, name: str) -> str:
    """A field of the metadata; empty where a half-removed installation left none that can be read."""
    try:
        return str(distribution.metadata[name] or "")
    except Exception:  # another package's file; a distribution without a name still has entry points
        return ""
