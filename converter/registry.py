"""Finding plugins, asking them what they bring, and surviving the broken ones.

Built-in plugins are the modules of `converter.plugins`; a third party's are the entry points of the group
`converter`. Both take the same road, one by one: a plugin that fails becomes a `PluginFailure` and registers
nothing at all, and everything else goes on working.

    CONVERTER_PLUGINS=a,b        load only these third-party entry points; empty loads none
    CONVERTER_STRICT_PLUGINS=1   any failure is fatal
    CONVERTER_PLUGIN_TIMEOUT=10  seconds a plugin may take to import, and again to register
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import Any

from converter.additions import CardSection, GraphPass, Metric, PackageFile, Precision
from converter.errors import PluginError, UsageError
from converter.hookspecs import API_VERSION
from converter.records import Architecture, Checkpoint
from converter.registration.assembly import KINDS, Assembly, Contribution, Override
from converter.registration.candidates import builtin_candidates, third_party_candidates
from converter.registration.loading import Loader, PluginFailure
from converter.text import did_you_mean

DEFAULT_TIMEOUT = 10.0


@dataclass(frozen=True)
class Plugin:
    """A plugin that works: the distribution it came with, and the names of what it registered by `Registry`'s fields.

    `api` is the version of the extension surface it states, or empty; `imported` are large packages that loading it
    imported, for which every command waits.
    """

    name: str
    distribution: str
    version: str
    api: str = ""
    brought: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    imported: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.distribution} {self.version}".strip()

    @property
    def architectures(self) -> tuple[str, ...]:
        return self.brought.get("architectures", ())


@dataclass(frozen=True)
class Registry:
    """Everything the plugins brought, in a fixed order, and what went wrong with the others."""

    architectures: Mapping[str, Architecture]
    passes: tuple[GraphPass, ...] = ()
    precisions: Mapping[str, Precision] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    package_files: tuple[PackageFile, ...] = ()
    card_sections: tuple[CardSection, ...] = ()
    plugins: tuple[Plugin, ...] = ()
    overrides: tuple[Override, ...] = ()
    failures: tuple[PluginFailure, ...] = ()

    def find(self, name: str, checkpoint: Checkpoint | None = None) -> Architecture:
        """The architecture called `name`, the one that owns `name` as a model type, or one that stands in for it.

        A dash and an underscore count as the same where that leaves no doubt. Raises UsageError with near
        misses, and with the plugins that failed, since one of them may have brought it.
        """
        found = self.known(name) or self.stand_in(name, checkpoint)
        if found is None:
            raise self._unknown(name)
        return found

    def known(self, name: str) -> Architecture | None:
        """The registered architecture of this name or model type, if there is one."""
        return self.architectures.get(name) or self.for_model_type(name) or self._alike(name)

    def stand_in(self, model_type: str, checkpoint: Checkpoint | None) -> Architecture | None:
        """What stands in for a model type, whether or not anybody owns it. Packages name it by its identifier."""
        for name, stand_in in ((entry.name, entry.stand_in) for entry in self.architectures.values()):
            if stand_in is None:
                continue
            alike = (kind for kind in stand_in.model_types() if _loose(kind) == _loose(model_type))
            for kind in chain([model_type], alike):
                if found := stand_in.architecture(kind, checkpoint):
                    return replace(found, stands_in=name)
        return None

    def for_model_type(self, model_type: str) -> Architecture | None:
        """The architecture that owns a `model_type` of config.json, if any does."""
        for architecture in self.architectures.values():
            if model_type in architecture.model_types:
                return architecture
        return None

    @property
    def strangers(self) -> dict[str, str]:
        """Plugins of third parties and the distributions they came with."""
        return {plugin.name: plugin.label for plugin in self.plugins if plugin.distribution != "converter"}

    def _alike(self, name: str) -> Architecture | None:
        found = [
            architecture
            for architecture in self.architectures.values()
            if _loose(name) in map(_loose, (architecture.name, *architecture.model_types))
        ]
        return found[0] if len(found) == 1 else None

    def _unknown(self, name: str) -> UsageError:
        entries = self.architectures.values()
        tried = [kind for entry in entries if entry.stand_in for kind in entry.stand_in.model_types()]
        if _loose(name) in map(_loose, tried):
            message = (
                f"model type {name!r} has no class for any task that is converted without a plugin for it"
            )
            remedy = f"docs/plugins.md shows how to write one; {self._remedy()}"
            return UsageError(message, remedy=remedy, topic="architecture")
        owned = [kind for entry in entries for kind in entry.model_types]
        near = did_you_mean(_loose(name), dict.fromkeys((*self.architectures, *owned, *tried)), most=3)
        message = f"unknown architecture {name!r}{near}"
        return UsageError(message, remedy=self._remedy(), topic="architecture")

    def _remedy(self) -> str:
        remedy = "`converter list` shows every architecture and the model types it takes"
        if self.failures:
            broken = "\n    ".join(map(str, self.failures))
            remedy += f"; these plugins failed to load and may have brought it:\n    {broken}"
        return remedy


def load_registry(environ: Mapping[str, str] = os.environ) -> Registry:
    """Load every plugin that `environ` allows, each in isolation. Does not import torch, if no plugin does.

    Raises UsageError for a setting that makes no sense, and PluginError if plugins failed and
    CONVERTER_STRICT_PLUGINS is set.
    """
    loader = Loader(_timeout(environ))
    for candidate in builtin_candidates():
        loader.add(candidate)
    candidates, refusals = third_party_candidates(_selected(environ))
    loader.failures += [PluginFailure(*refusal) for refusal in refusals]
    for candidate in candidates:
        loader.add(candidate)
    registry = _registry(loader.assemble(), loader)
    if registry.failures and _strict(environ):
        raise PluginError(
            "plugins failed, and CONVERTER_STRICT_PLUGINS is set:\n    "
            + "\n    ".join(map(str, registry.failures)),
            remedy="fix or uninstall them, or list the ones you want in CONVERTER_PLUGINS",
        )
    return registry


def _registry(made: Assembly, loader: Loader) -> Registry:
    return Registry(
        architectures=MappingProxyType(dict(sorted(made.records("architectures").items()))),
        passes=_ordered(made, "passes"),
        precisions=MappingProxyType(made.records("precisions")),
        metrics=MappingProxyType(made.records("metrics")),
        package_files=_ordered(made, "package_files"),
        card_sections=_ordered(made, "card_sections"),
        plugins=tuple(_plugin(entry, made) for entry in loader.contributions),
        overrides=tuple(made.overridden.values()),
        failures=tuple(loader.failures),
    )


def _ordered(made: Assembly, title: str) -> tuple[Any, ...]:
    return tuple(sorted(made.records(title).values(), key=lambda record: (record.order, record.name)))


def _plugin(contribution: Contribution, made: Assembly) -> Plugin:
    """What is in force of a plugin's records; the rest is among the overrides. Variants only where they were added."""
    candidate = contribution.candidate
    brought = {
        kind.title: tuple(
            name for name, entry in made.tables[kind.title].items() if entry.owner is contribution
        )
        for kind in KINDS
    }
    brought["variants"] = tuple(
        name for name in brought["variants"] if name.partition("/")[0] not in brought["architectures"]
    )
    stated = contribution.api or (
        API_VERSION if candidate.may_be_shared else ""
    )  # built-in: of this very version
    return Plugin(
        candidate.name, candidate.distribution, candidate.version, stated, brought, contribution.imported
    )


def _loose(name: str) -> str:
    return re.sub(r"\W", "_", name.lower())


def _selected(environ: Mapping[str, str]) -> frozenset[str] | None:
    """The third-party plugins asked for; None is all of them."""
    setting = environ.get("CONVERTER_PLUGINS")
    return None if setting is None else frozenset(name.strip() for name in setting.split(",") if name.strip())


def _strict(environ: Mapping[str, str]) -> bool:
    return environ.get("CONVERTER_STRICT_PLUGINS", "").lower() not in ("", "0", "false", "no")


def _timeout(environ: Mapping[str, str]) -> float:
    setting = environ.get("CONVERTER_PLUGIN_TIMEOUT", "") or str(DEFAULT_TIMEOUT)
    try:
        seconds = float(setting)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise UsageError(
            f"CONVERTER_PLUGIN_TIMEOUT={setting!r} is not a time",
            remedy="give seconds, above 0 and up to 3600",
        )
    return seconds
