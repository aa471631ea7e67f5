"""The pytest plugin. Every pytest run in the environment loads this file: it imports pytest and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from converter.testing.cases import Suite
    from converter.testing.plan import CaseName

MARKER = "converter_parity: parity of a graph with its original at one size, collected by --converter-arch"
FULL = "converter_full: a parity case on a checkpoint that --converter-model names, not on a tiny one"
ROOT = "converter"
ARCH, MODEL, TASK, PRECISIONS = (f"--converter-{name}" for name in ("arch", "model", "task", "precisions"))
# Where the processes of a session meet: handed to workers of xdist under this name.
FOLDER = "converter_folder"
SUITE: pytest.StashKey[Suite] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("converter", "parity of an architecture of the converter")
    group.addoption(ARCH, metavar="NAME", help="Collect parity cases of this architecture.")
    group.addoption(MODEL, metavar="DIR", help="Checkpoint to convert. [default: a tiny one, random weights]")
    group.addoption(TASK, metavar="TASK", help="[default: the checkpoint's own]")
    group.addoption(
        PRECISIONS, metavar="NAMES", help="Comma-separated precisions, such as fp32,q8. [default: fp32]"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    config.addinivalue_line("markers", FULL)
    if config.getoption(ARCH) is None:
        for option in (MODEL, TASK, PRECISIONS):
            if config.getoption(option) is not None:
                raise pytest.UsageError(f"{option} says what to test of an architecture; add {ARCH} NAME")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Find out what there is to test: once, before xdist starts its workers, which read it."""
    config = session.config
    if config.getoption(ARCH) is None:
        return
    from converter.testing.cases import Suite

    given = getattr(config, "workerinput", {}).get(FOLDER)
    # A worker on another machine does not have the folder, and does everything by itself.
    folder = Path(given) if given and Path(given).is_dir() else _plan(config)
    config.stash[SUITE] = Suite(folder)
    config.add_cleanup(config.stash[SUITE].close)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist is about to start a worker."""
    if SUITE in node.config.stash:
        node.workerinput[FOLDER] = str(node.config.stash[SUITE].folder)


def _plan(config: pytest.Config) -> Path:
    from converter.errors import ConverterError
    from converter.scratch import scratch_folder
    from converter.testing.cases import plan_in
    from converter.testing.plan import Asked

    arch, model, task, listed = (config.getoption(name) for name in (ARCH, MODEL, TASK, PRECISIONS))
    precisions = tuple(name.strip() for name in (listed or "fp32").split(",") if name.strip())
    stack = ExitStack()
    config.add_cleanup(stack.close)
    folder = stack.enter_context(scratch_folder())
    try:
        # A process that only hands out cases has no use for torch.
        plan_in(folder, Asked(arch, model, task, precisions), apart=config.getoption("dist", "no") != "no")
    except ConverterError as error:
        raise pytest.UsageError(str(error)) from error
    return folder


# A wrapper runs before every other implementation, so that -k and -m see the cases.
@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    if SUITE in config.stash:
        arch = config.stash[SUITE].plan.request.arch
        collector = ParityCollector.from_parent(session, name=arch, nodeid=f"{ROOT}::{arch}")
        items.extend(collector.collect())
    return (yield)


class ParityCollector(pytest.Collector):
    """The cases of the architecture asked for. They share one checkpoint and one conversion."""

    def collect(self) -> Iterator[ParityItem]:
        suite = self.config.stash[SUITE]
        for case in suite.plan.cases:
            item: ParityItem = ParityItem.from_parent(self, name=str(case), suite=suite, case=case)
            item.add_marker("converter_parity")
            if suite.plan.asked.model is not None:
                item.add_marker("converter_full")
            yield item


class ParityItem(pytest.Item):
    """One graph at one size in one precision."""

    def __init__(self, *, suite: Suite, case: CaseName, **rest: Any) -> None:
        super().__init__(**rest)
        self.suite, self.case = suite, case

    def runtest(self) -> None:
        from converter.testing.cases import DifferenceError

        rows = self.suite.compare(self.case)
        for row in rows:
            measured = f"max_abs={row.max_abs:.2e} cosine={row.cosine:.7f}"
            self.user_properties.append((f"{row.output} {row.pair}", measured))
        for warning in self.suite.warnings(self.case):
            warnings.warn(warning, stacklevel=1)
        if not rows or not all(row.passed for row in rows):
            raise DifferenceError(rows)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A difference or a failed conversion in its own words; any other exception as pytest shows it."""
        from converter.errors import ConverterError

        if isinstance(excinfo.value, ConverterError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        return ROOT, None, f"{self.parent.name if self.parent else ROOT}::{self.name}"
