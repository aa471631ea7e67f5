"""The folder a package is built in, beside its target, and the one step that puts it in place.

What is promised: until the exchange the target is as it was, after it the target is the whole new package. A
kill, a full disk or Ctrl-C changes nothing of that, and the next run on the same target removes what they
left.

Against power loss: the folder entries are always synced. File contents are synced only when an old package is
about to be replaced, because only then is something lost that cannot be had again; syncing the gigabytes of
every first conversion would cost as much as writing them. `inspect_package` tells a package with incomplete
files by its hashes.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from converter.errors import PackageError, UsageError
from converter.json_files import object_or_empty
from converter.packages.exchange import PACKAGE, discard, exchange, lock, recover, scratch_prefix, sync_folder

RECORD = "converter.json"
FAILED = "FAILED"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Staging:
    """A package under construction: write into `folder`; it becomes `target` when the block ends well."""

    folder: Path
    target: Path


@contextmanager
def stage_package(
    target: Path,
    *,
    overwrite: bool = False,
    keep_failed: bool = False,
    source: Path | None = None,
    kind: str = "package",
) -> Iterator[Staging]:
    """A new folder to write a package into; it becomes `target` in one step when the block ends well.

    An existing package is replaced as a whole with `overwrite`, whatever else lay in its folder included; a
    non-empty folder without a converter.json of the same `kind` is never replaced. With `keep_failed` the
    folder of a failed run is kept as `<target>.failed`, with a file FAILED that says why. `source` is the
    checkpoint folder, which the target may not touch. Raises UsageError before any work when the target
    cannot be written, and PackageError when the disk fills.
    """
    target = _resolve(target)
    _check_place(target, source)
    with _parents(target), _locked(target):
        recover(target)  # first, because it may bring a target back, and because a refused run cleans up too
        _check_content(target, overwrite, kind)
        scratch = _make_scratch(target)
        package = scratch / PACKAGE
        identity = package.stat()
        try:
            yield Staging(package, target)
            _check_content(target, overwrite, kind)
            _settle(package, durable=target.is_dir() and any(target.iterdir()))
            exchange(scratch, target)
        except BaseException as error:
            # After a completed exchange `package` is the old target, which is not what failed.
            if keep_failed and package.is_dir() and os.path.samestat(package.stat(), identity):
                _keep(package, target, error)
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                free = shutil.disk_usage(target.parent).free >> 20
                raise PackageError(
                    f"no room left while making {target}: {error.strerror}, {free} MiB are free there",
                    remedy="free some space or choose an --output on another disk; the target is as it was",
                ) from error
            raise
        finally:
            discard(scratch, target)


def check_target(target: Path, *, overwrite: bool, source: Path | None = None, kind: str = "package") -> None:
    """Raise UsageError when `stage_package` would refuse `target`. Writes nothing: ask before long work."""
    target = _resolve(target)
    _check_place(target, source)
    _check_content(target, overwrite, kind)


def _resolve(target: Path) -> Path:
    try:
        return target.expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{target} cannot be resolved: {error}", remedy="choose another --output") from error


def _make_scratch(target: Path) -> Path:
    try:
        scratch = Path(tempfile.mkdtemp(prefix=scratch_prefix(target), dir=target.parent))
        (scratch / PACKAGE).mkdir()
    except OSError as error:
        raise _unwritable(target, error) from error
    return scratch


def _check_place(target: Path, source: Path | None) -> None:
    """Whether a folder may be there at all: not around the user's own, and where it can be exchanged."""
    places = {Path.cwd(): "the working directory"}
    with suppress(RuntimeError):  # a user without a home, as in many containers
        places[Path.home().resolve()] = "the home directory"
    if source is not None:
        places[source.resolve()] = "the checkpoint"
    for place, name in places.items():
        if target == place or target in place.parents:
            raise UsageError(f"{target} is or contains {name}", remedy="choose another --output")
    if source is not None and source.resolve() in target.parents:
        raise UsageError(
            f"{target} lies inside the checkpoint {source}", remedy="choose an --output outside of it"
        )
    if target.is_mount():
        raise UsageError(
            f"{target} is a mount point, which cannot be exchanged in one step",
            remedy=f"choose a folder inside it: --output {target / 'package'}",
        )


def _check_content(target: Path, overwrite: bool, kind: str) -> None:
    """Whether what is at `target` may go: nothing, or with `overwrite` one of ours, of the same kind."""
    try:
        if target.exists() and not target.is_dir():
            raise UsageError(f"{target} is a file, not a folder", remedy="choose another --output")
        empty = not target.is_dir() or not any(target.iterdir())
    except OSError as error:
        raise _unwritable(target, error) from error
    if empty:
        return
    if not overwrite:
        raise UsageError(
            f"{target} exists and is not empty", remedy="--overwrite replaces it, after success only"
        )
    if _kind_of(target) != kind:
        raise UsageError(
            f"{target} has no {RECORD} marking it as a {kind} of this converter, so --overwrite does not replace it",
            remedy="choose another --output, or delete that folder yourself",
        )


def _kind_of(folder: Path) -> str | None:
    record = object_or_empty(folder / RECORD)
    return record.get("kind") if "format_version" in record else None


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the folders above `target`; a run that fails takes back those that are still empty."""
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()
        raise


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(lock(target))
        except OSError as error:
            raise _unwritable(target, error) from error
        yield


def _unwritable(target: Path, error: OSError) -> UsageError:
    return UsageError(
        f"cannot write beside {target}: {error.strerror} ({error.filename})",
        remedy="a package is built next to its target; choose an --output in a folder you may write to",
    )


def _settle(package: Path, *, durable: bool) -> None:
    """Give files 0644 and folders 0755, less the umask; sync folders, and with `durable` files too."""
    # The folder was made by mkdir, so its own mode tells the umask without setting it, which threads would
    # see.
    allowed = stat.S_IMODE(package.stat().st_mode)
    for root, _, files in os.walk(package, topdown=False):
        folder = Path(root)
        for name in files:
            path = folder / name
            path.chmod(0o644 & allowed)
            if durable:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        folder.chmod(0o755 & allowed)
        sync_folder(folder)


def _keep(package: Path, target: Path, error: BaseException) -> None:
    """Move a failed package to `<target>.failed`, in the place of an older one, with the reason inside."""
    if not package.is_dir():
        return
    kept = target.with_name(f"{target.name}.failed")
    try:
        if (kept / FAILED).is_file():
            shutil.rmtree(kept)
        _settle(package, durable=False)
        (package / FAILED).write_text(f"{type(error).__name__}: {error}\n", encoding="utf-8")
        package.rename(kept)
    except OSError as problem:
        error.add_note(f"the failed package could not be kept as {kept}: {problem}")
    else:
        error.add_note(f"the failed package was kept as {kept}")
