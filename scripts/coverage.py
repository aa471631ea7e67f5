"""Convert every model type of the registered architectures, for every task, and write down what came of it.

    python scripts/coverage.py [--workers N] [--only NAME ...] [--again] [--no-run]

Each case is a small checkpoint of five layers with odd sizes and seeded weights, converted with full parity. Results
go to a file of JSON lines as they come, so a run that was stopped goes on where it was; docs/architectures.md is
written from that file. A worker is a process of its own: one that dies or hangs costs its case, not the run.
"""

from __future__ import annotations

import argparse
import json
import queue
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

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "architectures.jsonl"
TABLE = ROOT / "docs" / "architectures.md"
TIME_LIMIT = 240.0  # seconds for one case; the slowest takes about a quarter of it on two cores

# Five layers are enough that some are stamped; what configs call their number differs.
DEPTH = 5
DEPTH_KEYS = {"num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers"}
DEPTH_KEYS |= {"num_decoder_layers"}


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


def run_case(arch: str, task: str) -> dict[str, Any]:
    """Convert one case in this process. Whatever is raised becomes its reason."""
    from converter import convert
    from converter.registry import load_registry
    from converter.sources import TransformersModel

    architecture = load_registry().find(arch)
    own = deep = architecture.source
    if isinstance(own, TransformersModel):
        deep = replace(own, tiny=deepened(own.tiny))
    start = time.perf_counter()
    outcome: dict[str, Any] = {"arch": arch, "model_type": architecture.model_types[0], "task": task}
    try:
        with tempfile.TemporaryDirectory(prefix="coverage-") as scratch:
            checkpoint = Path(scratch) / "checkpoint"
            try:
                deep.write_tiny(checkpoint, like=None, seed=7, task=task)
            except Exception:  # a config that lists something for each of its layers stays at its own depth
                own.write_tiny(checkpoint, like=None, seed=7, task=task)
            report = convert(
                arch=arch, model=checkpoint, output=Path(scratch) / "package", task=task, parity="full"
            )
        difference = max(row.max_abs for row in report.parity.comparisons)
        outcome.update(result="pass", difference=difference, notes=list(report.notes))
    except Exception as error:  # the table is what the errors are for
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        outcome.update(result="fail", reason=f"{type(error).__name__}: {' '.join(lines[:2])}"[:400])
    return {**outcome, "seconds": round(time.perf_counter() - start, 1)}


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
        return {**case, "model_type": case["arch"], "result": "fail", "reason": reason, "seconds": TIME_LIMIT}

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def cases(only: Sequence[str]) -> list[dict[str, str]]:
    from converter.registry import load_registry

    found = load_registry().architectures.values()
    return [
        {"arch": architecture.name, "task": task}
        for architecture in found
        for task in architecture.tasks
        if not only or architecture.name in only
    ]


def results(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The last result of each case."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["arch"], row["task"]): row for row in rows}


def run_all(pending: Sequence[dict[str, str]], workers: int, file: IO[str]) -> None:
    todo: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for case in pending:
        todo.put(case)
    lock = threading.Lock()

    def work() -> None:
        worker = Worker()
        while not todo.empty():
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


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """docs/architectures.md."""
    passed = sorted(
        (row for row in rows if row["result"] == "pass"), key=lambda r: (r["model_type"], r["task"])
    )
    failed = sorted(
        (row for row in rows if row["result"] != "pass"), key=lambda r: (r["model_type"], r["task"])
    )
    types = {row["model_type"] for row in passed}
    lines = [
        "# Architectures",
        "",
        f"Written by `scripts/coverage.py`: {len(types)} model types, {len(passed)} pairs of model type and task.",
        "Each is a small checkpoint of odd sizes and random weights, converted, and its graphs compared with the",
        "untouched original at sizes that tracing never saw: batch 1, every other axis at its least, padding on both",
        "sides. The difference is the largest of any unmasked output element at any of these sizes.",
        "",
        "| model type | task | result | max difference | seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['model_type']} | {row['task']} | pass | {row['difference']:.1e} | {row['seconds']} |"
        for row in passed
    ]
    if failed:
        lines += ["", "## Failures", "", "| model type | task | reason |", "| --- | --- | --- |"]
        lines += [
            f"| {row['model_type']} | {row['task']} | {row['reason'].replace('|', '/')} |" for row in failed
        ]
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="architectures; all without it")
    parser.add_argument("--again", action="store_true", help="run what has a result, too")
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
    wanted = [] if arguments.no_run else cases(arguments.only)
    known = results(arguments.results)
    pending = [case for case in wanted if arguments.again or (case["arch"], case["task"]) not in known]
    arguments.results.parent.mkdir(exist_ok=True)
    with arguments.results.open("a") as file:
        run_all(pending, arguments.workers, file)
    known = results(arguments.results)
    registered = {(case["arch"], case["task"]) for case in cases([])}
    # What was tried and is not offered any more did fail, and its reason is worth keeping.
    rows = [row for key, row in known.items() if key in registered or row["result"] != "pass"]
    arguments.table.write_text(table(rows))
    return int(any(row["result"] != "pass" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
