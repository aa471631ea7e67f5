"""Everything this package raises on purpose.

    ConverterError                exit 1
      UsageError                  exit 2   unknown architecture, bad option, refused target
        AmbiguousError            exit 2   several answers are possible, and the user has to choose
        PluginError               exit 2   a plugin is missing, broken or collides with another
      CheckpointError             exit 1   a checkpoint that is absent, incomplete, unsafe or damaged
        ConfigError               exit 2   a config.json that describes no model
      ExportError                 exit 1   tracing or translating a component failed
      PassError                   exit 1   a graph pass failed or broke its postcondition
      WeightError                 exit 1   a graph tensor that no checkpoint tensor can fill
      PackageError                exit 1   a package that cannot be written, read or trusted
      HubError                    exit 1   the hub refuses an upload, or cannot be reached
      ParityError                 exit 3   the graph does not compute what the original computes

Each message says what failed, where, and what to do about it. `topic` is the entry of docs/troubleshooting.md that says
more, its class's own unless the error names another: `converter explain TOPIC` prints it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ConverterError(Exception):
    """Base of the tree. `exit_code` is what the command line returns for it."""

    exit_code = 1
    topic = "bug"

    def __init__(self, message: str, *, remedy: str = "", topic: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.topic = topic or type(self).topic

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is, whatever its constructor asks for: errors come from processes of their own."""
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[ConverterError], arguments: tuple[Any, ...], state: dict[str, Any]) -> ConverterError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


class UsageError(ConverterError):
    """The request itself is wrong: nothing was started."""

    topic = "usage"
    exit_code = 2


class AmbiguousError(UsageError):
    """Several answers are possible. `option` is the field of the request that decides, `choices` what it may be."""

    topic = "ambiguous"

    def __init__(self, message: str, *, option: str, choices: Sequence[str]) -> None:
        super().__init__(message, remedy=f"choose with --{option}: {', '.join(choices)}")
        self.option = option
        self.choices = tuple(choices)


class PluginError(UsageError):
    """A plugin is missing, broken, or declares what another already declared."""

    topic = "plugin"


class CheckpointError(ConverterError):
    """The checkpoint is absent, incomplete, unsafe or damaged."""

    topic = "checkpoint"


class ConfigError(CheckpointError):
    """A config.json that cannot be read, or that describes no model."""

    topic = "checkpoint"
    exit_code = 2


class ExportError(ConverterError):
    """Tracing a component, or translating it to ONNX, failed."""

    topic = "export"


class PassError(ConverterError):
    """A graph pass failed or broke what it promises."""

    topic = "graph-pass"


class WeightError(ConverterError):
    """A tensor of the graph that no tensor of the checkpoint can fill."""

    topic = "weights"


class PackageError(ConverterError):
    """A package that cannot be written, read or trusted."""

    topic = "package"


class HubError(ConverterError):
    """The hub refuses what is uploaded, or cannot be reached."""

    topic = "hub"


class ParityError(ConverterError):
    """The graph does not compute what the original model computes."""

    topic = "parity"
    exit_code = 3
