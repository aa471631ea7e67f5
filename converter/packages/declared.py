"""What the architecture of a finished package declares, asked again without the checkpoint it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.json_files import object_or_empty

if TYPE_CHECKING:
    from converter.records import Architecture, Component
    from converter.scenario import Scenario


@dataclass(frozen=True)
class Declared:
    """An architecture, for the config and the task of one package."""

    architecture: Architecture
    config: Any
    task: str

    def components(self) -> dict[str, Component]:
        """Every component of the task, by stem: the package may have fewer."""
        found = self.architecture.components(self.config, self.task)
        return {component.stem: component for component in found}

    def scenarios(self) -> Sequence[Scenario]:
        return self.architecture.scenarios(self.config, self.task)


def architecture_of(record: Mapping[str, Any], folder: Path) -> Architecture | None:
    """The architecture that the record of `folder` names; None where it names none, or one that is not installed."""
    from converter.records import Checkpoint
    from converter.registry import load_registry

    name, registry = str(record.get("architecture") or ""), load_registry()
    known = None if record.get("stand_in") else registry.known(name)
    if not name or (known is not None and record.get("task") in (None, *known.tasks)):
        return known
    # Heads that a type's own architecture has no task for are the stand-in's, which goes by the class that the package
    # is of; no code of the package's own is asked for here.
    content = {"architectures": object_or_empty(folder / "config.json").get("architectures")}
    return registry.stand_in(name, Checkpoint(folder, folder.name, None, content, {})) or known


def declared_by(architecture: Architecture, folder: Path, record: Mapping[str, Any]) -> Declared:
    """What it declares for the package in `folder`. Whatever the plugin's code raises is raised here."""
    from converter.records import Checkpoint

    content = object_or_empty(folder / "config.json") or record.get("source", {}).get("config", {})
    config = architecture.source.config(Checkpoint(folder, folder.name, None, content, {}))
    return Declared(architecture, config, str(record.get("task")))
