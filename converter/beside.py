"""Work that waits for the disk, done in a thread beside work that keeps Python busy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TypeVar

T = TypeVar("T")
Advance = Callable[[int, int], None]

# Seconds. A thread that comes back from the disk waits up to this long for the interpreter; Python's 5 ms, a dozen
# times for each block, would cost more than the writing.
_SWITCH = 1e-4


class CancelledError(Exception):
    """The work beside this one failed, so nobody wants the result."""


@contextmanager
def beside(work: Callable[[Advance], T]) -> Iterator[Future[T]]:
    """Run `work` in a thread while the block runs, and wait for it at the block's end.

    `work` gets a function to call as it goes on; if the block fails, the next such call ends it with CancelledError.
    The block asks the future for the result, and gets what `work` raised.
    """
    cancelled = Event()

    def advance(done: int, total: int) -> None:
        if cancelled.is_set():
            raise CancelledError

    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="beside") as pool:
            future = pool.submit(work, advance)
            try:
                yield future
            except BaseException:
                cancelled.set()
                raise
    finally:
        sys.setswitchinterval(interval)
