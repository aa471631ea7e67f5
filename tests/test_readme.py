"""What the README says to type works, in the order it says it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.xdist_group("readme")
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`models/tiny` is what the console block above it makes; here it is the first block's own output."""
    monkeypatch.chdir(tmp_path)
    convert_block, run_block = blocks("python")
    exec(compile(convert_block, "README.md", "exec"), {})
    shutil.copytree("models/tiny-from-python", "models/tiny")
    names: dict[str, Any] = {}
    exec(compile(run_block, "README.md", "exec"), names)
    assert names["scores"].shape == (1, 2)


def test_every_command_of_the_readme_exists() -> None:
    from converter.cli.main import cli

    options = {name for parameter in cli.params for name in parameter.opts}
    for line in "".join(blocks("console")).splitlines():
        words = line.removeprefix("$ python -m converter ").split("#")[0].split()
        assert all(word in options for word in words if word.startswith("--")), line
        assert words[0].startswith("--") or words[0] in cli.commands, line  # type: ignore[attr-defined]


def test_every_command_and_option_is_in_the_help_and_the_readme_names_every_command() -> None:
    from converter.cli.main import cli

    text = README.read_text()
    missing = [name for name in cli.commands if f"`{name}`" not in text]  # type: ignore[attr-defined]
    assert not missing
