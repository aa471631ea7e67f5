"""A file written in blocks from reused buffers: filling, writing and hashing overlap."""

from __future__ import annotations

import errno
import hashlib
import queue
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from converter.errors import PackageError

Bytes = npt.NDArray[np.uint8]

BLOCK_BYTES = 8 * 2**20
# One being filled while the other is being written and hashed.
_BUFFERS = 2


class HashedFile:
    """A new file, open for appending: a context manager.

    Nothing is synced to the disk: a package is moved into place as a folder, and one whose writing was
    interrupted is thrown away. The mode is what the umask leaves of 0666. A disk error becomes a
    PackageError.
    """

    def __init__(self, path: Path, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = path
        self.block_bytes = block_bytes
        self.position = 0
        self._hash = hashlib.sha256()
        self._free: queue.SimpleQueue[Bytes | None] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(None)
        self._failed: PackageError | None = None
        self._last: Future[None] | None = None

    def __enter__(self) -> HashedFile:
        try:
            self._file = self.path.open("wb", buffering=0)
        except OSError as error:
            raise self._failure(error, 0) from error
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown(cancel_futures=kind is not None)
        self._hasher.shutdown()
        try:
            self._file.close()
        except OSError as failure:
            self._failed = self._failed or self._failure(failure, self.position)
        if kind is None:
            self._raise_failure()
            if self._last is not None:
                self._last.result()

    @property
    def hexdigest(self) -> str:
        """The SHA-256 of all that was written; once the file is closed."""
        return self._hash.hexdigest()

    def buffer(self, nbytes: int) -> Bytes:
        """A buffer of this size to fill and hand to `append`. Waits for a free one."""
        found = self._free.get()
        if found is None or len(found) < nbytes:
            found = None  # before the larger one is made, not after
            found = np.empty(max(nbytes, self.block_bytes), np.uint8)
        return found[:nbytes]

    def append(self, buffer: Bytes) -> None:
        """Write a buffer that `buffer` gave out; it must not be touched afterwards."""
        whole = buffer.base  # numpy keeps the array that owns the memory there, however often it was sliced
        self._enqueue(buffer.data, whole if isinstance(whole, np.ndarray) else buffer)

    def write(self, data: bytes) -> None:
        """Write small or existing bytes."""
        self._enqueue(memoryview(data), None)

    def pad_to(self, position: int) -> None:
        """Write zeros up to `position`."""
        self.write(bytes(position - self.position))

    def _enqueue(self, view: memoryview, owner: Bytes | None) -> None:
        """Queue bytes for writing. What failed with earlier ones is raised here."""
        self._raise_failure()
        self._last = self._writer.submit(self._write_and_hash, view, owner, self.position)
        self.position += len(view)

    def _write_and_hash(self, view: memoryview, owner: Bytes | None, position: int) -> None:
        hashing = self._hasher.submit(self._hash.update, view)
        try:
            while view and self._failed is None:
                count = self._file.write(view)
                position += count
                view = view[count:]
        except OSError as error:
            self._failed = self._failure(error, position)
        finally:
            hashing.result()
            if owner is not None:
                self._free.put(owner)

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _failure(self, error: OSError, position: int) -> PackageError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        failure = PackageError(
            f"{self.path}: cannot be written after {position} bytes: {error.strerror}",
            remedy="make room there, or choose another --output" if full else "choose another --output",
        )
        failure.__cause__ = error
        return failure
