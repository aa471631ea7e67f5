"""A function run by a process of its own, with its progress told here and its errors raised here.

Two things need one: writing weights while this process traces, since tracing holds the interpreter; and tracing
itself, since torch and what it leaves behind stay in memory until their process ends.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import pkgutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, BinaryIO, Generic, TypeVar

from converter.console import quiet_libraries
from converter.errors import ConverterError
from converter.request import SILENT, Progress

Result = TypeVar("Result")
_INTERVAL = 0.5  # seconds between two words about the progress
_GRACE = 5.0  # seconds in which an ended process may clean up
_LENGTH = 8  # bytes that say how long a message is
# The same places to import from as here: what -m adds is not always what this process was started with.
_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from converter.apart import main; main()"


# glibc keeps what is freed, and more of it the larger it was. Tensors are to go back to the system at once.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**22)}


class ElsewhereError(Exception):
    """The cause of an error that was raised in another process: its traceback as text."""


class Apart(Generic[Result]):
    """`function(*arguments, progress)` in a process of its own: a context manager. Left early, it is ended.

    The function lives at the top of a module and is imported there; one that must not be imported here is named:
    "module:function". Arguments and result are pickled. What it raises is raised by `result`, with its traceback as
    the cause.
    """

    def __init__(self, function: Callable[..., Result] | str, *arguments: Any) -> None:
        self.name = (
            function if isinstance(function, str) else f"{function.__module__}:{function.__qualname__}"
        )
        quiet = logging.root.manager.disable >= logging.WARNING
        self.job = pickle.dumps((self.name, arguments, quiet))

    def __enter__(self) -> Apart[Result]:
        command = [sys.executable, "-P", "-c", _START, json.dumps(sys.path)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_MALLOC | os.environ
        )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # `result` says more
            _send(self.process.stdin, self.job)  # and it stays open: its end says that this process is gone
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def result(self, progress: Progress = SILENT) -> Result:
        """Wait for it, telling `progress` what it tells. Raises what went wrong there."""
        assert self.process.stdout is not None
        with ExitStack() as unfinished:
            stages: list[ExitStack] = []
            while (message := _receive(self.process.stdout)) is not None:
                word, *rest = pickle.loads(message)
                if word == "done":
                    done: Result = rest[0]
                    return done
                if word == "failed":
                    raise rest[0] from ElsewhereError(rest[1])
                if word == "begin":
                    stages.append(unfinished.enter_context(ExitStack()))
                    stages[-1].enter_context(progress.stage(*rest))
                elif word == "end":
                    stages.pop().close()
                else:
                    getattr(progress, word)(*rest)
        raise ConverterError(
            f"the process for {self.name.partition(':')[2]} exited without an answer (exit code {self.process.wait()})",
            remedy="it may have been killed because memory ran out",
            topic="memory",
        )


def run_apart(function: Callable[..., Result] | str, *arguments: Any, progress: Progress = SILENT) -> Result:
    """`function(*arguments, progress)` in a process of its own, waited for."""
    with Apart(function, *arguments) as process:
        return process.result(progress)


def run_without_torch(name: str, *arguments: Any, progress: Progress = SILENT) -> Any:
    """A function by its name, apart if that keeps torch out of this process; here where it is in already."""
    if "torch" in sys.modules:
        return pkgutil.resolve_name(name)(*arguments, progress)
    return run_apart(name, *arguments, progress=progress)


def main() -> None:
    """The other side of `Apart`: a job on stdin, messages on what was stdout, which becomes stderr."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job = _receive(sys.stdin.buffer)
    if job is None:
        return
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        name, arguments, quiet = pickle.loads(job)
        with quiet_libraries(verbose=not quiet):
            answer = ("done", pkgutil.resolve_name(name)(*arguments, Telling(channel)))
            message = pickle.dumps(answer)
    except KeyboardInterrupt:  # the terminal tells both processes, and the other one answers
        sys.exit(1)
    except Exception as error:  # whatever it is, the other process raises it
        message = pickle.dumps(("failed", _sendable(error), traceback.format_exc()))
    # The other side ends this process once it has the answer. What torch still tidies up would complain of it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _send(channel, message)


def _sendable(error: Exception) -> Exception:
    """The error itself, or its words where it does not survive the journey."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # it may hold anything; its traceback goes along as text in any case
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    """A converter that is killed must not leave a process behind that goes on writing."""
    os.read(0, 1)  # not through the buffer, whose lock Python wants at its end
    os._exit(1)


@dataclass
class Telling:
    """A `Progress` that tells the other process, not too often how far it is."""

    channel: BinaryIO
    told: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._tell("begin", name)
        yield
        self._tell("end")

    def advance(self, done: int, total: int) -> None:
        if time.monotonic() - self.told > _INTERVAL:
            self.told = time.monotonic()
            self._tell("advance", done, total)

    def note(self, text: str) -> None:
        self._tell("note", text)

    def _tell(self, *message: Any) -> None:
        _send(self.channel, pickle.dumps(message))


def _send(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(len(message).to_bytes(_LENGTH, "little") + message)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes | None:
    """The next message; None at the end, also where it ends within one."""
    length = int.from_bytes(head := pipe.read(_LENGTH), "little")
    message = pipe.read(length) if len(head) == _LENGTH else b""
    return message if len(head) == _LENGTH and len(message) == length else None
