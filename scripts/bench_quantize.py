"""Memory of quantizing a model of 2.6 billion parameters, summed over the process tree. Linux only.

    python scripts/bench_quantize.py FOLDER [--precision q8]

The model has matrices and a tied table as ColQwen2 has (28 decoder layers, 32 vision blocks) one after the other, and
10.4 GB of zeros for weights, in a sparse file that takes no room. Nothing is judged: running such a model takes its
size.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
from measure import measure
from onnx import TensorProto, helper

from converter.package import write_record

VOCABULARY, WIDTH, INNER, KEYS = 151936, 1536, 8960, 256
VISION = 1280


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="is made, and removed in the end")
    parser.add_argument("--precision", default="q8")
    given = parser.parse_args()
    (given.folder / "onnx").mkdir(parents=True)
    try:
        parameters = write_model(given.folder / "onnx")
        ends = {
            "inputs": [{"name": "ids", "dtype": "INT64", "shape": ["rows"]}],
            "outputs": [{"name": "logits", "dtype": "FLOAT", "shape": ["rows", VOCABULARY]}],
        }
        graph = {"file": "onnx/model.onnx", **ends, "opset": 21, "ir_version": 10, "nodes": 0}
        record = {
            **{"architecture": "", "task": "", "source": {"name": "zeros", "revision": None}, "versions": {}},
            **{"settings": {"dtype": "fp32"}, "notes": []},
            "variants": {"text": {"summary": "zeros", "graphs": {"model": graph}}},
        }
        write_record(given.folder, record)
        command = [sys.executable, "-m", "converter", "quantize", str(given.folder)]
        found = measure([*command, "--precisions", given.precision, "--unjudged", "--quiet"])
        files = (given.folder / "onnx").iterdir()
        made = sorted(path for path in files if path.name.partition(".")[0] != "model")
        print(found.output, end="")
        print(
            f"{parameters / 1e9:.2f}B parameters to {given.precision}: {found.wall:.0f} s, exit {found.code}"
        )
        print(f"peak {found.resident / 2**30:.2f} GiB resident, {found.anonymous / 2**30:.2f} GiB anonymous")
        for path in made:
            print(f"  {path.name}: {path.stat().st_size / 1e9:.2f} GB")
    finally:
        shutil.rmtree(given.folder)


def matrices() -> Iterator[tuple[str, int, int]]:
    """Names and sizes of the matrices, such that each takes what the one before gives."""
    for layer in range(28):
        for name, depth, width in (
            ("query", WIDTH, WIDTH),
            ("key", WIDTH, KEYS),
            ("value", KEYS, WIDTH),
            ("gate", WIDTH, INNER),
            ("down", INNER, WIDTH),
            ("up", WIDTH, INNER),
            ("out", INNER, WIDTH),
        ):
            yield f"layers.{layer}.{name}", depth, width
    yield "merger", WIDTH, VISION
    for layer in range(32):
        yield f"blocks.{layer}.qkv", VISION, 3 * VISION
        yield f"blocks.{layer}.proj", 3 * VISION, VISION
        yield f"blocks.{layer}.up", VISION, 4 * VISION
        yield f"blocks.{layer}.down", 4 * VISION, VISION
    yield "last", VISION, WIDTH


def write_model(folder: Path) -> int:
    """`model.onnx` and its sparse data file. Returns the number of parameters."""
    weights, nodes, value = [], [helper.make_node("Gather", ["table", "ids"], ["v0"])], "v0"
    offset = 0

    def weight(name: str, rows: int, columns: int) -> None:
        nonlocal offset
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[rows, columns])
        tensor.data_location = TensorProto.EXTERNAL
        for key, entry in (
            ("location", "model.onnx_data"),
            ("offset", offset),
            ("length", 4 * rows * columns),
        ):
            tensor.external_data.add(key=key, value=str(entry))
        weights.append(tensor)
        offset += 4 * rows * columns

    weight("table", VOCABULARY, WIDTH)
    for number, (name, depth, width) in enumerate(matrices(), 1):
        weight(name, depth, width)
        nodes.append(helper.make_node("MatMul", [value, name], [f"v{number}"]))
        value = f"v{number}"
    nodes.append(helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]))
    nodes.append(helper.make_node("MatMul", [value, "turned"], ["logits"]))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", VOCABULARY])
    graph = helper.make_graph(nodes, "g", [ids], [logits], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10),
        str(folder / "model.onnx"),
    )
    with (folder / "model.onnx_data").open("wb") as file:
        file.truncate(offset)
    return offset // 4


if __name__ == "__main__":
    main()
