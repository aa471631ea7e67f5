"""A benchmark of a package: each of its precisions, and torch, on the same work.

Contenders take turns, so that what else the machine does falls on all of them. Everything but the model's
run is the same code for all: tokenizing, sorting, pooling, choosing the next token.
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

from converter.bench.load import BATCH_SIZES, Load
from converter.bench.report import BenchReport, Contender, Spread
from converter.errors import PackageError, UsageError
from converter.request import SILENT, Progress
from converter.scratch import scratch_folder

WARM_UP = 2
TORCH = "torch"


def bench(
    package: str | Path,
    model: str | None = None,
    *,
    precisions: Sequence[str] = (),
    batch_sizes: Sequence[int] = BATCH_SIZES,
    repeats: int = 7,
    documents: int = 256,
    new_tokens: int = 32,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> BenchReport:
    """Measure the precisions of a package (empty: all), and torch on `model` where it is given.

    Encoders and classifiers are measured at `batch_sizes`, those of texts on so many `documents` besides; models that
    generate by `new_tokens` tokens. Graphs of any other kind get what the architecture they were made by declares,
    which takes torch. `threads` is each contender's, None for the cores this process may use. Raises UsageError for
    numbers that measure nothing, PackageError for graphs that nobody knows what to feed to.
    """
    numbers = (repeats, documents, *batch_sizes, threads or 1)
    if not batch_sizes or min(numbers) < 1 or new_tokens < 2:
        raise UsageError(
            "a benchmark needs at least 1 repeat, document, thread and text per batch, and at least 2 new tokens"
        )
    from converter.bench.plan import Amounts, plan
    from converter.runtime.files import open_package

    files = open_package(package)
    threads = threads or _usable_cores()
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        local = _local(model) if model else None
        work = plan(files, Amounts(batch_sizes, documents, new_tokens), scratch, local)
        shared = {"package": str(files.folder), "threads": threads, "kind": work.kind, **work.settings}
        contenders = _contenders(shared, local, precisions or work.precisions)
        stack.enter_context(progress.stage(f"benchmark {', '.join(contenders)}"))
        workers = {name: stack.enter_context(_worker(name, each)) for name, each in contenders.items()}
        measured = _measure(workers, work.load, repeats, progress)
    return BenchReport(
        package=str(files.folder),
        measures=work.load.measures,
        contenders=tuple(measured),
        agreement=work.load.agreement,
        load=work.load.words,
        threads=threads,
        repeats=repeats,
        machine=_machine(),
        versions=_versions(model is not None),
    )


def _contenders(
    shared: Mapping[str, Any], model: str | None, precisions: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The settings of each contender's process, by name; torch, which is the baseline, comes first."""
    contenders: dict[str, dict[str, Any]] = {}
    if model:
        contenders[TORCH] = {**shared, "model": model}
    for name in precisions:
        contenders[name] = {**shared, "model": None, "precision": name}
    return contenders


Ask = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class _Worker:
    opening: Mapping[str, float]
    ask: Ask


@contextmanager
def _worker(name: str, settings: Mapping[str, Any]) -> Iterator[_Worker]:
    """A contender's process, ended with the context."""
    command = [sys.executable, "-m", "converter.bench.worker", json.dumps(settings)]
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
            f"{name}: its process exited without an answer",
            remedy="it may have run out of memory",
            topic="memory",
        )
    reply: dict[str, Any] = json.loads(line)
    if "error" in reply:
        raise PackageError(f"{name}: {reply['error']}", remedy=reply["remedy"])
    return reply


def _measure(workers: Mapping[str, _Worker], load: Load, repeats: int, progress: Progress) -> list[Contender]:
    """Every contender takes its turn with every task in each round; the first rounds are not counted."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in workers}
    memory: dict[str, int] = {}
    names = list(workers)
    for turn in range(-WARM_UP, repeats):
        random.Random(turn).shuffle(names)  # so that nobody always comes after the same other
        for task in load.tasks:
            for name in names:
                reply = workers[name].ask(task)
                memory[name] = reply["resident_bytes"]
                for measure, values in reply["figures"].items():
                    found[name].setdefault(measure, []).extend(values if turn >= 0 else ())
        progress.advance(turn + WARM_UP + 1, repeats + WARM_UP)
    last = {**load.compared, "output": True}
    outputs = {name: worker.ask(last)["output"] for name, worker in workers.items()}
    baseline = next(iter(outputs.values()))
    return [
        Contender(
            name=name,
            figures={measure: Spread.of(values) for measure, values in found[name].items()},
            import_seconds=worker.opening["import_seconds"],
            open_seconds=worker.opening["open_seconds"],
            resident_bytes=memory[name],
            agreement=load.agree(outputs[name], baseline),
        )
        for name, worker in workers.items()
    ]


def _local(model: str) -> str:
    from converter.checkpoints.download import resolve_model
    from converter.extras import require_export

    require_export()
    folder, _, _ = resolve_model(model)
    return str(folder)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine() -> str:
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
