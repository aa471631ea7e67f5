"""Asking plugins, one at a time, what they bring; and putting together what the good ones brought.

A plugin that fails, by itself or beside the others, becomes a `PluginFailure` and registers nothing at all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pluggy

from converter import __version__, hookspecs
from converter.hookspecs import API_VERSION
from converter.registration.assembly import (
    KINDS,
    Assembly,
    Contribution,
    Kind,
    RefusedError,
    Registration,
    assemble,
)
from converter.registration.candidates import Candidate
from converter.registration.isolation import BrokenPluginError, explain, run_isolated
from converter.text import did_you_mean

API_ATTRIBUTE = "converter_api"
# Packages that take seconds to import: a plugin that does so at once makes every command wait.
LARGE = frozenset({"torch", "transformers", "tensorflow", "jax"})


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that registered nothing, and why, in one line."""

    plugin: str
    distribution: str
    message: str

    def __str__(self) -> str:
        return f"{self.plugin} ({self.distribution}): {self.message}"


class Loader:
    """Plugins go in one at a time; what they brought is put together at the end."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.manager = pluggy.PluginManager("converter")
        self.manager.add_hookspecs(hookspecs)
        self.hooks = [kind.hook for kind in KINDS]
        self.contributions: list[Contribution] = []
        self.failures: list[PluginFailure] = []

    def add(self, candidate: Candidate) -> None:
        try:
            if any(candidate.name == other.candidate.name for other in self.contributions):
                raise BrokenPluginError("another plugin already has this name; rename the entry point")
            before = _large_packages()
            plugin = run_isolated(candidate.load, self.timeout, doing="importing it")
            if candidate.may_be_shared and not self._has_hooks(plugin):
                return
            stated = getattr(plugin, API_ATTRIBUTE, None)
            check_api(stated)
            registrations = self._ask(candidate, plugin)
            imported = tuple(sorted(_large_packages() - before))
            self.contributions.append(Contribution(candidate, stated, registrations, imported))
        except Exception as error:  # a plugin may raise anything, and the others must still load
            self._fail(candidate, explain(error, candidate.module))

    def assemble(self) -> Assembly:
        """All that fits together. Of two plugins that do not, the later fails, and the rest is put together anew."""
        while True:
            try:
                return assemble(self.contributions)
            except RefusedError as refused:
                self.contributions.remove(refused.contribution)
                self._fail(refused.contribution.candidate, refused.message)

    def _fail(self, candidate: Candidate, message: str) -> None:
        self.failures.append(PluginFailure(candidate.name, candidate.label, message))

    def _ask(self, candidate: Candidate, plugin: Any) -> tuple[Registration, ...]:
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
                hint = did_you_mean(caller.name, self.hooks) or f"; the hooks are {', '.join(self.hooks)}"
                raise BrokenPluginError(f"there is no hook {caller.name!r}{hint}")
            own = [impl for impl in caller.get_hookimpls() if impl.plugin is plugin]
            if caller.name in self.hooks and any("register" not in impl.argnames for impl in own):
                raise BrokenPluginError(
                    f"its {caller.name} takes no argument `register`, so it registers nothing"
                )
        if not callers:
            unmarked = [name for name in self.hooks if hasattr(plugin, name)]
            reason = f"its {unmarked[0]} is not marked" if unmarked else "nothing in it is marked"
            raise BrokenPluginError(f"{reason} with @converter.hookimpl, so it registers nothing")

    def _call(self, plugin: Any) -> tuple[Registration, ...]:
        brought: list[Registration] = []
        others = [other for other in self.manager.get_plugins() if other is not plugin]
        for kind in KINDS:
            self.manager.subset_hook_caller(kind.hook, others)(register=_Collector(kind, brought))
        return tuple(brought)


@dataclass
class _Collector:
    """The `register` of one hook: it keeps what it is given, if that is of the right kind."""

    kind: Kind
    brought: list[Registration] = field(default_factory=list)

    def __call__(self, record: Any, *, overrides: str | Sequence[str] = ()) -> None:
        hook, wanted = self.kind.hook, self.kind.record
        names = (overrides,) if isinstance(overrides, str) else tuple(overrides)
        if not all(isinstance(name, str) and name for name in names):
            raise BrokenPluginError(f"{hook} was given overrides={overrides!r}, which are not names")
        if record is None and not names:
            raise BrokenPluginError(f"{hook} was given None without overrides=, which says what to remove")
        if record is not None and not isinstance(record, wanted):
            article = "an" if wanted.__name__[0] in "AEIOU" else "a"
            raise BrokenPluginError(
                f"{hook} was given a {type(record).__name__}, not {article} {wanted.__name__}"
            )
        self.brought.append(Registration(self.kind, record, names))


def _large_packages() -> frozenset[str]:
    return LARGE & sys.modules.keys()


def check_api(stated: object) -> None:
    """Raise BrokenPluginError unless a plugin that states this version of the surface works with this converter.

    One that states none is taken to have been written for the present version.
    """
    if stated is None:
        return
    numbers = str(stated).split(".")
    if not isinstance(stated, str) or len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        raise BrokenPluginError(f'its {API_ATTRIBUTE} is {stated!r}, not a version such as "{API_VERSION}"')
    major, minor = map(int, numbers)
    ours = tuple(map(int, API_VERSION.split(".")))
    if (major, minor) == ours or (major == ours[0] and minor < ours[1]):
        return
    behind = "the converter" if (major, minor) > ours else "the plugin"
    raise BrokenPluginError(
        f"it was written for plugin API {stated}; converter {__version__} has {API_VERSION}: upgrade {behind}"
    )
