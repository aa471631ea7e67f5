"""What a line of code may touch, held by reading the source; and what the shell imports before it answers."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import converter
from converter.checkpoints.quantized import LAYERED
from converter.registry import load_registry

ENGINE = Path(converter.__path__[0])
ROOT = ENGINE.parent
ENGINE_FILES = sorted(ENGINE.rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").glob("*.py"))
WRAPPERS = sorted((ROOT / "wrappers").glob("*.py"))
HEAVY = {"torch", "transformers", "onnxruntime", "onnxscript", "onnx", "onnx_ir", "numpy", "accelerate"}
TALKERS = {"cli/main.py", "cli/display.py", "console.py"}
LONGEST_FILE = 300

needs_sources = pytest.mark.skipif(
    not PLUGINS, reason="an installed package: plugins and wrappers lie elsewhere"
)


def names(files: list[Path]) -> list[str]:
    return [str(file.relative_to(ROOT)) for file in files]


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_on_load(path: Path) -> set[str]:
    """What importing the file imports: all but function bodies and blocks for type checkers."""

    class Pruned(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if "TYPE_CHECKING" in ast.dump(node.test) else self.generic_visit(node)

    return set(imported(Pruned().visit(ast.parse(path.read_text()))))


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("path", ENGINE_FILES, ids=names(ENGINE_FILES))
def test_the_engine_knows_no_architecture_by_name(path: Path) -> None:
    registry = load_registry({"CONVERTER_PLUGINS": ""})
    known = {kind for entry in registry.architectures.values() for kind in (entry.name, *entry.model_types)}
    constants = (
        node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)
    )
    strings = {value.lower() for value in constants if isinstance(value, str)}
    assert not (known - {*LAYERED}) & strings  # ways to quantize, called like the models that have them
    assert not [text for text in strings for name in ("colqwen", "colpali", "minilm") if name in text]


@needs_sources
@pytest.mark.parametrize("path", PLUGINS, ids=names(PLUGINS))
def test_importing_a_plugin_imports_nothing_heavy_and_no_wrapper(path: Path) -> None:
    modules = imported_on_load(path)
    assert not packages(modules) & HEAVY
    assert not [module for module in modules if module.startswith("converter.wrappers")]


@needs_sources
@pytest.mark.parametrize("path", PLUGINS, ids=names(PLUGINS))
def test_a_plugin_neither_runs_graphs_nor_opens_files(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not packages(set(imported(tree))) & {"onnxruntime", "onnx"}
    assert "open" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@needs_sources
@pytest.mark.parametrize("path", WRAPPERS, ids=names(WRAPPERS))
def test_a_wrapper_is_torch_and_nothing_of_ours_but_its_room(path: Path) -> None:
    modules = set(imported(ast.parse(path.read_text())))
    assert not packages(modules) & {"onnx", "onnx_ir", "onnxruntime", "onnxscript"}
    ours = {module for module in modules if module.partition(".")[0] == "converter"}
    assert not {module for module in ours if not module.startswith("converter.wrappers")}


@pytest.mark.parametrize("name", ["hookspecs.py", "records.py", "errors.py", "request.py", "registry.py"])
def test_what_everything_rests_on_rests_on_the_standard_library_and_pluggy(name: str) -> None:
    allowed = {*sys.stdlib_module_names, "pluggy", "converter"}
    assert packages(imported_on_load(ENGINE / name)) <= allowed


@pytest.mark.parametrize("path", ENGINE_FILES, ids=names(ENGINE_FILES))
def test_only_the_command_line_prints(path: Path) -> None:
    if str(path.relative_to(ENGINE)) in TALKERS:
        return
    tree = ast.parse(path.read_text())
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"print", "exit"}
    assert not {module for module in imported(tree) if module.partition(".")[0] == "rich"}


@pytest.mark.parametrize("path", ENGINE_FILES, ids=names(ENGINE_FILES))
def test_the_engine_needs_no_command_line(path: Path) -> None:
    if "cli" in path.relative_to(ENGINE).parts or path.name == "__main__.py":
        return
    modules = set(imported(ast.parse(path.read_text())))
    assert "click" not in packages(modules)
    assert not {module for module in modules if module.startswith("converter.cli.main")}


@pytest.mark.parametrize(
    "path", [*ENGINE_FILES, *PLUGINS, *WRAPPERS], ids=names([*ENGINE_FILES, *PLUGINS, *WRAPPERS])
)
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["--version"], ["list"], ["list", "--json"], ["plugins"], ["convert-me"]],
    ids=" ".join,
)
def test_what_must_answer_at_once_imports_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import json, sys\n"
        "from converter.cli.main import run\n"
        f"run({argv!r})\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(result.stderr.splitlines()[-1]))
    assert not loaded & HEAVY
    assert not loaded & {"huggingface_hub", "safetensors"}


def test_the_public_names_load_without_torch() -> None:
    code = (
        "import sys, converter\n"
        "[getattr(converter, name) for name in converter.__all__]\n"
        "assert not {'torch', 'transformers', 'onnxruntime'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
