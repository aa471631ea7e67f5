"""What a kill or Ctrl-C leaves: the target as it was, and nothing the next run does not clean.

Each fault happens to a child process, a small script around the public functions.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_kit import names, package, run, start, word

from converter.errors import UsageError
from converter.packages.package import stage_package

# --- killed ----------------------------------------------------------------------------------------------


def test_kill_while_writing_leaves_the_target_and_the_next_run_cleans(tmp_path: Path) -> None:
    target = package(tmp_path / "mini", "old")
    child = start(f"write({str(target)!r}, 'new', pause=5)")
    assert child.stdout is not None
    child.stdout.readline()
    child.kill()
    child.communicate()
    assert word(target) == "old"
    assert len(names(tmp_path)) > 1  # the scratch folder and the lock of the dead
    package(target, "next")
    assert word(target) == "next"
    assert names(tmp_path) == ["mini"]


def test_kill_at_any_time_leaves_one_whole_package(tmp_path: Path) -> None:
    target = package(tmp_path / "mini", "old")
    dice = random.Random(0)
    script = f"""
        for number in range(1000):
            write({str(target)!r}, f"new{{number}}")
    """
    for _ in range(6):
        child = start(script, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(dice.random() * 0.2)
        child.kill()
        child.communicate()
        assert word(target).startswith(("old", "new"))
    package(target, "next")
    assert names(tmp_path) == ["mini"]


KILL_BEFORE_OR_AFTER_THE_SWAP = """
    real = converter.packages.exchange.swap
    def swap(first, second):
        if {after}:
            real(first, second)
        os.kill(os.getpid(), signal.SIGKILL)
    converter.packages.exchange.swap = swap
    write({target!r}, "new")
"""


@pytest.mark.parametrize(("after", "found"), [(False, "old"), (True, "new")])
def test_kill_at_the_swap(tmp_path: Path, after: bool, found: str) -> None:
    target = package(tmp_path / "mini", "old")
    code, _ = run(KILL_BEFORE_OR_AFTER_THE_SWAP.format(after=after, target=str(target)))
    assert code == -signal.SIGKILL
    if after and word(target) == "old":
        pytest.skip("this file system cannot exchange folders")
    assert word(target) == found
    package(target, "next")
    assert names(tmp_path) == ["mini"]


# Where two folders cannot be exchanged: rename 0 sets the old one aside, rename 1 moves the new one in.
KILL_AT_A_RENAME = """
    converter.packages.exchange.swap = lambda first, second: False
    real, calls = Path.rename, iter(range(9))
    def rename(self, other):
        call = next(calls)
        if call == {call} and not {after}:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, other)
        if call == {call}:
            os.kill(os.getpid(), signal.SIGKILL)
    Path.rename = rename
    write({target!r}, "new")
"""


@pytest.mark.parametrize(("call", "after", "found"), [(0, False, "old"), (0, True, "old"), (1, True, "new")])
def test_kill_between_renames_is_undone_by_the_next_run(
    tmp_path: Path, call: int, after: bool, found: str
) -> None:
    target = package(tmp_path / "mini", "old")
    code, _ = run(KILL_AT_A_RENAME.format(call=call, after=after, target=str(target)))
    assert code == -signal.SIGKILL
    with pytest.raises(UsageError, match="--overwrite"), stage_package(target):
        pytest.fail("the restored package must be refused like any other")
    assert word(target) == found
    assert names(tmp_path) == ["mini"]


def test_old_package_survives_when_somebody_fills_the_gap(tmp_path: Path) -> None:
    """Killed between the renames, then the user makes a package there by hand: both must survive."""
    target = package(tmp_path / "mini", "old")
    run(KILL_AT_A_RENAME.format(call=0, after=True, target=str(target)))
    package(tmp_path / "other", "theirs").rename(target)
    package(target, "next")
    (scratch,) = (path for path in tmp_path.iterdir() if path != target)
    assert word(scratch / "previous") == "old"


def test_failing_second_rename_puts_the_old_package_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = package(tmp_path / "mini", "old")
    real = Path.rename

    def rename(self: Path, other: Path) -> Path:
        if self.name == "package":
            raise PermissionError(13, "no", str(self))
        return real(self, other)

    monkeypatch.setattr("converter.packages.exchange.swap", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PermissionError):
        package(target, "new")
    assert word(target) == "old"
    assert names(tmp_path) == ["mini"]


def test_run_beside_a_live_one_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    target = tmp_path / "mini"
    child = start(f"write({str(target)!r}, 'new', pause=0.2)")
    assert child.stdout is not None
    child.stdout.readline()
    with pytest.raises(UsageError, match=f"process {child.pid}"):
        package(target, "mine")
    child.communicate(timeout=60)
    assert child.returncode == 0
    assert word(target) == "new"


def test_where_the_system_has_no_locks_the_process_named_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    target = tmp_path / "mini"
    with stage_package(target), pytest.raises(UsageError, match="another run"):
        package(target, "mine")
    child = start(f"sys.modules['fcntl'] = None\nwrite({str(tmp_path / 'dead')!r}, 'new', pause=5)")
    assert child.stdout is not None
    child.stdout.readline()
    child.kill()
    child.communicate()
    assert word(package(tmp_path / "dead", "next")) == "next"
    assert names(tmp_path) == ["dead", "mini"]


# --- interrupted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("existing", [True, False])
def test_interrupt_leaves_the_target_and_nothing_else(tmp_path: Path, existing: bool) -> None:
    target = tmp_path / "models" / "mini"
    if existing:
        package(target, "old")
    child = start(f"write({str(target)!r}, 'new', pause=5)")
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert names(tmp_path) == (["models"] if existing else [])
    if existing:
        assert word(target) == "old"
        assert names(target.parent) == ["mini"]
