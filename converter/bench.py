"""A benchmark of a text encoder: each precision of a package, and torch, on the same texts.

Contenders take turns, so that what else the machine does falls on all of them. Everything but the model's
run is the same code for all: tokenizing, sorting, pooling.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Spread:
    """Of repeated measurements: the median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Contender:
    """What was measured of one precision, or of torch.

    latency         seconds a call, by batch size, tokenizing and pooling included
    docs_per_second over documents of mixed length
    open_seconds    from a path to a model that can run, its library's import apart
    resident_bytes  of the whole process at the end
    cosine          least over all documents, to the baseline's vectors
    """

    name: str
    latency: Mapping[int, Spread]
    docs_per_second: Spread
    import_seconds: float
    open_seconds: float
    resident_bytes: int
    cosine: float


@dataclass(frozen=True)
class BenchReport:
    """The baseline comes first: torch where a checkpoint was given, else the first precision."""

    package: str
    contenders: tuple[Contender, ...]
    threads: int
    repeats: int
    documents: int
    machine: str
    versions: Mapping[str, str]

    def ratios(self, contender: Contender) -> dict[str, float]:
        """How many times the baseline's speed: by batch size (`batch 8`), and of documents."""
        base = self.contenders[0]
        ratios = {
            f"batch {size}": base.latency[size].median / spread.median
            for size, spread in contender.latency.items()
        }
        return {**ratios, "docs/s": contender.docs_per_second.median / base.docs_per_second.median}

    def to_json(self) -> dict[str, Any]:
        """The report in plain values, ratios with each contender."""
        content = asdict(self)
        for entry, contender in zip(content["contenders"], self.contenders, strict=True):
            entry["times_the_baseline"] = self.ratios(contender)
            entry["latency"] = {str(size): asdict(spread) for size, spread in contender.latency.items()}
        return content

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Header and rows for the screen: ratios first, then what they are made of."""
        sizes = list(self.contenders[0].latency)
        header = (
            self.contenders[0].name + " = 1",
            *(f"batch {size}" for size in sizes),
            "docs/s",
            "cosine",
            *(f"ms at {size}" for size in sizes),
            "docs a second",
            "open s",
            "MB",
        )
        return header, [self._row(contender) for contender in self.contenders]

    def _row(self, contender: Contender) -> tuple[str, ...]:
        speed = contender.docs_per_second
        return (
            contender.name,
            *(f"{ratio:.2f}x" for ratio in self.ratios(contender).values()),
            f"{contender.cosine:.5f}",
            *(_milliseconds(spread) for spread in contender.latency.values()),
            f"{speed.median:.0f} ({speed.low:.0f}-{speed.high:.0f})",
            f"{contender.open_seconds:.2f}",
            f"{contender.resident_bytes / 1e6:.0f}",
        )


def _milliseconds(spread: Spread) -> str:
    return f"{spread.median * 1e3:.1f} ({spread.low * 1e3:.1f}-{spread.high * 1e3:.1f})"


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
