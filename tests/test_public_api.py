"""The surface that plugins rest on, held to the list in public_api.txt.

A line that goes or changes breaks somebody's plugin: then the first number of `API_VERSION` goes up. A line that is
added raises the second. `python tests/test_public_api.py` writes the list anew.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import converter
from converter import hookspecs, registry
from converter.records import Checkpoint, ModelSource
from converter.registration.assembly import KINDS
from converter.testing import plugin

LIST = Path(__file__).with_name("public_api.txt")
# Below `converter`, what docs/plugins.md promises too.
PROMISED = {
    "converter.recipes": ("Load", "Concat", "Slice", "Transpose", "Cast", "RecipeTensor", "read"),
    "converter.checkpoint": ("open_checkpoint", "open_for", "read_header", "read_tensors"),
    "converter.seeding": ("seed_weights",),
    "converter.arrays": ("FLOAT16", "FLOAT32"),
    "converter.errors": ("CheckpointError", "ConfigError", "ExportError", "UsageError"),
    "converter.registry": ("load_registry",),
    "converter.scenario": ("Scenario", "Call", "State"),
    "converter.sentence_modules": ("SentenceModule", "module_tensors", "read_modules"),
}
# Records, and what else a type annotation may name.
NAMED = {"converter.records": {"Checkpoint", "ModelSource"}, "converter.recipes": {"WeightRecipe"}}
ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(ROOT.glob("tests/packages/*/**/*.py"))
DOCS = Path(__file__).parents[1] / "docs" / "plugins.md"


def surface() -> Iterator[str]:
    """One line for each thing a plugin may rest on: a name with its fields or arguments, optional ones with `=`."""
    yield f"API {hookspecs.API_VERSION}"
    for kind in KINDS:
        yield f"hook {kind.hook}{_arguments(getattr(hookspecs, kind.hook))} of {kind.record.__name__}"
    yield f"register{_arguments(hookspecs.Register.__call__)}"
    for name in converter.__all__:
        yield f"converter.{name}{_shape(getattr(converter, name))}"
    yield f"Checkpoint{_shape(Checkpoint)}"
    for name, method in vars(ModelSource).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            yield f"ModelSource.{name}{_arguments(method)}"
    for module, names in PROMISED.items():
        for name in names:
            yield f"{module}.{name}{_shape(getattr(importlib.import_module(module), name))}"
    yield from (f"pytest {option}" for option in (plugin.ARCH, plugin.MODEL, plugin.TASK, plugin.PRECISIONS))
    yield from re.findall(r"CONVERTER_\w+", registry.__doc__ or "")


def _shape(thing: object) -> str:
    if isinstance(thing, type) and dataclasses.is_dataclass(thing):
        parts = [
            field.name + ("" if _required(field) else "=")
            for field in dataclasses.fields(thing)
            if field.init
        ]
        return f"({', '.join(parts)})"
    return _arguments(thing) if inspect.isfunction(thing) else ""


def _required(field: dataclasses.Field[object]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _arguments(function: object) -> str:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    optional = inspect.Parameter.empty
    names = [
        entry.name + ("" if entry.default is optional else "=")
        for entry in parameters
        if entry.name != "self"
    ]
    return f"({', '.join(names)})"


def test_what_plugins_rest_on_is_what_the_list_says() -> None:
    assert list(surface()) == LIST.read_text().splitlines(), "see the first lines of this file"


def test_every_hook_and_every_public_name_is_documented() -> None:
    text = DOCS.read_text()
    promised = {name for names in PROMISED.values() for name in names}
    names = {
        *promised,
        *converter.__all__,
        *(kind.hook for kind in KINDS),
        *(kind.record.__name__ for kind in KINDS),
    }
    assert not {name for name in names if f"`{name}`" not in text}
    assert f'converter_api = "{hookspecs.API_VERSION}"' in text


def test_every_record_a_hook_takes_is_public() -> None:
    assert {kind.record.__name__ for kind in KINDS} <= set(converter.__all__)


def test_the_example_packages_rest_on_nothing_else() -> None:
    """Strangers copy from them. What runs packages, `converter.runtime`, is documented in docs/runtime.md."""
    strange = set()
    for path in EXAMPLES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "converter":
                module = str(node.module)
                known = {*PROMISED.get(module, ()), *NAMED.get(module, ())}
                known |= set(converter.__all__) if module == "converter" else set()
                names = {alias.name for alias in node.names}
                if module != "converter.runtime" and not names <= known:
                    strange.add(f"{path.name}: {module} {', '.join(sorted(names - known))}")
    assert EXAMPLES and not strange


if __name__ == "__main__":
    LIST.write_text("\n".join(surface()) + "\n")
