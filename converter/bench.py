"""A benchmark of a text encoder: each precision of a package, and torch, on the same texts.

Contenders take turns, so that what else the machine does falls on all of them. Everything but the model's
run is the same code for all: tokenizing, sorting, pooling.
"""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.bench_report import BenchReport, Contender, Spread
from converter.errors import PackageError, UsageError
from converter.request import SILENT, Progress

BATCH_SIZES = (1, 8, 32)
WORDS = 16  # of each text whose latency is measured
DOCUMENT_WORDS = (4, 120)  # the shortest and longest document
DOCUMENT_BATCH = 32
WARM_UP = 2
CALLS_FOR = 16  # texts a turn at least, so that small batches are not one tick of the clock
TORCH = "torch"
_VOCABULARY = (
    "the report shows that revenue grew in every region while costs fell and a small team in the north "
    "found new ways to store energy from wind water and light before winter came over the old harbour"
)


def bench(
    package: str | Path,
    model: str | None = None,
    *,
    precisions: Sequence[str] = (),
    batch_sizes: Sequence[int] = BATCH_SIZES,
    repeats: int = 7,
    documents: int = 256,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> BenchReport:
    """Measure the precisions of a package (empty: all), and torch on `model` where it is given.

    `threads` is each contender's, None for the cores this process may use. Raises UsageError for numbers
    that measure nothing, PackageError for a package that is no text encoder.
    """
    if repeats < 1 or documents < 1 or not batch_sizes or min(batch_sizes) < 1 or (threads or 1) < 1:
        raise UsageError("a benchmark needs 1 or more repeats, documents, threads and texts in a batch")
    from converter.runtime.files import open_package

    files = open_package(package)
    chosen = tuple(precisions) or tuple(files.precisions("model") or files.precisions("text_model"))
    if not chosen:
        raise PackageError(
            f"{files.folder} has no graph onnx/model.onnx", remedy="name the folder above onnx/"
        )
    threads = threads or _usable_cores()
    shared = {"package": str(files.folder), "threads": threads, "model": None}
    contenders = {name: {**shared, "precision": name} for name in chosen}
    if model:
        contenders = {TORCH: {**shared, "model": _local(model)}, **contenders}
    with ExitStack() as stack, progress.stage(f"benchmark {', '.join(contenders)}"):
        workers = {name: stack.enter_context(_worker(name, each)) for name, each in contenders.items()}
        measured = _measure(workers, batch_sizes, repeats, documents, progress)
    return BenchReport(
        package=str(files.folder),
        contenders=tuple(measured),
        threads=threads,
        repeats=repeats,
        documents=documents,
        machine=_machine(),
        versions=_versions(model is not None),
    )


Ask = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class _Worker:
    opening: Mapping[str, float]
    ask: Ask


@contextmanager
def _worker(name: str, settings: Mapping[str, Any]) -> Iterator[_Worker]:
    """A contender's process, ended with the context."""
    command = [sys.executable, "-m", "converter.bench_worker", json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _Worker(_reply(process, name), lambda request: _asked(process, name, request))
        finally:
            process.kill()


def _asked(process: subprocess.Popen[str], name: str, request: Mapping[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return _reply(process, name)


def _reply(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise PackageError(
            f"{name}: the process that ran it ended without a word", remedy="it may have run out of memory"
        )
    reply: dict[str, Any] = json.loads(line)
    if "error" in reply:
        raise PackageError(f"{name}: {reply['error']}", remedy=reply["remedy"])
    return reply


def _measure(
    workers: Mapping[str, _Worker],
    batch_sizes: Sequence[int],
    repeats: int,
    documents: int,
    progress: Progress,
) -> list[Contender]:
    """Every contender takes its turn with every task in each round; the first rounds are not counted."""
    tasks: dict[int, dict[str, Any]] = {
        size: {"texts": make_texts(size, WORDS, WORDS), "batch_size": size, "calls": -(-CALLS_FOR // size)}
        for size in batch_sizes
    }
    mixed = make_texts(documents, *DOCUMENT_WORDS)
    tasks[0] = {"texts": mixed, "batch_size": DOCUMENT_BATCH, "calls": 1}
    seconds: dict[str, dict[int, list[float]]] = {name: {key: [] for key in tasks} for name in workers}
    memory: dict[str, int] = {}
    for turn in range(-WARM_UP, repeats):
        for key, task in tasks.items():
            for name, worker in workers.items():
                reply = worker.ask(task)
                memory[name] = reply["resident_bytes"]
                if turn >= 0:
                    seconds[name][key] += reply["seconds"]
        progress.advance(turn + WARM_UP + 1, repeats + WARM_UP)
    vectors = {name: worker.ask({**tasks[0], "vectors": True})["vectors"] for name, worker in workers.items()}
    baseline = next(iter(vectors.values()))
    return [
        Contender(
            name=name,
            latency={size: Spread.of(seconds[name][size]) for size in batch_sizes},
            docs_per_second=Spread.of([documents / spent for spent in seconds[name][0]]),
            import_seconds=worker.opening["import_seconds"],
            open_seconds=worker.opening["open_seconds"],
            resident_bytes=memory[name],
            cosine=_least_cosine(vectors[name], baseline),
        )
        for name, worker in workers.items()
    ]


def make_texts(count: int, shortest: int, longest: int) -> list[str]:
    """Texts of so many words, each length from `shortest` to `longest` as likely. The same every time."""
    draw, words = random.Random(0), _VOCABULARY.split()
    return [" ".join(draw.choices(words, k=draw.randint(shortest, longest))) for _ in range(count)]


def _least_cosine(vectors: Any, baseline: Any) -> float:
    import numpy as np

    a, b = np.asarray(vectors, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).min())


def _local(model: str) -> str:
    from converter.download import resolve_model
    from converter.extras import require_export

    require_export()
    folder, _, _ = resolve_model(model)
    return str(folder)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine() -> str:
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.machine()
    return f"{cpu}, {_usable_cores()} cores, {platform.system()}"


def _versions(torch: bool) -> dict[str, str]:
    from importlib.metadata import version

    names = ("converter", "onnxruntime", "tokenizers", *(("torch", "transformers") if torch else ()))
    return {name: version(name) for name in names}
