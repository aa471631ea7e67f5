"""docs/plugins.md, followed to the letter: its files are a package's files, and its commands work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.packages.conftest import Environment

HERE = Path(__file__).parent
PROJECT = HERE / "converter-tiny-mlp"
TUTORIAL = HERE.parents[1] / "docs" / "plugins.md"
BLOCK = re.compile(r"^`([\w./-]+)`\n\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.xdist_group("third-party")


def test_every_block_of_the_tutorial_is_the_packages_own_file() -> None:
    blocks = {name: code for name, _, code in BLOCK.findall(TUTORIAL.read_text())}
    files = {
        path.relative_to(PROJECT).as_posix(): path.read_text()
        for path in PROJECT.rglob("*")
        if path.suffix in (".py", ".toml", ".md") and not {"build", "__pycache__"} & set(path.parts)
    }
    assert blocks.keys() == files.keys()
    for name, code in blocks.items():
        assert code == files[name], f"{TUTORIAL.name} and {name} differ"


def test_a_new_package_passes_its_own_tests_and_parity_at_once(
    environment: Environment, tmp_path: Path
) -> None:
    """From `converter new` to a proven architecture, with nothing changed in between."""
    assert environment.run("converter", "new", "my-arch", cwd=tmp_path).returncode == 0
    environment.install(tmp_path / "converter-my-arch")
    try:
        result = environment.run(
            "pytest", "-q", "-rA", "--converter-arch", "my_arch", cwd=tmp_path / "converter-my-arch"
        )
    finally:
        environment.run("python", *["-m", "pip", "uninstall", "--yes", "converter-my-arch"], cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "PASSED tests/test_conversion.py::test_a_tiny_checkpoint_becomes_a_proven_package" in result.stdout
    assert "PASSED converter::my_arch::scores-model-batch_size=1,num_items=3-fp32" in result.stdout
