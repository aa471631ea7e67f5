"""The data file written by another process: the same bytes, the same errors, and nothing left of it afterwards."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from converter.errors import PackageError, WeightError
from converter.recipes import Cast, Load
from converter.tensor_file import read_header
from converter.weights import DataPlan, StoredTensor
from converter.writer import WriterProcess


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
    with WriterProcess(wanted) as writer:
        layout, checked = writer.result()
    assert wanted.path.read_bytes() == content
    assert layout.sha256 == own.sha256
    assert checked == 1


def test_an_error_there_is_raised_here_with_its_remedy(tmp_path: Path) -> None:
    with (
        WriterProcess(plan(tmp_path, scale=1e6)) as writer,
        pytest.raises(WeightError, match="weight") as caught,
    ):
        writer.result()
    assert caught.value.remedy


def test_being_killed_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with WriterProcess(plan(tmp_path)) as writer:
        writer.process.send_signal(signal.SIGKILL)
        with pytest.raises(PackageError, match="without a word"):
            writer.result()


def test_leaving_early_ends_the_process(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), WriterProcess(plan(tmp_path, rows=1 << 14)) as writer:
        raise RuntimeError("the sibling failed")
    assert writer.process.poll() is not None


def test_it_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    """A closed stdin is what it sees of that."""
    with WriterProcess(plan(tmp_path, rows=1 << 15)) as writer:
        assert writer.process.stdin is not None
        child = psutil.Process(writer.process.pid)
        writer.process.stdin.close()
        deadline = time.monotonic() + 30
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.05)
        assert writer.process.wait(timeout=30) in (0, 1)


def test_it_leaves_in_peace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The thread that watches for the parent's end must not disturb the interpreter's own."""
    with WriterProcess(plan(tmp_path)) as writer:
        writer.result()
        assert writer.process.wait(timeout=30) == 0
    assert capfd.readouterr().err == ""
