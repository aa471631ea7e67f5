"""Convert every model type of the installed transformers that has a task class, and write down what came of it.

    python scripts/coverage.py [--workers N] [--only NAME ...] [--tasks NAME ...] [--first] [--owned] [--seconds N]
                               [--again] [--outdated] [--no-run]

Each case is a small checkpoint of five layers with odd sizes and seeded weights, converted by the command line with
full parity at the default opset. Types that no plugin owns go through the one that stands in for them. The first task
of every type comes first, then the second. Results go to docs/architectures.jsonl as they come, so a run that was
stopped goes on where it was, on a fresh clone too; those in docs/architectures.md are written from that file. A worker
is a process of its own: one that dies or hangs costs its case, not the run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import queue
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from coverage_cases import cases, named_type
from coverage_table import current, results, write_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "architectures.jsonl"
TABLE = ROOT / "docs" / "architectures.md"
TIME_LIMIT = 600.0  # seconds for one case; the slowest takes about a tenth of it where nothing else runs
BOUND = 1e-4  # of the largest difference of any unmasked element, whatever a plugin allows
FOLDERS = re.compile(r"(?<![\w./])/(?:[\w.+~-]+/)+")  # of an absolute path
MADE_WITH = ("torch", "transformers", "onnxruntime")

# Five layers are enough that some are stamped; what configs call their number differs.
DEPTH = 5
DEPTH_KEYS = {
    "num_hidden_layers",
    "n_layers",
    "n_layer",
    "num_layers",
    "encoder_layers",
    "decoder_layers",
    "depth",
}
DEPTH_KEYS |= {"num_decoder_layers", "encoder_num_hidden_layers", "decoder_num_hidden_layers"}


def deepened(tiny: Mapping[str, Any]) -> dict[str, Any]:
    """The tiny config with `DEPTH` layers wherever it counts them."""
    return {
        key: deepened(value)
        if isinstance(value, Mapping)
        else DEPTH
        if key in DEPTH_KEYS and isinstance(value, int)
        else value
        for key, value in tiny.items()
    }


def deeper(source: Any) -> Any:
    """The same source, whose small checkpoints have `DEPTH` layers."""
    if hasattr(source, "depth"):  # it shrinks configs itself
        return replace(source, depth=DEPTH)
    if callable(source.tiny):  # it has one for every backbone
        return replace(source, tiny=lambda model_type: deepened(source.tiny(model_type)))
    entries = {name: deepened(getattr(source, name)) for name in ("tiny", "tinies") if hasattr(source, name)}
    return replace(source, **entries)


def converted(arch: str, task: str, checkpoint: Path, package: Path) -> dict[str, Any]:
    """What the command line's own path comes to, off the package's record. Raises what it raises."""
    from converter.cli.main import cli

    options = {"--arch": arch, "--task": task, "--model": checkpoint, "--output": package, "--parity": "full"}
    arguments = [str(word) for option in options.items() for word in option]
    cli.main([*arguments, "--quiet"], prog_name="converter", standalone_mode=False)
    record = json.loads((package / "converter.json").read_text())
    # Tokens of a generation are compared as such: they are counted, and all of them agree.
    compared = [row for row in record["parity"]["worst"] if row["output"] != "tokens"]
    difference = max(row["max_abs"] for row in compared)
    if difference > BOUND:
        raise ValueError(f"it differs by {difference:.1e}, within a bound of its own")
    return {"result": "pass", "difference": difference, "notes": record["notes"]}


def installed() -> str:
    """The versions that results are of."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in MADE_WITH)


def write_deep(source: Any, folder: Path, task: str) -> None:
    """A small checkpoint deep enough that layers are stamped."""
    try:
        deeper(source).write_tiny(folder, like=None, seed=7, task=task)
    except Exception:  # a config that lists something for each of its layers stays at its own depth
        source.write_tiny(folder, like=None, seed=7, task=task)


def begun(arch: str, task: str) -> dict[str, Any]:
    """A case, and what its result will be of."""
    from converter.request import DEFAULT_OPSET

    return {"arch": arch, "task": task, "opset": DEFAULT_OPSET, "versions": installed()}


def run_case(arch: str, task: str) -> dict[str, Any]:
    """Convert one case in this process. Whatever is raised becomes its reason."""
    from converter.registry import load_registry

    start = time.perf_counter()
    outcome = begun(arch, task) | {"model_type": arch}
    try:
        architecture = load_registry().find(arch)
        outcome["model_type"] = named_type(architecture, arch)
        with tempfile.TemporaryDirectory(prefix="coverage-") as scratch:
            checkpoint = Path(scratch) / "checkpoint"
            write_deep(architecture.source, checkpoint, task)
            outcome |= converted(arch, task, checkpoint, Path(scratch) / "package")
    except Exception as error:  # the table is what the errors are for
        outcome.update(result="fail", reason=reason_of(error))
    return {**outcome, "seconds": round(time.perf_counter() - start, 1)}


def reason_of(error: Exception) -> str:
    """Its first two lines, without the folders of the machine it was raised on."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {FOLDERS.sub('', ' '.join(lines[:2]))}"[:400]


def serve() -> None:
    """A worker: cases come as lines on the standard input, results leave on the standard output."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps(run_case(case["arch"], case["task"])), file=answers, flush=True)


class Worker:
    """A process that converts, started when it is first needed and again when it died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def run(self, case: Mapping[str, str]) -> dict[str, Any]:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        start = time.perf_counter()
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        print(json.dumps(dict(case)), file=stdin, flush=True)
        answer = stdout.readline() if select.select([stdout], [], [], TIME_LIMIT)[0] else ""
        if answer:
            found: dict[str, Any] = json.loads(answer)
            return found
        status = self.process.poll()
        self.stop()
        reason = "took too long" if status is None else f"the process ended with {status}"
        outcome = begun(**case) | {"model_type": case["arch"], "result": "fail", "reason": reason}
        return {**outcome, "seconds": round(time.perf_counter() - start, 1)}

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def run_all(pending: Sequence[dict[str, str]], workers: int, file: IO[str], seconds: float) -> None:
    """Each case's result goes to `file` as it comes. None is begun once `seconds` have passed."""
    end = time.monotonic() + seconds
    todo: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for case in pending:
        todo.put(case)
    lock = threading.Lock()

    def work() -> None:
        worker = Worker()
        while not todo.empty() and time.monotonic() < end:
            try:
                row = worker.run(todo.get_nowait())
            except queue.Empty:
                break
            with lock:
                print(json.dumps(row), file=file, flush=True)
                detail = row.get("reason") or f"{row['difference']:.1e}"
                print(
                    f"{row['result']}  {row['arch']}  {row['task']}  {row['seconds']} s  {detail}", flush=True
                )
        worker.stop()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="architectures; all without it")
    parser.add_argument("--tasks", nargs="*", default=[], metavar="NAME", help="tasks; all without it")
    parser.add_argument("--first", action="store_true", help="only the first task of each type")
    parser.add_argument("--owned", action="store_true", help="only types with a plugin of their own")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no case after that")
    parser.add_argument("--again", action="store_true", help="run what has a result, too")
    parser.add_argument(
        "--outdated", action="store_true", help="run what other versions were installed for, too"
    )
    parser.add_argument(
        "--no-run", action="store_true", help="only write the table from the results there are"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return 0
    wanted = (
        []
        if arguments.no_run
        else cases(arguments.only, arguments.tasks, owned_only=arguments.owned, first=arguments.first)
    )
    found = results(arguments.results)
    known = {
        key
        for key, row in found.items()
        if current(row) and not (arguments.outdated and row.get("versions") != installed())
    }
    pending = [case for case in wanted if arguments.again or (case["arch"], case["task"]) not in known]
    # A run that is cut short should leave as many results as it can of what works.
    passed = {key for key, row in found.items() if row["result"] == "pass"}
    pending.sort(key=lambda case: (case["arch"], case["task"]) not in passed)
    arguments.results.parent.mkdir(exist_ok=True)
    with arguments.results.open("a") as file:
        run_all(pending, arguments.workers, file, arguments.seconds)
    # A type that has a plugin by now may have other tasks: what was found of those it had says nothing any more.
    there = {(case["arch"], case["task"]) for case in cases()}
    rows = [row for key, row in results(arguments.results).items() if key in there]
    rows.sort(key=lambda row: (row["model_type"], row["task"]))
    arguments.results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_table(arguments.table, rows)
    return int(any(row["result"] != "pass" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
