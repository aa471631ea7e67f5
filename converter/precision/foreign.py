"""Any .onnx file as a package: links to it and to the files beside it, and a record made for it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from converter.errors import PackageError
from converter.packages.graph_info import read_graph
from converter.packages.package import write_record
from converter.packages.record import versions
from converter.precision.sessions import ONNX
from converter.precision.workbench import link

# The first opset with DynamicQuantizeLinear.
OLDEST = 11
# Of what lies beside a file, what is needed to run it; a folder of downloads holds much else.
_WANTED = re.compile(
    r"(tokenizer|special_tokens|added_tokens|vocab|merges|config|generation_config|preprocessor|processor|sentence_bert"
    r"|modules)[\w.-]*\.(json|txt|model)|\d+_Pooling/config\.json"
)


@contextmanager
def as_package(path: Path) -> Iterator[Path]:
    """A temporary package around one file: the graph, its data files, tokenizer and configs from beside or above it.

    Raises PackageError for a file that is damaged or keeps its weights elsewhere.
    """
    info = read_graph(path.parent, path.name)
    if info.opset < OLDEST:
        raise PackageError(
            f"{path} has opset {info.opset}, which has no operators for integers",
            remedy=f"bring it to {OLDEST} or more with onnx.version_converter.convert_version",
        )
    if path.name.partition(".")[0] != path.stem:
        raise PackageError(
            f"{path} has a dot in its name", remedy=f"call it {path.name.partition('.')[0]}.onnx"
        )
    beside = path.parent.parent if path.parent.name == ONNX else path.parent
    with tempfile.TemporaryDirectory(prefix=".quantize-") as scratch:
        folder = Path(scratch) / "package"
        (folder / ONNX).mkdir(parents=True)
        for name in _companions(beside):
            link((beside / name).resolve(), folder / name)
        link(path.resolve(), folder / ONNX / path.name)
        for name in info.data_files:
            link((path.parent / name).resolve(), folder / ONNX / name)
        graph = {
            "file": f"{ONNX}/{path.name}",
            "inputs": [{"name": v.name, "dtype": v.dtype, "shape": list(v.shape)} for v in info.inputs],
            "outputs": [{"name": v.name, "dtype": v.dtype, "shape": list(v.shape)} for v in info.outputs],
            "opset": info.opset,
            "ir_version": info.ir_version,
            "nodes": info.nodes,
        }
        record = {
            "architecture": "",
            "task": "",
            "source": {"name": path.name, "revision": None},
            "versions": versions(),
            "settings": {"dtype": "fp32"},
            "variants": {"graph": {"summary": "an ONNX file that was given", "graphs": {path.stem: graph}}},
            "notes": ["made from an ONNX file: parity with its original model was not looked at"],
        }
        write_record(folder, record)
        yield folder


def _companions(folder: Path) -> list[str]:
    names = (
        path.relative_to(folder).as_posix() for path in (*folder.glob("*"), *folder.glob("*_Pooling/*.json"))
    )
    return sorted(name for name in names if _WANTED.fullmatch(name) and (folder / name).is_file())
