"""Architectures with variants and tasks that other plugins add to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from converter.additions import Extension
from converter.errors import PluginError
from converter.records import Architecture, Checkpoint, Component, ModelSource, Variant

if TYPE_CHECKING:
    from torch import nn

    from converter.recipes import WeightRecipe


@dataclass(frozen=True)
class Added:
    """An extension in force. With `replacing`, its components take the place of those with the same stems."""

    extension: Extension
    plugin: str
    replacing: bool


@dataclass
class Draft:
    """An architecture while its variants are put together. A task whose last variant is taken away goes with it."""

    base: Architecture
    tasks: dict[str, dict[str, Variant]]
    added: list[Added] = field(default_factory=list)

    @classmethod
    def of(cls, architecture: Architecture) -> Draft:
        tasks = {
            task: {variant.name: variant for variant in variants}
            for task, variants in architecture.variants.items()
        }
        return cls(architecture, tasks)

    def add(self, added: Added) -> None:
        extension = added.extension
        self.tasks.setdefault(extension.task, {}).update(
            {variant.name: variant for variant in extension.variants}
        )
        self.added.append(added)

    def remove(self, task: str, variant: str) -> None:
        del self.tasks[task][variant]

    def finish(self) -> Architecture:
        """The architecture as it now is: the very same record where nothing was added or taken away."""
        variants = {task: tuple(entry.values()) for task, entry in self.tasks.items() if entry}
        if variants == dict(self.base.variants) and not self.added:
            return self.base
        sources = {
            added.extension.task: added.extension.source for added in self.added if added.extension.source
        }
        return replace(
            self.base,
            variants=variants,
            components=_Components(self.base, tuple(self.added)),
            source=SourceByTask(self.base.source, sources) if sources else self.base.source,
        )


@dataclass(frozen=True)
class _Components:
    """(config, task) -> the architecture's own components and those that were added to the task."""

    base: Architecture
    added: tuple[Added, ...]

    def __call__(self, config: Any, task: str) -> Sequence[Component]:
        own = self.base.components(config, task) if task in self.base.variants else ()
        found = {component.stem: component for component in own}
        for added in self.added:
            if added.extension.task != task:
                continue
            for component in added.extension.components(config, task):
                if component.stem in found and not added.replacing:
                    raise PluginError(
                        f"{added.plugin} adds a graph {component.stem!r} to task {task!r} of {self.base.name!r},"
                        " which already has one of that name",
                        remedy="choose another stem, or override the variant whose graph it replaces",
                    )
                found[component.stem] = component
        return tuple(found.values())


@dataclass(frozen=True)
class SourceByTask:
    """A `ModelSource` that asks another one for the tasks that came with it. Config and usual task stay the base's."""

    base: ModelSource
    sources: Mapping[str, ModelSource]
    _built: WeakKeyDictionary[Any, ModelSource] = field(default_factory=WeakKeyDictionary, compare=False)

    def _of(self, task: str) -> ModelSource:
        return self.sources.get(task, self.base)

    def config(self, checkpoint: Checkpoint) -> Any:
        return self.base.config(checkpoint)

    def default_task(self, checkpoint: Checkpoint) -> str:
        return self.base.default_task(checkpoint)

    def skeleton(self, config: Any, task: str) -> nn.Module:
        source = self._of(task)
        model = source.skeleton(config, task)
        self._built[model] = source  # key_mapping is not told the task
        return model

    def original(self, checkpoint: Checkpoint, task: str, offload: Path | None) -> nn.Module:
        return self._of(task).original(checkpoint, task, offload)

    def key_mapping(self, model: nn.Module, checkpoint: Checkpoint) -> Mapping[str, WeightRecipe]:
        return self._built.get(model, self.base).key_mapping(model, checkpoint)

    def write_tiny(self, folder: Path, *, like: Any | None, seed: int, task: str) -> None:
        self._of(task).write_tiny(folder, like=like, seed=seed, task=task)
