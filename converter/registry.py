"""Finding plugins, asking them what they bring, and surviving the broken ones.

Built-in plugins are the modules of `converter.plugins`; a third party's are the entry points of the group
`converter`. Both take the same road, one by one: a plugin that fails becomes a `PluginFailure` and registers
nothing at all, and everything else goes on working.

    CONVERTER_PLUGINS=a,b        load only these third-party entry points; empty loads none
    CONVERTER_STRICT_PLUGINS=1   any failure is fatal
    CONVERTER_PLUGIN_TIMEOUT=10  seconds a plugin may take to import, and again to register
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pluggy

from converter import hookspecs
from converter.candidates import Candidate, builtin_candidates, third_party_candidates
from converter.errors import PluginError, UsageError
from converter.isolation import BrokenPluginError, explain, run_isolated
from converter.records import Architecture, Checkpoint, GraphPass

DEFAULT_TIMEOUT = 10.0


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that registered nothing, and why, in one line."""

    plugin: str
    distribution: str
    message: str

    def __str__(self) -> str:
        return f"{self.plugin} ({self.distribution}): {self.message}"


@dataclass(frozen=True)
class Plugin:
    """A plugin that works: the distribution it came with and the names of what it registered."""

    name: str
    distribution: str
    version: str
    architectures: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class Registry:
    """Everything the plugins brought, in a fixed order, and what went wrong with the others."""

    architectures: Mapping[str, Architecture]
    passes: tuple[GraphPass, ...] = ()
    plugins: tuple[Plugin, ...] = ()
    failures: tuple[PluginFailure, ...] = ()

    def find(self, name: str, checkpoint: Checkpoint | None = None) -> Architecture:
        """The architecture called `name`, the one that owns `name` as a model type, or one that stands in for it.

        A dash and an underscore count as the same where that leaves no doubt. Raises UsageError with near
        misses, and with the plugins that failed, since one of them may have brought it.
        """
        found = self.known(name) or self.stand_in(name, checkpoint)
        if found is None:
            raise UsageError(f"unknown architecture {name!r}{self._suggestion(name)}", remedy=self._remedy())
        return found

    def known(self, name: str) -> Architecture | None:
        """The registered architecture of this name or model type, if there is one."""
        return self.architectures.get(name) or self.for_model_type(name) or self._alike(name)

    def stand_in(self, model_type: str, checkpoint: Checkpoint | None) -> Architecture | None:
        """What stands in for a model type, whether or not anybody owns it."""
        for entry in self.architectures.values():
            found = entry.stand_in and entry.stand_in.architecture(model_type, checkpoint)
            if found:
                return found
        return None

    def for_model_type(self, model_type: str) -> Architecture | None:
        """The architecture that owns a `model_type` of config.json, if any does."""
        for architecture in self.architectures.values():
            if model_type in architecture.model_types:
                return architecture
        return None

    def _alike(self, name: str) -> Architecture | None:
        found = [
            architecture
            for architecture in self.architectures.values()
            if _loose(name) in map(_loose, (architecture.name, *architecture.model_types))
        ]
        return found[0] if len(found) == 1 else None

    def _suggestion(self, name: str) -> str:
        entries = self.architectures.values()
        owned = [kind for entry in entries for kind in entry.model_types]
        owned += [kind for entry in entries if entry.stand_in for kind in entry.stand_in.model_types()]
        close = difflib.get_close_matches(_loose(name), dict.fromkeys((*self.architectures, *owned)), n=3)
        return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""

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
    loader = _Loader(_timeout(environ))
    for candidate in builtin_candidates():
        loader.add(candidate)
    candidates, refusals = third_party_candidates(_selected(environ))
    loader.failures += [PluginFailure(*refusal) for refusal in refusals]
    for candidate in candidates:
        loader.add(candidate)
    registry = loader.registry()
    if registry.failures and _strict(environ):
        raise PluginError(
            "plugins failed, and CONVERTER_STRICT_PLUGINS is set:\n    "
            + "\n    ".join(map(str, registry.failures)),
            remedy="mend or uninstall them, or name the wanted ones in CONVERTER_PLUGINS",
        )
    return registry


@dataclass
class _Brought:
    """What one plugin asked to register, held back until all of it is known to be good."""

    architectures: list[Architecture] = field(default_factory=list)
    passes: list[GraphPass] = field(default_factory=list)

    def add_architecture(self, architecture: Architecture) -> None:
        if not isinstance(architecture, Architecture):
            raise BrokenPluginError(
                f"register_architectures was given a {type(architecture).__name__}, not an Architecture"
            )
        model_types: Any = architecture.model_types
        if isinstance(model_types, str):
            raise BrokenPluginError(f"the model_types of {architecture.name!r} must be a tuple, not a string")
        self.architectures.append(architecture)

    def add_pass(self, graph_pass: GraphPass) -> None:
        if not isinstance(graph_pass, GraphPass):
            raise BrokenPluginError(
                f"register_passes was given a {type(graph_pass).__name__}, not a GraphPass"
            )
        self.passes.append(graph_pass)


class _Loader:
    """Plugins go in one at a time; each is committed whole or not at all."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.manager = pluggy.PluginManager("converter")
        self.manager.add_hookspecs(hookspecs)
        self.hooks = sorted(name for name in vars(self.manager.hook) if not name.startswith("_"))
        self.architectures: dict[str, Architecture] = {}
        self.passes: dict[str, GraphPass] = {}
        self.owners: dict[tuple[str, str], str] = {}
        self.plugins: list[Plugin] = []
        self.failures: list[PluginFailure] = []

    def add(self, candidate: Candidate) -> None:
        try:
            if any(candidate.name == plugin.name for plugin in self.plugins):
                raise BrokenPluginError("a plugin of this name is there already; rename the entry point")
            plugin = run_isolated(candidate.load, self.timeout, doing="importing it")
            if candidate.may_be_shared and not self._has_hooks(plugin):
                return
            self._commit(candidate, self._ask(candidate, plugin))
        except Exception as error:
            self.failures.append(
                PluginFailure(candidate.name, candidate.label, explain(error, candidate.module))
            )

    def _ask(self, candidate: Candidate, plugin: Any) -> _Brought:
        """Register with pluggy, call the plugin's own hooks, and hand back what they asked for."""
        if any(plugin is other for other in self.manager.get_plugins()):
            raise BrokenPluginError(f"plugin {self.manager.get_name(plugin)!r} is the same object")
        try:
            self.manager.register(plugin, candidate.name)
            self._check_hooks(plugin)
            return run_isolated(lambda: self._call(plugin), self.timeout, doing="calling its hooks")
        except BaseException:
            if self.manager.has_plugin(candidate.name):
                self.manager.unregister(name=candidate.name)
            raise

    def _has_hooks(self, plugin: Any) -> bool:
        return any(self.manager.parse_hookimpl_opts(plugin, name) for name in dir(plugin))

    def _check_hooks(self, plugin: Any) -> None:
        """A misspelt hook and a plugin without hooks are silent in pluggy; here they are errors."""
        callers = self.manager.get_hookcallers(plugin) or []
        for caller in callers:
            optional = all(impl.optionalhook for impl in caller.get_hookimpls() if impl.plugin is plugin)
            if caller.name not in self.hooks and not optional:
                close = difflib.get_close_matches(caller.name, self.hooks, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"the hooks are {', '.join(self.hooks)}"
                raise BrokenPluginError(f"there is no hook {caller.name!r}; {hint}")
        if not callers:
            unmarked = [name for name in self.hooks if hasattr(plugin, name)]
            reason = f"its {unmarked[0]} is not marked" if unmarked else "nothing in it is marked"
            raise BrokenPluginError(f"{reason} with @converter.hookimpl, so it brings nothing")

    def _call(self, plugin: Any) -> _Brought:
        brought = _Brought()
        others = [other for other in self.manager.get_plugins() if other is not plugin]
        for name, register in (
            ("register_architectures", brought.add_architecture),
            ("register_passes", brought.add_pass),
        ):
            self.manager.subset_hook_caller(name, others)(register=register)
        return brought

    def _commit(self, candidate: Candidate, brought: _Brought) -> None:
        claims: dict[tuple[str, str], str] = {}
        for kind, name in _names_claimed(brought):
            owner = self.owners.get((kind, name), claims.get((kind, name)))
            if owner is not None:
                raise BrokenPluginError(f"{kind} {name!r} is already registered by {owner}")
            claims[kind, name] = f"plugin {candidate.name!r} ({candidate.label})"
        self.owners.update(claims)
        self.architectures.update({entry.name: entry for entry in brought.architectures})
        self.passes.update({entry.name: entry for entry in brought.passes})
        self.plugins.append(
            Plugin(
                candidate.name,
                candidate.distribution,
                candidate.version,
                tuple(entry.name for entry in brought.architectures),
                tuple(entry.name for entry in brought.passes),
            )
        )

    def registry(self) -> Registry:
        return Registry(
            MappingProxyType(dict(sorted(self.architectures.items()))),
            tuple(sorted(self.passes.values(), key=lambda entry: (entry.order, entry.name))),
            tuple(self.plugins),
            tuple(self.failures),
        )


def _names_claimed(brought: _Brought) -> Iterable[tuple[str, str]]:
    """Names and model types share one space: `find` takes either, so none may shadow what another owns."""
    for architecture in brought.architectures:
        yield from (
            ("architecture or model type", name)
            for name in dict.fromkeys((architecture.name, *architecture.model_types))
        )
    yield from (("graph pass", graph_pass.name) for graph_pass in brought.passes)


def _loose(name: str) -> str:
    return name.lower().replace("-", "_")


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
