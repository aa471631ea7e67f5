"""What all plugins brought, put together: names claimed once, overrides carried out. Nothing is imported or called.

The order is fixed. First everything that overrides nothing, built-in plugins before third parties, each by name;
then, in the same order, what overrides; then variants for architectures, in the same way. What was overridden once
cannot be overridden again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from converter.additions import CardSection, Extension, GraphPass, Metric, PackageFile, Precision
from converter.records import Architecture
from converter.registration.candidates import Candidate
from converter.registration.extension import Added, Draft
from converter.registration.isolation import BrokenPluginError, explain
from converter.text import did_you_mean


@dataclass(frozen=True)
class Kind:
    """One sort of thing that plugins bring. `title` names many of them and is a field of `Registry`."""

    hook: str
    record: type
    noun: str
    title: str


ARCHITECTURES = Kind("register_architectures", Architecture, "architecture", "architectures")
VARIANTS = Kind("register_variants", Extension, "variant", "variants")
KINDS = (
    ARCHITECTURES,
    VARIANTS,
    Kind("register_passes", GraphPass, "graph pass", "passes"),
    Kind("register_precisions", Precision, "precision", "precisions"),
    Kind("register_metrics", Metric, "metric", "metrics"),
    Kind("register_package_files", PackageFile, "package file", "package_files"),
    Kind("register_card_sections", CardSection, "card section", "card_sections"),
)


@dataclass(frozen=True)
class Registration:
    """One call of `register`. Without a record, what it overrides is removed."""

    kind: Kind
    record: Any
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Contribution:
    """A plugin, the API version it states, everything it asked to register, and large packages that it imported."""

    candidate: Candidate
    api: str | None
    registrations: tuple[Registration, ...]
    imported: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"plugin {self.candidate.name!r} ({self.candidate.label})"


@dataclass(frozen=True)
class Override:
    """A record that a plugin put in the place of another plugin's, or took away (`by` is empty)."""

    plugin: str
    noun: str
    name: str
    owner: str
    by: str = ""

    def __str__(self) -> str:
        done = f"is replaced by {self.by!r}" if self.by else "is removed"
        return f"{self.noun} {self.name!r} of {self.owner} {done}, by plugin {self.plugin!r}"


@dataclass(frozen=True)
class Entry:
    """A record in force, and who brought it."""

    record: Any
    owner: Contribution


class RefusedError(Exception):
    """A plugin cannot be put together with those before it."""

    def __init__(self, contribution: Contribution, message: str) -> None:
        super().__init__(message)
        self.contribution = contribution
        self.message = message


@dataclass
class Assembly:
    """Records in force: kind's title -> name -> entry. `overridden` holds what is no longer, by kind and name."""

    tables: dict[str, dict[str, Entry]] = field(default_factory=lambda: {kind.title: {} for kind in KINDS})
    overridden: dict[tuple[str, str], Override] = field(default_factory=dict)

    def records(self, title: str) -> dict[str, Any]:
        return {name: entry.record for name, entry in self.tables[title].items()}


def assemble(contributions: Sequence[Contribution]) -> Assembly:
    """Put all of it together. Raises RefusedError for the first plugin that does not fit."""
    made = Assembly()
    for contribution, registration in _in_order(contributions, variants=False):
        with _Blame(contribution):
            _place(made, contribution, registration)
    drafts = _drafts(made)
    for contribution, registration in _in_order(contributions, variants=True):
        with _Blame(contribution):
            _extend(made, drafts, contribution, registration)
    for name, draft in drafts.items():
        entry = made.tables[ARCHITECTURES.title][name]
        made.tables[ARCHITECTURES.title][name] = Entry(draft.finish(), entry.owner)
    return made


def _in_order(
    contributions: Sequence[Contribution], *, variants: bool
) -> Iterator[tuple[Contribution, Registration]]:
    for late in (False, True):
        for contribution in contributions:
            for registration in contribution.registrations:
                if bool(registration.overrides) is late and (registration.kind is VARIANTS) is variants:
                    yield contribution, registration


@dataclass(frozen=True)
class _Blame:
    """Whatever goes wrong inside is the plugin's failure: its records may hold anything."""

    contribution: Contribution

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        if isinstance(error, Exception):
            message = explain(error, self.contribution.candidate.module)
            raise RefusedError(self.contribution, message) from error


def _place(made: Assembly, contribution: Contribution, registration: Registration) -> None:
    kind, record = registration.kind, registration.record
    for name in registration.overrides:
        _remove(made, contribution, registration, name)
    if record is None:
        return
    _claim(made, kind, record)
    made.tables[kind.title][record.name] = Entry(record, contribution)


def _claim(made: Assembly, kind: Kind, record: Any) -> None:
    """Names and model types share one space: `find` takes either, so none may shadow what another owns."""
    taken = _claims(made, kind)
    for name in _names(record):
        if name in taken:
            noun = "architecture or model type" if kind is ARCHITECTURES else kind.noun
            raise BrokenPluginError(_taken(noun, name, taken[name]))


def _taken(noun: str, name: str, entry: Entry) -> str:
    return (
        f"{noun} {name!r} is already registered by {entry.owner};"
        f" to take its place, register with overrides={name!r}"
    )


def _names(record: Any) -> Iterable[str]:
    types = record.model_types if isinstance(record, Architecture) else ()
    return dict.fromkeys((record.name, *types))


def _claims(made: Assembly, kind: Kind) -> dict[str, Entry]:
    return {name: entry for entry in made.tables[kind.title].values() for name in _names(entry.record)}


def _remove(made: Assembly, contribution: Contribution, registration: Registration, name: str) -> None:
    """Take away what is there under `name`: a whole record, or one model type of an architecture."""
    kind = registration.kind
    entry = _overridable(made, contribution, kind, name, _claims(made, kind))
    table = made.tables[kind.title]
    left: tuple[str, ...] = ()
    if name != entry.record.name:
        left = tuple(other for other in entry.record.model_types if other != name)
    if left:
        table[entry.record.name] = Entry(replace(entry.record, model_types=left), entry.owner)
    else:
        del table[entry.record.name]
    _remember(made, contribution, registration, name, entry.owner)


def _overridable(
    made: Assembly, contribution: Contribution, kind: Kind, name: str, known: dict[str, Entry]
) -> Entry:
    done = made.overridden.get((kind.title, name))
    if done is not None:
        raise BrokenPluginError(
            f"it overrides {kind.noun} {name!r}, which plugin {done.plugin!r} overrides already;"
            " choose one of the two with CONVERTER_PLUGINS"
        )
    if name not in known:
        raise BrokenPluginError(
            f"it overrides {kind.noun} {name!r}, which does not exist{did_you_mean(name, known)}"
        )
    if known[name].owner is contribution:
        raise BrokenPluginError(f"it overrides {kind.noun} {name!r}, which it brings itself")
    return known[name]


def _remember(
    made: Assembly, contribution: Contribution, registration: Registration, name: str, owner: Contribution
) -> None:
    record = registration.record
    by = "" if record is None else getattr(record, "name", name)  # an extension has no name of its own
    override = Override(contribution.candidate.name, registration.kind.noun, name, str(owner), by)
    made.overridden[registration.kind.title, name] = override


# --- variants ---


def _drafts(made: Assembly) -> dict[str, Draft]:
    """Architectures to add variants to; those they have already are listed as theirs."""
    drafts = {}
    for name, entry in made.tables[ARCHITECTURES.title].items():
        drafts[name] = draft = Draft.of(entry.record)
        for task, variants in draft.tasks.items():
            keys = (f"{name}/{task}/{variant}" for variant in variants)
            made.tables[VARIANTS.title].update(dict.fromkeys(keys, Entry(None, entry.owner)))
    return drafts


def _extend(
    made: Assembly, drafts: dict[str, Draft], contribution: Contribution, registration: Registration
) -> None:
    table, extension = made.tables[VARIANTS.title], registration.record
    for key in registration.overrides:
        entry = _overridable(made, contribution, VARIANTS, key, table)
        name, task, variant = key.split("/", 2)
        drafts[name].remove(task, variant)
        del table[key]
        _remember(made, contribution, registration, key, entry.owner)
    if extension is not None:
        draft = drafts.get(extension.architecture)
        if draft is None:
            raise BrokenPluginError(
                f"it extends architecture {extension.architecture!r}, which does not exist"
                f"{did_you_mean(extension.architecture, drafts)}"
            )
        for key in map(extension.key, (variant.name for variant in extension.variants)):
            if key in table:
                raise BrokenPluginError(_taken("variant", key, table[key]))
            table[key] = Entry(None, contribution)
        draft.add(Added(extension, str(contribution), bool(registration.overrides)))
    for name in {key.split("/", 1)[0] for key in registration.overrides}:
        if not any(drafts[name].tasks.values()):
            raise BrokenPluginError(f"it removes every variant of architecture {name!r}")
