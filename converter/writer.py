"""The data file, written and read back by a process of its own while this one traces.

Writing gigabytes keeps a core busy with converting and hashing, and tracing keeps the interpreter. A thread beside
the tracing wrote 8.8 GB in 38 s where alone it took 17; with a process the whole conversion took 69.5 s instead of
71.3. The process has no torch in it.
"""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from converter import errors
from converter.errors import ConverterError, PackageError
from converter.weights import DataLayout, DataPlan, check_data

Advance = Callable[[int, int], None]
_INTERVAL = 0.5  # seconds between two words about the progress


class WriterProcess:
    """Writes a planned data file, then checks it against its source. Left early, it is ended."""

    def __init__(self, plan: DataPlan) -> None:
        self.plan = plan

    def __enter__(self) -> WriterProcess:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "converter.writer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdin is not None
        job = pickle.dumps(self.plan)
        self.process.stdin.write(len(job).to_bytes(8, "little") + job)
        self.process.stdin.flush()  # and stays open: its end tells the process that this one is gone
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def result(self, advance: Advance | None = None) -> tuple[DataLayout, int]:
        """Wait for it: the layout, and the number of tensors that were found right. Raises what went wrong there."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, _, rest = line.partition(b" ")
            if word == b"progress" and advance is not None:
                done, total = map(int, rest.split())
                advance(done, total)
            elif word == b"done":
                return self.plan.layout(rest.split()[0].decode()), int(rest.split()[1])
            elif word == b"failed":
                name, message, remedy = pickle.loads(base64.b64decode(rest))
                raise getattr(errors, name, PackageError)(message, remedy=remedy)
        raise PackageError(
            f"the process that writes {self.plan.path.name} ended without a word (exit code {self.process.wait()})",
            remedy="was it killed, for want of memory perhaps?",
        )


def main() -> None:
    """The other side of `WriterProcess`: a plan on stdin, lines on stdout."""
    size = int.from_bytes(sys.stdin.buffer.read(8), "little")
    plan: DataPlan = pickle.loads(sys.stdin.buffer.read(size))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        layout = plan.write(_Telling())
        say(b"done", f"{layout.sha256} {check_data(layout)}".encode())
    except ConverterError as error:
        facts = (type(error).__name__, error.message, error.remedy)
        say(b"failed", base64.b64encode(pickle.dumps(facts)))


def say(word: bytes, rest: bytes) -> None:
    sys.stdout.buffer.write(word + b" " + rest + b"\n")
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    """A converter that is killed must not leave a process behind that goes on writing."""
    os.read(sys.stdin.fileno(), 1)  # not through the buffer, whose lock Python wants at its end
    os._exit(1)


class _Telling:
    """Tells how far it is, not too often."""

    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self.last > _INTERVAL:
            self.last = time.monotonic()
            say(b"progress", f"{done} {total}".encode())


if __name__ == "__main__":
    main()
