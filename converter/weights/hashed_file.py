"""A file written in blocks from reused buffers: filling, writing and hashing overlap.

Buffers reach the disk in whole pages, where they may go past the page cache: what is left of an append waits for the
next.
"""

from __future__ import annotations

import errno
import hashlib
import queue
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from converter.errors import PackageError
from converter.weights.direct_io import DIRECT, PAGE, Bytes, aligned_buffer, leave_direct, open_raw

BLOCK_BYTES = 8 * 2**20
# One being filled while the other is being written and hashed.
_BUFFERS = 2


class HashedFile:
    """A new file, open for appending: a context manager.

    One that will have `expected` bytes, if they are many, is written past the page cache. Nothing is synced to the
    disk: a package is moved into place as a folder, and one whose writing was interrupted is thrown away. The mode
    is what the umask leaves of 0666. A disk error becomes a PackageError.
    """

    def __init__(self, path: Path, block_bytes: int = BLOCK_BYTES, *, expected: int = 0) -> None:
        self.path = path
        self.block_bytes = block_bytes
        self.expected = expected
        self.position = 0
        self._hash = hashlib.sha256()
        self._free: queue.SimpleQueue[Bytes | None] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(None)
        self._filling = self._tail = np.empty(0, np.uint8)
        self._failed: PackageError | None = None
        self._last: Future[None] | None = None

    def __enter__(self) -> HashedFile:
        try:
            self._file = open_raw(self.path, "wb", direct=self.expected >= DIRECT)
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
            if kind is None and self._failed is None:
                leave_direct(self._file)
                self._write(self._tail.data)
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
        """A buffer of this size to fill and hand to `append` before the next. Waits for a free one."""
        start = self.position % PAGE  # room for the tail; so what is a page of the file is one of memory
        found = self._free.get()
        if found is None or len(found) < start + nbytes:
            found = None  # before the larger one is made, not after
            found = aligned_buffer(max(nbytes, self.block_bytes) + PAGE)
        self._filling = found
        return found[start : start + nbytes]

    def append(self, buffer: Bytes) -> None:
        """Write the buffer that `buffer` gave out last; it must not be touched afterwards.

        What failed with earlier ones is raised here.
        """
        self._raise_failure()
        whole, start = self._filling, self.position % PAGE
        whole[:start] = self._tail
        end = start + len(buffer)
        pages = end - end % PAGE
        self._tail = whole[pages:end].copy()
        self._last = self._writer.submit(self._write_and_hash, whole, pages, buffer, self.position)
        self.position += len(buffer)

    def write(self, data: bytes) -> None:
        """Write small or existing bytes."""
        if data:
            buffer = self.buffer(len(data))
            buffer[:] = np.frombuffer(data, np.uint8)
            self.append(buffer)

    def pad_to(self, position: int) -> None:
        """Write zeros up to `position`."""
        self.write(bytes(position - self.position))

    def _write_and_hash(self, whole: Bytes, pages: int, added: Bytes, position: int) -> None:
        hashing = self._hasher.submit(self._hash.update, added.data)
        try:
            if self._failed is None:
                self._write(whole[:pages].data)
        except OSError as error:
            self._failed = self._failure(error, position)
        finally:
            hashing.result()
            self._free.put(whole)

    def _write(self, view: memoryview) -> None:
        while view:
            try:
                count = self._file.write(view)
            except OSError as error:
                # A file system that took the flag and not the writing, or a disk that filled up within a page.
                if error.errno == errno.EINVAL and leave_direct(self._file):
                    continue
                raise
            view = view[count:]

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
