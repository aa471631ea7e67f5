"""The wheel, installed alone: what it brings, and what works without torch."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converter import __version__

if TYPE_CHECKING:
    from tests.packages.conftest import Environment

pytestmark = pytest.mark.xdist_group("third-party")

ROOT = Path(__file__).parents[2]


def test_the_wheel_puts_only_converter_at_top_level(wheels: Path) -> None:
    (wheel,) = wheels.glob("converter-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"converter", f"converter-{__version__}.dist-info"}


def test_the_wheel_has_every_file_of_the_sources(wheels: Path) -> None:
    """A package that pyproject.toml does not list is missing from the wheel without a word."""
    (wheel,) = wheels.glob("converter-*.whl")
    folders = {"converter": "converter", "plugins": "converter/plugins", "wrappers": "converter/wrappers"}
    wanted = {
        f"{installed}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, installed in folders.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert wanted - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_the_base_installation_has_no_torch(base: Environment, tmp_path: Path) -> None:
    code = "from importlib.metadata import distributions\nprint(*(each.name for each in distributions()))"
    names = set(base.python(code, cwd=tmp_path).split())
    assert "converter" in names
    assert names & {"torch", "transformers", "onnxscript", "accelerate", "pytest"} == set()


def test_the_base_installation_answers_without_torch(base: Environment, tmp_path: Path) -> None:
    shown = base.run("converter", "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "--model" in shown.stdout
    listed = base.run("converter", "list", "--json", cwd=tmp_path)
    assert {"bert", "colqwen2"} <= {entry["name"] for entry in json.loads(listed.stdout)["architectures"]}
    plugins = json.loads(base.run("converter", "plugins", "--json", cwd=tmp_path).stdout)
    assert plugins["failures"] == []
    assert {plugin["distribution"] for plugin in plugins["plugins"]} == {"converter"}


@pytest.mark.parametrize(
    "command", ["--arch bert --tiny", "verify package --model bert", "bisect package --model bert"]
)
def test_the_base_installation_says_what_converting_needs(
    base: Environment, command: str, tmp_path: Path
) -> None:
    result = base.run("converter", *command.split(), cwd=tmp_path)
    assert result.returncode == 2
    assert "pip install 'converter[export]'" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())
