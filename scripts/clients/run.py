"""Open packages with the clients people use, and compare their numbers with torch's.

    python scripts/clients/run.py [--clients NAMES] [--precisions NAMES] [--packages NAMES] [--work FOLDER] [--write]

What the clients need is installed by `make clients`; docs/clients.md is written from what comes out. The exit
code is 1 if a client cannot open a package or computes something else.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from checkpoints import CHECKPOINTS, TASKS
from prepare import PRECISIONS, Case, Row, Work, compare, prepare

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = tuple(CHECKPOINTS)
PAGE = ROOT / "docs" / "clients.md"
MARK = "<!-- written by `make clients` -->"


@dataclass(frozen=True)
class Client:
    """A runner: a command that is given a job file and prints a JSON object with `version` and `results`."""

    command: Sequence[str]
    packages: Sequence[str] = PACKAGES
    precisions: Sequence[str] = PRECISIONS
    compares: str = "values"  # what it gives: the pipeline's result, or the graph's `output`

    def takes(self, case: Case) -> bool:
        return case.package in self.packages and case.precision in self.precisions


def node(script: str) -> tuple[str, ...]:
    return ("node", str(HERE / "node" / script))


def python(environment: str, script: str) -> tuple[str, ...]:
    """A script under the Python of a client's own environment, which `make clients` installs."""
    return (str(ROOT / ".clients" / environment / "bin" / "python"), str(HERE / "python" / script))


EMBEDS = ("feature-extraction",)
CLIENTS: Mapping[str, Client] = {
    "transformers.js": Client(node("transformersjs.mjs")),
    "onnxruntime-node": Client(node("onnxruntime.mjs"), compares="output"),
    "optimum": Client(python("optimum", "use_optimum.py")),
    "sentence-transformers": Client(
        python("sentence-transformers", "use_sentence_transformers.py"), packages=EMBEDS
    ),
    "browser": Client((sys.executable, str(HERE / "python" / "use_browser.py"))),
    "browser-webgpu": Client(
        (sys.executable, str(HERE / "python" / "use_browser.py"), "webgpu"), precisions=("fp32", "q8", "q4")
    ),
    "fastembed": Client(python("fastembed", "use_fastembed.py"), packages=EMBEDS),
}


def run_client(name: str, work: Work) -> list[Row]:
    """All the cases that a client takes, in one process of its own."""
    client = CLIENTS[name]
    cases = [case for case in work.cases if client.takes(case)]
    job = work.write_job(work.packages / f"{name}.json", cases)
    done = subprocess.run(
        [*client.command[:2], str(job), *client.command[2:]], capture_output=True, text=True, cwd=HERE
    )
    if done.returncode:
        return [compare(name, "", case, {"error": done.stderr[-2000:]}, client.compares) for case in cases]
    answer = json.loads(done.stdout.splitlines()[-1])
    results = zip(cases, answer["results"], strict=True)
    return [compare(name, answer["version"], case, result, client.compares) for case, result in results]


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| client | version | task | precision | largest difference | cosine | same text | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        text = {None: "", True: "yes", False: "no"}[row.text]
        numbers = f"{row.max_abs:.1e} | {row.cosine:.5f}" if not row.error else " | "
        verdict = (
            "ok" if row.passed else f"fails: {row.error.splitlines()[0][:120] if row.error else 'differs'}"
        )
        task = TASKS[row.package]
        task = task if task == row.package else f"{task} ({row.package})"
        lines.append(
            f"| {row.client} | {row.version} | {task} | {row.precision} | {numbers} | {text} | {verdict} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clients", default=",".join(CLIENTS), help="empty: only make the packages")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--packages", default=",".join(PACKAGES))
    parser.add_argument(
        "--work", type=Path, help="keep packages and results here, and go on with what is there"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/clients.md")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clients-")))
        rows = run_all(folder.resolve(), arguments)
    print(table(rows))
    for row in rows:
        if row.error:
            print(f"\n{row.client} {row.package} {row.precision}:\n{row.error}", file=sys.stderr)
    if arguments.write:
        head, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
        PAGE.write_text(f"{head}{MARK}\n\n{table(rows)}\n", encoding="utf-8")
    return 0 if all(row.passed for row in rows) else 1


def run_all(folder: Path, arguments: argparse.Namespace) -> list[Row]:
    """What was asked for, and the results that earlier runs left in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = dict.fromkeys(arguments.packages.split(","), arguments.precisions.split(","))
    work = prepare(folder, wanted, searched=True)
    for name in filter(None, arguments.clients.split(",")):
        found = [dataclasses.asdict(row) for row in run_client(name, work)]
        (folder / f"{name}.result.json").write_text(json.dumps(found))
    files = [folder / f"{name}.result.json" for name in CLIENTS]
    return [Row(**row) for path in files if path.is_file() for row in json.loads(path.read_text())]


if __name__ == "__main__":
    raise SystemExit(main())
