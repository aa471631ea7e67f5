"""What a kill, a full disk or Ctrl-C leaves: the target as it was, and nothing the next run does not clean.

Each fault happens to a child process, a small script around the public functions.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from converter.errors import PackageError, UsageError
from converter.packages.package import inspect_package, stage_package, write_record

# Writes one package of eight files that all hold the same word, then says so.
WRITER = """
import os, signal, sys, time
from pathlib import Path
import converter.packages.exchange
from converter.packages.package import stage_package, write_record

def write(target, word, pause=0.0, size=1):
    with stage_package(Path(target), overwrite=True) as staging:
        (staging.folder / "onnx").mkdir()
        for number in range(8):
            (staging.folder / "onnx" / f"{number}.bin").write_text(word * size)
            print("wrote", number, flush=True)
            time.sleep(pause)
        write_record(staging.folder, {"word": word})
"""


def start(script: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER + textwrap.dedent(script)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Where the tests run in the background of a shell, children would ignore an interrupt.
    options = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)} | options
    return subprocess.Popen(command, **{**pipes, **options})  # type: ignore[call-overload, no-any-return]


def run(script: str, **options: object) -> tuple[int, str]:
    child = start(script, **options)
    _, errors = child.communicate(timeout=60)
    return child.returncode, errors


def package(target: Path, word: str) -> Path:
    with stage_package(target, overwrite=True) as staging:
        (staging.folder / "onnx").mkdir()
        for number in range(8):
            (staging.folder / "onnx" / f"{number}.bin").write_text(word)
        write_record(staging.folder, {"word": word})
    return target


def word(target: Path) -> str:
    """The word of a package that is whole and of one piece."""
    info = inspect_package(target)
    info.require_intact()
    assert not info.extra
    return str(info.record["word"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount tmpfs folders with the options given, e.g. `size=1m`; skips where that is not permitted."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        try:
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a tmpfs is not permitted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


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


# --- no room, no permission ------------------------------------------------------------------------------


def test_full_disk_is_a_clear_error_and_leaves_the_target(
    tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=1m")
    target = package(disk / "mini", "old")
    with pytest.raises(PackageError, match="no room left"), stage_package(target, overwrite=True) as staging:
        (staging.folder / "model.onnx_data").write_bytes(bytes(4 * 2**20))
    assert word(target) == "old"
    assert names(disk) == ["mini"]


def test_full_disk_keeps_no_failed_package_that_cannot_be_kept(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=1m")
    with (
        pytest.raises(PackageError, match="no room"),
        stage_package(disk / "mini", keep_failed=True) as staging,
    ):
        (staging.folder / "model.onnx_data").write_bytes(bytes(4 * 2**20))
    assert names(disk) in ([], ["mini.failed"])


def test_disk_without_room_for_a_folder_is_refused_before_work(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("nr_inodes=2")
    (disk / "last").touch()
    with pytest.raises(UsageError, match="cannot write beside"), stage_package(disk / "mini"):
        pytest.fail("work began")


def test_quota_on_file_size_is_a_clear_error(tmp_path: Path) -> None:
    target = package(tmp_path / "mini", "old")
    code, errors = run(
        f"write({str(target)!r}, 'new', size=100_000)",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert code == 1
    assert "PackageError: no room left" in errors
    assert word(target) == "old"
    assert names(tmp_path) == ["mini"]


def test_unwritable_parent_is_refused_before_work(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=1m,ro")
    for target in (disk / "mini", disk / "models" / "mini"):
        with pytest.raises(UsageError, match="cannot write beside"), stage_package(target):
            pytest.fail("work began")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_forbidden_parent_is_refused_before_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot write beside"), stage_package(tmp_path / "mini"):
        pytest.fail("work began")


def test_mount_point_is_refused_with_a_folder_inside_it_named(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=1m")
    with pytest.raises(UsageError, match="mount point") as caught, stage_package(disk):
        pytest.fail("work began")
    assert str(disk / "package") in caught.value.remedy
    package(disk / "package", "new")


# --- a whole conversion ----------------------------------------------------------------------------------


@pytest.mark.parametrize("parity", ["off", "structural"], ids=["written here", "written by another process"])
def test_full_disk_during_a_conversion_says_so_and_leaves_nothing(
    parity: str, tiny_checkpoint: Callable[..., Path], small_disk: Callable[[str], Path]
) -> None:
    from converter import convert

    disk = small_disk("size=64k")
    checkpoint = tiny_checkpoint("bert")
    with pytest.raises(PackageError, match=r"cannot be written|no room"):
        convert(model=checkpoint, output=disk / "package", parity=parity, external_data="always")
    assert names(disk) == []
