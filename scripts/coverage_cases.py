"""What `coverage.py` runs: every model type that transformers has a task class for, and each of its tasks."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any


def named_type(architecture: Any, name: str) -> str:
    """The model type that a name stands for: itself, or the architecture's first."""
    return name if name in architecture.model_types else str(architecture.model_types[0])


def tasks_without_class(known: Collection[str]) -> Iterator[tuple[str, str]]:
    """Types that nothing converts, each with the task of its first class: what they fail with is their result."""
    from transformers.models.auto import modeling_auto

    seen = set(known)
    factories = (name for name in dir(modeling_auto) if name.startswith("AutoModelFor"))
    for name in sorted(factories):
        task = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.removeprefix("AutoModelFor")).lower()
        for kind in getattr(modeling_auto, name)._model_mapping._model_mapping:
            if kind not in seen:
                seen.add(kind)
                yield kind, task


def cases(
    only: Sequence[str] = (), tasks: Sequence[str] = (), *, owned_only: bool = False, first: bool = False
) -> list[dict[str, str]]:
    """Every type and task, the first task of each type before the second of any; what has a plugin before the rest.

    `owned_only` leaves out types without a plugin of their own, `first` all tasks but the first of each type.
    """
    from converter.registry import load_registry

    registry = load_registry()
    if registry.failures:  # the results of their types would count as those of types that are gone
        sys.exit(f"plugins that fail to load: {', '.join(map(str, registry.failures))}")
    found = [entry for entry in registry.architectures.values() if entry.stand_in is None]
    owned = {kind for entry in found for kind in entry.model_types}
    for entry in () if owned_only else registry.architectures.values():
        kinds = sorted(set(entry.stand_in.model_types()) - owned) if entry.stand_in else []
        made = (registry.stand_in(kind, None) for kind in kinds)
        found += [architecture for architecture in made if architecture is not None]
    last = 1 if first else None
    # An architecture is called by its own name for its first type, and by theirs for the others.
    named = [
        (name, kind, entry.tasks[:last])
        for entry in found
        for name, kind in zip((entry.name, *entry.model_types[1:]), entry.model_types, strict=False)
    ]
    if not owned_only:
        named += [(kind, kind, (task,)) for kind, task in tasks_without_class({kind for _, kind, _ in named})]
    rounds = itertools.zip_longest(*([(name, kind, task) for task in few] for name, kind, few in named))
    return [
        {"arch": name, "task": task}
        for name, kind, task in (case for one in rounds for case in one if case is not None)
        if (not only or name in only or kind in only) and (not tasks or task in tasks)
    ]
