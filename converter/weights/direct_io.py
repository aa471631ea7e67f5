"""Large files written and read past the page cache: aligned buffers, and reading ahead.

What a cached write costs is mostly the kernel's: it finds a page for every 4 KiB, copies there, and has the same
memory to find again for what comes next. Written directly, a file of 9 GB takes a fifth of the time on the machine of
docs/performance.md, and reading it back reads the disk and not a copy of what was meant to be there.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

# What disks and file systems want addresses, positions and lengths to be multiples of.
PAGE = 4096
# Bytes. Smaller files are better kept in the cache: somebody is about to open them.
DIRECT = 2**30
# What is read at a time, at most; longer pieces are read in turns.
PIECE = 4 * 2**20
_AHEAD = 2


def aligned_buffer(nbytes: int) -> Bytes:
    """An uninitialised array of bytes that starts on a page."""
    memory = np.empty(nbytes + PAGE, np.uint8)
    start = -memory.ctypes.data % PAGE
    return memory[start : start + nbytes]


def open_raw(path: Path, mode: str, *, direct: bool) -> FileIO:
    """Open a file without a buffer, past the page cache if `direct` and the system and its file system can."""
    flag = getattr(os, "O_DIRECT", 0) if direct else 0
    if flag:
        try:
            return FileIO(path, mode, opener=lambda name, flags: os.open(name, flags | flag, 0o666))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return FileIO(path, mode)


def leave_direct(file: FileIO) -> bool:
    """Go on through the page cache, as the end of a file must. Returns whether it was opened past it."""
    flag = getattr(os, "O_DIRECT", 0)
    if not flag:
        return False
    import fcntl

    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    if not flags & flag:
        return False
    fcntl.fcntl(file, fcntl.F_SETFL, flags & ~flag)
    return True


def read_spans(path: Path, spans: Iterable[tuple[int, int]], *, direct: bool) -> Generator[Bytes]:
    """The bytes of each (offset, length) of a file in turn, at most `PIECE` long, read ahead by a thread.

    An array is good until the next is asked for, and shorter than its span where the file ends first.
    """
    free = [aligned_buffer(PIECE + 2 * PAGE) for _ in range(_AHEAD + 1)]
    waiting: deque[Future[tuple[Bytes, Bytes]]] = deque()
    with open_raw(path, "rb", direct=direct) as file, ThreadPoolExecutor(1, "reader") as reader:
        todo = iter(spans)
        while True:
            while free and (span := next(todo, None)) is not None:
                waiting.append(reader.submit(_read, file, *span, free.pop()))
            if not waiting:
                return
            found, buffer = waiting.popleft().result()
            yield found
            free.append(buffer)


def _read(file: FileIO, offset: int, length: int, buffer: Bytes) -> tuple[Bytes, Bytes]:
    """The span within `buffer`, filled with the pages it lies on, and the buffer."""
    start = offset % PAGE
    wanted = -(-(start + length) // PAGE) * PAGE
    done = 0
    file.seek(offset - start)
    while done < wanted:
        try:
            count = file.readinto(buffer[done:wanted].data)
        except OSError as error:  # a file system that took the flag and does not take the reading
            if error.errno == errno.EINVAL and leave_direct(file):
                continue
            raise
        if not count:
            break
        done += count
    return buffer[start : max(start, min(start + length, done))], buffer
