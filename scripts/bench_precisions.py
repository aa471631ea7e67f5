"""Every precision of a package against fp32: size, quality on real text, speed as a ratio. Prints a Markdown table.

    python scripts/bench_precisions.py PACKAGE [ANOTHER ...]

fp32 is the first package's; precisions of the others are marked with their folder's name. Sizes and quality are read
from the packages' records, where `converter quantize` put them. Sessions take turns with each other, so that what else
the machine does falls on all of them; only ratios of medians are shown.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

SHAPES = ((1, 16), (32, 128))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    first, *_ = given.packages
    entries, files = {}, {"fp32": first / "onnx/model.onnx"}
    for package in given.packages:
        for name, entry in json.loads((package / "converter.json").read_text())["precisions"].items():
            label = name if package is first else f"{name} ({package.name})"
            entries[label], files[label] = entry, package / entry["files"][0]
    sessions = {name: open_session(file, given.threads) for name, file in files.items()}
    speed = {shape: ratios(sessions, shape, given.rounds) for shape in SHAPES}
    sizes = " | ".join(f"speed {rows}x{length}" for rows, length in SHAPES)
    print(f"| precision | bytes | size | cosine mean | cosine min | top1 | {sizes} | budget |")
    print("| --- " * (7 + len(SHAPES)) + "|")
    for name, entry in entries.items():
        quality = entry["quality"]
        kept = f"{quality['cosine']:.5f} | {quality['cosine_min']:.5f} | {quality['top1']:.1%}"
        times = " | ".join(f"{speed[shape][name]:.2f}" for shape in SHAPES)
        verdict = ("kept" if entry["passed"] else "missed") if entry["budget"] else "none"
        print(f"| {name} | {entry['bytes']} | {entry['ratio']:.3f} | {kept} | {times} | {verdict} |")
    print(f"\n{processor()}, {given.threads} thread(s), onnxruntime {onnxruntime.__version__}")


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def ratios(sessions: Mapping[str, Any], shape: tuple[int, int], rounds: int) -> dict[str, float]:
    """How many times as fast as fp32 each session is on a batch of this shape; the first round warms up."""
    ids = np.random.default_rng(0).integers(1000, 20000, shape)
    feed = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    calls = max(1, 1024 // ids.size)
    spent: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(rounds + 1):
        for name, session in sessions.items():
            wanted = {value.name: feed[value.name] for value in session.get_inputs()}
            start = time.perf_counter()
            for _ in range(calls):
                session.run(None, wanted)
            if turn:
                spent[name].append(time.perf_counter() - start)
    middle = {name: statistics.median(times) for name, times in spent.items()}
    return {name: middle["fp32"] / taken for name, taken in middle.items()}


def processor() -> str:
    """What the machine computes with, and the instructions that integer kernels look for."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    found = [name for name in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8") if name in flags]
    return f"{platform.machine()} ({', '.join(found)})"


if __name__ == "__main__":
    main()
