"""Temporary folders: what a killed run left is removed by the next one, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from converter.scratch import scratch_folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_gone_at_the_end(place: Path) -> None:
    with scratch_folder() as folder:
        (folder / "weights").write_text("x")
        assert folder.parent == place
    assert not list(place.iterdir())


def test_what_a_dead_process_left_is_removed_and_the_rest_stays(place: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    dead = place / f"converter-{finished.stdout.strip()}-abc"
    alive = place / f"converter-{os.getppid()}-abc"
    foreign = place / "converter-of-units"
    for folder in (dead, alive, foreign):
        folder.mkdir()
        (folder / "file").write_text("x")
    with scratch_folder():
        assert not dead.exists()
        assert alive.exists()
        assert foreign.exists()
