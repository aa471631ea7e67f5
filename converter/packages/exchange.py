"""A finished folder into the place of another in one step, and what a killed run left behind.

A run keeps everything it makes in one scratch folder beside its target, `.<name>.converter-<random>`:

    package/    what is being built; the exchange puts it in the target's place
    previous/   the old target, for an instant, where the system cannot exchange two folders

One lock file, `.<name>.converter-lock`, is held while a run lasts. The kernel drops it with the process, so
whoever holds it knows that every scratch folder of that target was left by the dead.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from converter.errors import UsageError

PACKAGE = "package"
PREVIOUS = "previous"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h
_RENAME_SWAP = 2  # macOS sys/stdio.h
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY}


def scratch_prefix(target: Path) -> str:
    return f".{target.name}.converter-"


def exchange(scratch: Path, target: Path) -> None:
    """Put `scratch/package` in the place of `target`; what was there ends up in `scratch`.

    One system call where the system can exchange two folders. Elsewhere two renames: a kill between them
    leaves the old target as `scratch/previous`, and `recover` puts it back.
    """
    package = scratch / PACKAGE
    if not target.exists() or not any(target.iterdir()):
        package.rename(target)  # POSIX replaces an empty folder, and refuses one that filled up meanwhile
    elif not swap(package, target):
        _rename_twice(package, target, scratch / PREVIOUS)
    sync_folder(target.parent)


def swap(first: Path, second: Path) -> bool:
    """Exchange two folders atomically. False where the system or the file system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    old, new = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin":
        call, arguments = getattr(library, "renamex_np", None), (old, new, _RENAME_SWAP)
    else:
        call = getattr(library, "renameat2", None)
        arguments = (_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_EXCHANGE)
    if call is None:
        return False
    if call(*arguments) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))


def _rename_twice(package: Path, target: Path, previous: Path) -> None:
    try:
        target.rename(previous)
        package.rename(target)
    except BaseException:
        if previous.exists() and not target.exists():
            previous.rename(target)
        raise


def recover(target: Path) -> None:
    """Undo what killed runs left of `target`: put back a target that was set aside, remove scratch folders.

    Only for the holder of the target's lock. A folder that does not look like one of ours is left alone.
    """
    if not target.parent.is_dir():
        return
    ours = re.compile(re.escape(scratch_prefix(target)) + r"[a-z0-9_]{8}")
    for scratch in sorted(path for path in target.parent.iterdir() if ours.fullmatch(path.name)):
        if _is_scratch(scratch):
            discard(scratch, target)


def discard(scratch: Path, target: Path) -> None:
    """Remove a scratch folder, after putting back the old target if that is still in there."""
    previous = scratch / PREVIOUS
    if previous.is_dir():
        if not target.exists() or not any(target.iterdir()):
            previous.rename(target)
        elif (scratch / PACKAGE).exists():
            return  # somebody filled the gap since; the old package must not vanish for that
    shutil.rmtree(scratch, ignore_errors=True)  # what resists is left to the next run


def _is_scratch(path: Path) -> bool:
    try:
        return not path.is_symlink() and {entry.name for entry in path.iterdir()} <= {PACKAGE, PREVIOUS}
    except OSError:  # a file, or another user's
        return False


@contextmanager
def lock(target: Path) -> Iterator[None]:
    """Hold `target` against other runs.

    Raises UsageError when another run holds it, OSError when the lock cannot be made.
    """
    path = target.parent / f"{scratch_prefix(target)}lock"
    descriptor = _open_locked(path, target)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "started": _start_of(os.getpid())}).encode())
        yield
    finally:
        # Unlinked while still held: whoever waits on this file finds it gone from its path and makes a new
        # one.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _open_locked(path: Path, target: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _acquire(descriptor):
                raise UsageError(
                    f"another run{_holder(descriptor)} is writing to {target}",
                    remedy="wait for it to end, or choose another --output",
                )
            if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _acquire(descriptor: int) -> bool:
    """Take the kernel's lock; where there is none, see whether the process named in the file still lives."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pid, started = _owner(descriptor)
        return pid == 0 or _start_of(pid) != started
    return True


def _owner(descriptor: int) -> tuple[int, float]:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return int(owner["pid"]), float(owner["started"])
    except (ValueError, KeyError, TypeError):
        return 0, 0.0


def _holder(descriptor: int) -> str:
    pid, _ = _owner(descriptor)
    return f" (process {pid})" if pid else ""


def _start_of(pid: int) -> float:
    """When a process began, seconds since the epoch; -1 when there is none. Pids alone are given anew."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return -1.0


def sync_folder(folder: Path) -> None:
    """Have the folder's entries reach the disk; silently nothing where folders cannot be synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
