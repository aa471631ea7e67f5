"""The pytest plugin. Every pytest run in the environment loads this file: it imports pytest and nothing else."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from converter.testing.cases import Suite

MARKER = "converter_parity: parity of a graph with its original at one size, collected by --converter-arch"
FULL = "converter_full: a parity case on a checkpoint that --converter-model names, not on a tiny one"
SUITE = "converter"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("converter", "parity of an architecture of the converter")
    group.addoption("--converter-arch", metavar="NAME", help="Collect parity cases of this architecture.")
    group.addoption(
        "--converter-model",
        metavar="DIR",
        help="Checkpoint to convert. [default: a tiny one, random weights]",
    )
    group.addoption("--converter-task", metavar="TASK", help="[default: the checkpoint's own]")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    config.addinivalue_line("markers", FULL)
    if config.getoption("--converter-arch") is None:
        for option in ("--converter-model", "--converter-task"):
            if config.getoption(option) is not None:
                raise pytest.UsageError(
                    f"{option} says what to test of an architecture; add --converter-arch NAME"
                )


# A wrapper runs before every other implementation, so that -k, -m and the groups of xdist see the cases.
@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    if config.getoption("--converter-arch") is not None:
        collector = ParityCollector.from_parent(session, name=SUITE, nodeid=SUITE)
        items.extend(collector.collect())
    return (yield)


class ParityCollector(pytest.Collector):
    """The cases of the architecture asked for. They share one checkpoint and one conversion."""

    def collect(self) -> Iterator[ParityItem]:
        from converter.errors import ConverterError
        from converter.testing.cases import Suite

        option = self.config.getoption
        try:
            suite = Suite.open(
                option("--converter-arch"), option("--converter-model"), option("--converter-task")
            )
        except ConverterError as error:
            raise pytest.UsageError(str(error)) from error
        self.config.add_cleanup(suite.close)
        for stem, label in suite.cases():
            group = f"{suite.name}-{stem}"
            name = f"{group}-{label}{self._suffix(group)}"
            item: ParityItem = ParityItem.from_parent(self, name=name, suite=suite, stem=stem, label=label)
            item.add_marker("converter_parity")
            if option("--converter-model") is not None:
                item.add_marker("converter_full")
            if self.config.pluginmanager.hasplugin("xdist"):
                item.add_marker(pytest.mark.xdist_group(group))
            yield item

    def _suffix(self, group: str) -> str:
        """`@group` where xdist schedules by it and cannot append it.

        xdist 3.8 writes it into `_nodeid`, which the nodes of pytest 9.2 no longer have.
        """
        grouped = getattr(self.config.option, "loadgroup", False)
        return f"@{group}" if grouped and not hasattr(self, "_nodeid") else ""


class ParityItem(pytest.Item):
    """One component at one size."""

    def __init__(self, *, suite: Suite, stem: str, label: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.suite, self.stem, self.label = suite, stem, label

    def runtest(self) -> None:
        from converter.testing.cases import DifferenceError

        rows = self.suite.compare(self.stem, self.label)
        if not rows or not all(row.passed for row in rows):
            raise DifferenceError(rows)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A difference or a failed conversion in its own words; any other exception as pytest shows it."""
        from converter.errors import ConverterError

        if isinstance(excinfo.value, ConverterError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        return SUITE, None, self.name
