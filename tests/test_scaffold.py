"""`converter new`: the package it writes is the tutorial's, under the name asked for."""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.cli.main import run

PACKAGES = Path(__file__).parent / "packages"


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not {"build", "__pycache__"} & set(path.parts)
    }


def test_the_tutorials_package_is_what_new_writes(tmp_path: Path) -> None:
    assert run(["new", "tiny_mlp", "--output", str(tmp_path / "package"), "--quiet"]) == 0
    assert contents(tmp_path / "package") == contents(PACKAGES / "converter-tiny-mlp")


def test_every_file_carries_the_new_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["new", "my-arch", "--quiet"]) == 0
    files = contents(tmp_path / "converter-my-arch")
    assert not [name for name, text in files.items() if "tiny_mlp" in text + name or "${" in text]
    project = tomllib.loads(files["pyproject.toml"])
    assert project["project"]["entry-points"]["converter"] == {"my_arch": "converter_my_arch.plugin"}
    assert project["project"]["name"] == "converter-my-arch"
    for name, text in files.items():
        if name.endswith(".py"):
            ast.parse(text, name)
    assert {"converter_my_arch/plugin.py", "tests/test_conversion.py", "README.md"} <= set(files)


def test_new_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new", "my_arch", "--output", str(tmp_path / "a")]) == 0
    assert f"pip install --editable {tmp_path / 'a'}" in capsys.readouterr().out
    assert run(["new", "my_arch", "--output", str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": str(tmp_path / "b"), "architecture": "my_arch"}


@pytest.mark.parametrize("name", ["My-Arch", "2fast", "class", "a b", "a__b", "_a", "../up", "", "naïve"])
def test_a_name_that_no_module_can_have_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["new", name]) == 2
    assert "small letters" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["bert", "text-encoder", "roberta"])
def test_a_name_that_a_plugin_has_already_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The package could not be loaded beside it."""
    monkeypatch.chdir(tmp_path)
    assert run(["new", name]) == 2
    assert "is taken: plugin 'text_encoder' (converter " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ones_own_package_may_be_written_anew(install: Callable[..., None], tmp_path: Path) -> None:
    install("mine", distribution="converter-mine")
    assert run(["new", "mine", "--output", str(tmp_path / "again"), "--quiet"]) == 0


@pytest.mark.parametrize("name", ["a" * 300, "my_arch"], ids=["too long", "inside a file"])
def test_a_folder_that_cannot_be_made_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    output = [] if len(name) > 100 else ["--output", "file/inside"]
    assert run(["new", name, *output]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_an_existing_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    assert run(["new", "my_arch", "--output", str(target)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert not list(target.iterdir())
