"""Bulk work on a local Ray cluster: a whole run, one that is killed in the middle, and the same started again.

    python scripts/check_bulk.py PACKAGE [--write]

Compares the results with each other and with an encoder in this process, and counts what was computed again. `--write`
puts the table into docs/runtime.md. The exit code is 1 where a row is lost, doubled or different, or where nothing was
saved by going on.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from converter.bench.load import make_texts
from converter.runtime import Encoder

ROOT = Path(__file__).resolve().parents[1]
PAGE, MARK = ROOT / "docs" / "runtime.md", "<!-- written by `make check-bulk` -->"
FILES, ROWS = 8, 128  # of each file
SHARE = 0.3  # of the rows, after which the run is killed


def write_texts(folder: Path) -> list[str]:
    texts = make_texts(FILES * ROWS, 4, 60)
    folder.mkdir()
    for number in range(FILES):
        ids = range(number * ROWS, (number + 1) * ROWS)
        table = pa.table({"id": list(ids), "text": [texts[index] for index in ids]})
        pq.write_table(table, folder / f"{number:02}.parquet")
    return texts


def start(package: Path, work: Path, name: str) -> subprocess.Popen[bytes]:
    script = [sys.executable, str(ROOT / "scripts" / "bulk.py"), str(package), str(work / "texts")]
    folders = [str(work / name), "--checkpoint", str(work / f"{name}-checkpoint")]
    with (work / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [*script, *folders, "--batch-size", "32", "--block-mb", "0.1"], stdout=log, stderr=log
        )


def done(work: Path, name: str) -> set[int]:
    """The ids that Ray has noted as written."""
    files = [path for path in (work / f"{name}-checkpoint").glob("*.parquet") if ".pending" not in path.name]
    return {number for path in files for number in pq.read_table(path)["id"].to_pylist()}


def finish(process: subprocess.Popen[bytes], work: Path, name: str) -> None:
    if process.wait():
        raise SystemExit((work / f"{name}.log").read_text(encoding="utf-8")[-3000:])


def kill_in_the_middle(process: subprocess.Popen[bytes], work: Path, name: str) -> set[int]:
    """The ids that were done when it was gone. Raises SystemExit where it ended before."""
    while process.poll() is None:
        if len(done(work, name)) >= SHARE * FILES * ROWS:
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(5)  # its workers notice
            return done(work, name)
        time.sleep(0.2)
    raise SystemExit(f"the run ended before it was killed: {(work / f'{name}.log').read_text()[-3000:]}")


def read_vectors(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ids in order, and their vectors."""
    tables = [pq.read_table(path) for path in folder.glob("*.parquet")]
    ids = np.concatenate([table["id"].to_numpy() for table in tables])
    vectors = np.concatenate([np.stack(table["vector"].to_pylist()) for table in tables])
    order = np.argsort(ids, kind="stable")
    return ids[order], vectors[order].astype(np.float32)


def rewritten(work: Path, name: str, before: set[Path]) -> int:
    """Rows in files that were not there before."""
    return sum(pq.read_metadata(path).num_rows for path in set((work / name).glob("*.parquet")) - before)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    package = given.package.resolve()
    with tempfile.TemporaryDirectory(prefix="bulk-") as scratch:
        work = Path(scratch)
        texts = write_texts(work / "texts")
        begun = time.perf_counter()
        finish(start(package, work, "whole"), work, "whole")
        whole_seconds = time.perf_counter() - begun
        kept = kill_in_the_middle(start(package, work, "broken"), work, "broken")
        files = set((work / "broken").glob("*.parquet"))
        begun = time.perf_counter()
        finish(start(package, work, "broken"), work, "broken")
        again_seconds = time.perf_counter() - begun
        computed = rewritten(work, "broken", files)
        ids, vectors = read_vectors(work / "whole")
        ids_again, vectors_again = read_vectors(work / "broken")
        begun = time.perf_counter()
        finish(start(package, work, "broken"), work, "broken")
        nothing_seconds = time.perf_counter() - begun
        alone = Encoder(package, threads=1).encode(texts)
    total = FILES * ROWS
    complete = list(ids) == list(ids_again) == list(range(total))
    apart = float(abs(vectors - vectors_again).max()) if complete else float("inf")
    from_alone = float(abs(vectors - alone).max()) if complete else float("inf")
    lines = [
        f"{total} texts of 4 to 60 words in {FILES} parquet files, two workers of one thread each on a local cluster,"
        f" Ray {version()}:",
        "",
        "| run | rows computed | seconds |",
        "| --- | --- | --- |",
        f"| whole | {total} | {whole_seconds:.1f} |",
        f"| killed (SIGKILL) with {len(kept)} rows written, started again | {computed} | {again_seconds:.1f} |",
        f"| started once more | 0 | {nothing_seconds:.1f} |",
        "",
        f"Each id is there once. The two results differ by {apart:.1e} at most, and from an encoder in one process by"
        f" {from_alone:.1e}: batches are cut at other rows, so other texts are padded together.",
        "Seconds are of the whole process; Ray's start is most of them, as the last row shows.",
    ]
    print("\n".join(lines))
    if given.write:
        head, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
        PAGE.write_text(f"{head}{MARK}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return 0 if complete and max(apart, from_alone) < 1e-5 and computed == total - len(kept) else 1


def version() -> str:
    from importlib.metadata import version

    return version("ray")


if __name__ == "__main__":
    sys.exit(main())
