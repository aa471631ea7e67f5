"""Running a plugin's code so that whatever goes wrong ends as one line of text."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LONGEST_MESSAGE = 400


class BrokenPluginError(Exception):
    """What is wrong with a plugin, in words meant for the user."""


def run_isolated(action: Callable[[], T], timeout: float, *, doing: str) -> T:
    """`action()`, run in a thread of its own and given up after `timeout` seconds.

    What it raises is raised here; SystemExit, and whatever else is no Exception, as `BrokenPluginError`. A
    thread that hangs is left behind as a daemon, which does not keep the process alive: Python cannot end it.
    """
    outcome: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(action())
        except BaseException as error:  # handed to the caller, below
            raised.append(error)

    thread = threading.Thread(target=work, name="converter-plugin", daemon=True)
    thread.start()
    thread.join(timeout)
    if raised:
        if isinstance(raised[0], Exception | KeyboardInterrupt):
            raise raised[0]
        raise BrokenPluginError(f"{doing} raised {raised[0]!r}") from raised[0]
    if not outcome:
        raise BrokenPluginError(
            f"{doing} took longer than {timeout:g} s (CONVERTER_PLUGIN_TIMEOUT); "
            "a plugin must not load models or use the network at that point"
        )
    return outcome[0]


def explain(error: BaseException, module: str) -> str:
    """One line on why the plugin living in `module` failed."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        own = module.partition(".")[0]
        if error.name.partition(".")[0] == own:
            return f"its module {error.name!r} does not exist"
        return f"it needs the package {error.name.partition('.')[0]!r}, which is not installed"
    text = _one_line(str(error))
    return (
        text if isinstance(error, BrokenPluginError) else f"{type(error).__name__}: {text}".removesuffix(": ")
    )


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 3] + "..."
