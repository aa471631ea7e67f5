"""Work done by a process of its own: the same results and errors, its progress, and nothing left of it afterwards."""

from __future__ import annotations

import pickle
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from converter.apart import Apart, Telling, run_apart
from converter.checkpoints.tensor_file import read_header
from converter.errors import (
    AmbiguousError,
    ConfigError,
    ConverterError,
    ParityError,
    UsageError,
    WeightError,
)
from converter.recipes import Cast, Load
from converter.weights.binding import DataPlan, StoredTensor
from converter.weights.writing import write_and_check


def plan(folder: Path, *, rows: int = 64, scale: float = 1.0, dtype: str = "float16") -> DataPlan:
    """A plan for one tensor of `rows` x 256, cast on the way."""
    source = folder / "source.safetensors"
    values = np.random.default_rng(0).standard_normal((rows, 256)).astype(np.float32) * scale
    save_file({"weight": values}, source)
    recipe = Cast(Load(read_header(source)["weight"]), np.dtype(dtype))
    tensor = StoredTensor("weight", recipe, 0)
    return DataPlan(folder / "data", recipe.nbytes, {recipe: 0}, {recipe: "weight"}, (tensor,), 1 << 16)


def test_it_writes_what_this_process_would_write(tmp_path: Path) -> None:
    wanted = plan(tmp_path)
    own = wanted.write()
    content = wanted.path.read_bytes()
    wanted.path.unlink()
    with Apart(write_and_check, wanted) as writer:
        layout, checked = writer.result()
    assert wanted.path.read_bytes() == content
    assert layout.sha256 == own.sha256
    assert checked == 1


def test_an_error_there_is_raised_here_with_its_remedy(tmp_path: Path) -> None:
    with (
        Apart(write_and_check, plan(tmp_path, scale=1e6)) as writer,
        pytest.raises(WeightError, match="weight") as caught,
    ):
        writer.result()
    assert caught.value.remedy


def test_a_process_that_takes_its_time_to_end_does_not_complain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "unhurried.py").write_text(
        "import atexit, time\n\ndef work(progress):\n    atexit.register(time.sleep, 0.5)\n    return 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run_apart("unhurried:work") == 7
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "error",
    [
        AmbiguousError("which of the two?", option="task", choices=["fill-mask", "feature-extraction"]),
        ConfigError("no such size", remedy="mend it"),
        ParityError("it differs"),
    ],
)
def test_errors_survive_the_journey(error: ConverterError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error) and vars(arrived) == vars(error) and str(arrived) == str(error)


def test_being_killed_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with Apart(write_and_check, plan(tmp_path)) as writer:
        writer.process.send_signal(signal.SIGKILL)
        with pytest.raises(ConverterError, match=r"write_and_check.*without an answer"):
            writer.result()


def test_leaving_early_ends_the_process(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Apart(write_and_check, plan(tmp_path, rows=1 << 14)) as writer:
        raise RuntimeError("the sibling failed")
    assert writer.process.poll() is not None


def test_it_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    """A closed stdin is what it sees of that."""
    with Apart(write_and_check, plan(tmp_path, rows=1 << 15)) as writer:
        assert writer.process.stdin is not None
        child = psutil.Process(writer.process.pid)
        writer.process.stdin.close()
        deadline = time.monotonic() + 30
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.05)
        assert writer.process.wait(timeout=30) in (0, 1)


def test_it_leaves_in_peace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The thread that watches for the parent's end must not disturb the interpreter's own."""
    with Apart(write_and_check, plan(tmp_path)) as writer:
        writer.result()
        assert writer.process.wait(timeout=30) == 0
    assert capfd.readouterr().err == ""


# --- any function ---


def stages(names: list[str], progress: Telling) -> str:
    """Two stages, one within the other."""
    with progress.stage(names[0]):
        progress.advance(1, 2)
        with progress.stage(names[1]):
            progress.note("halfway")
    print("a word on stdout")
    return "-".join(names)


def refuse(kind: str, progress: Telling) -> None:
    with progress.stage("work"):
        if kind == "own":
            raise UsageError("not so", remedy="do otherwise")
        raise UnpicklableError("a", "b")


class UnpicklableError(Exception):
    """An error that cannot be made anew from its arguments, as many cannot."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Listening:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.heard.append(f"+{name}")
        yield
        self.heard.append(f"-{name}")

    def advance(self, done: int, total: int) -> None:
        self.heard.append(f"{done}/{total}")

    def note(self, text: str) -> None:
        self.heard.append(text)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """These functions as the other process finds them: in a module that can be imported by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    for entry in (stages, refuse, UnpicklableError):
        monkeypatch.setattr(entry, "__module__", "test_apart")
    monkeypatch.setitem(sys.modules, "test_apart", sys.modules[__name__])


def test_progress_is_told_here_and_stdout_stays_clean(capfd: pytest.CaptureFixture[str]) -> None:
    listening = Listening()
    assert run_apart(stages, ["trace", "clean"], progress=listening) == "trace-clean"
    assert listening.heard == ["+trace", "1/2", "+clean", "halfway", "-clean", "-trace"]
    assert capfd.readouterr().out == ""


def test_an_error_of_ours_arrives_as_it_was_with_its_traceback() -> None:
    with pytest.raises(UsageError, match="not so") as caught:
        run_apart(refuse, "own")
    assert caught.value.remedy == "do otherwise"
    assert "in refuse" in str(caught.value.__cause__)


def test_an_error_that_cannot_travel_arrives_in_words() -> None:
    with pytest.raises(RuntimeError, match="UnpicklableError: a and b"):
        run_apart(refuse, "foreign")
