"""A child process that writes packages, to be killed or stopped, and packages of one word to tell old from new."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

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
