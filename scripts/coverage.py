"""Convert every model type of the installed transformers that has a task class, and write down what came of it.

    python scripts/coverage.py [--workers N] [--only NAME ...] [--tasks NAME ...] [--again] [--no-run]

Each case is a small checkpoint of five layers with odd sizes and seeded weights, converted with full parity at the
default opset. Types that no plugin owns go through the one that stands in for them. The first task of every type comes
first, then the second. Results go to docs/architectures.jsonl as they come, so a run that was stopped goes on where it
was, on a fresh clone too; docs/architectures.md is written from that file. A worker is a process of its own: one that
dies or hangs costs its case, not the run.
"""

from __future__ import annotations

import argparse
import itertools
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
RESULTS = ROOT / "docs" / "architectures.jsonl"
TABLE = ROOT / "docs" / "architectures.md"
TIME_LIMIT = 600.0  # seconds for one case; the slowest takes about a tenth of it where nothing else runs

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


def deeper(source: Any) -> Any:
    """The same source, whose small checkpoints have `DEPTH` layers."""
    if hasattr(source, "depth"):  # it shrinks configs itself
        return replace(source, depth=DEPTH)
    return replace(source, tiny=deepened(source.tiny)) if hasattr(source, "tiny") else source


def write_deep(source: Any, folder: Path, task: str) -> None:
    """A small checkpoint deep enough that layers are stamped."""
    try:
        deeper(source).write_tiny(folder, like=None, seed=7, task=task)
    except Exception:  # a config that lists something for each of its layers stays at its own depth
        source.write_tiny(folder, like=None, seed=7, task=task)


def run_case(arch: str, task: str) -> dict[str, Any]:
    """Convert one case in this process. Whatever is raised becomes its reason."""
    from converter import convert
    from converter.registry import load_registry
    from converter.request import DEFAULT_OPSET

    architecture = load_registry().find(arch)
    start = time.perf_counter()
    outcome: dict[str, Any] = {"arch": arch, "model_type": architecture.model_types[0], "task": task}
    outcome["opset"] = DEFAULT_OPSET
    try:
        with tempfile.TemporaryDirectory(prefix="coverage-") as scratch:
            checkpoint = Path(scratch) / "checkpoint"
            write_deep(architecture.source, checkpoint, task)
            report = convert(
                arch=arch, model=checkpoint, output=Path(scratch) / "package", task=task, parity="full"
            )
        # Tokens of a generation are compared as such: they are counted, and all of them agree.
        compared = [row for row in report.parity.comparisons if row.output != "tokens"]
        difference = max(row.max_abs for row in compared)
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
        from converter.request import DEFAULT_OPSET

        reason = "took too long" if status is None else f"the process ended with {status}"
        return {
            **case,
            "model_type": case["arch"],
            "opset": DEFAULT_OPSET,
            "result": "fail",
            "reason": reason,
            "seconds": TIME_LIMIT,
        }

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def cases(only: Sequence[str], tasks: Sequence[str]) -> list[dict[str, str]]:
    """Every type and task, the first task of each type before the second of any; what has a plugin before the rest."""
    from converter.registry import load_registry

    registry = load_registry()
    found = [entry for entry in registry.architectures.values() if entry.stand_in is None]
    owned = {kind for entry in found for kind in entry.model_types}
    for entry in registry.architectures.values():
        kinds = sorted(set(entry.stand_in.model_types()) - owned) if entry.stand_in else []
        made = (registry.stand_in(kind, None) for kind in kinds)
        found += [architecture for architecture in made if architecture is not None]
    rounds = itertools.zip_longest(*([(entry, task) for task in entry.tasks] for entry in found))
    return [
        {"arch": entry.name, "task": task}
        for entry, task in (pair for one in rounds for pair in one if pair is not None)
        if (not only or entry.name in only or entry.model_types[0] in only) and (not tasks or task in tasks)
    ]


def results(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The last result of each case. One of the opset that is the default now outdates any other."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = sorted(map(json.loads, lines), key=current)
    return {(row["arch"], row["task"]): row for row in rows}


def current(row: Mapping[str, Any]) -> bool:
    """Whether a result is of the opset that is the default now."""
    from converter.request import DEFAULT_OPSET

    return bool(row.get("opset") == DEFAULT_OPSET)


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


def passes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table of what passed."""
    return [
        "| model type | task | result | max difference | seconds |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row['model_type']} | {row['task']} | pass | {row['difference']:.1e} | {row['seconds']} |"
            for row in rows
        ),
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """docs/architectures.md."""
    from converter.request import DEFAULT_OPSET

    ordered = sorted(rows, key=lambda row: (row["model_type"], row["task"]))
    passed = [row for row in ordered if row["result"] == "pass" and current(row)]
    failed = [row for row in ordered if row["result"] != "pass" and current(row)]
    older = [row for row in ordered if row["result"] == "pass" and not current(row)]
    types = {row["model_type"] for row in passed}
    lines = [
        "# Architectures",
        "",
        f"Written by `scripts/coverage.py`: {len(types)} model types, {len(passed)} pairs of model type and task"
        f" pass, at opset {DEFAULT_OPSET}.",
        "Each is a small checkpoint of odd sizes and random weights, converted, and its graphs compared with the",
        "untouched original at sizes that tracing never saw: batch 1, every other axis at its least, padding on both",
        "sides. The difference is the largest of any unmasked output element at any of these sizes. Seconds are of a",
        "machine of two cores that others used too.",
        "",
        *passes(passed),
    ]
    if older:
        lines += [
            "",
            "## Not run again yet",
            "",
            f"These passed before opset {DEFAULT_OPSET} was the default.",
            "",
        ]
        lines += passes(older)
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
    parser.add_argument("--tasks", nargs="*", default=[], metavar="NAME", help="tasks; all without it")
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
    wanted = [] if arguments.no_run else cases(arguments.only, arguments.tasks)
    known = {key for key, row in results(arguments.results).items() if current(row)}
    pending = [case for case in wanted if arguments.again or (case["arch"], case["task"]) not in known]
    arguments.results.parent.mkdir(exist_ok=True)
    with arguments.results.open("a") as file:
        run_all(pending, arguments.workers, file)
    rows = sorted(results(arguments.results).values(), key=lambda row: (row["model_type"], row["task"]))
    arguments.results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments.table.write_text(table(rows))
    return int(any(row["result"] != "pass" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
