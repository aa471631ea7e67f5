"""Run a command and report its wall time and memory, summed over its process tree. Linux only."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL = 0.05


@dataclass(frozen=True)
class Measured:
    """Seconds; peak bytes resident (mapped files counted) and anonymous (not counted); the exit code and output."""

    wall: float
    resident: int
    anonymous: int
    code: int
    output: str


def _smaps(process: psutil.Process) -> tuple[int, int]:
    """(resident, anonymous) bytes of one process, from the kernel's own sums."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    return int(fields["Rss"].split()[0]) * 1024, int(fields["Anonymous"].split()[0]) * 1024


def measure(command: list[str]) -> Measured:
    """Run `command` to its end, sampling every 50 ms."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    root = psutil.Process(child.pid)
    resident = anonymous = 0
    while child.poll() is None:
        sums = [0, 0]
        try:
            for process in [root, *root.children(recursive=True)]:
                sums = [total + part for total, part in zip(sums, _smaps(process), strict=True)]
        except (psutil.Error, OSError, KeyError):
            pass  # a process that ends between two readings
        resident, anonymous = max(resident, sums[0]), max(anonymous, sums[1])
        time.sleep(INTERVAL)
    output = child.stdout.read() if child.stdout else ""
    return Measured(time.perf_counter() - start, resident, anonymous, child.returncode, output)
