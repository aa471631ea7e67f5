"""What the cards of packages tell people to type runs as it stands: Python here, JavaScript in Node."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NODE = Path(__file__).parents[2] / "scripts" / "clients" / "node"
TASKS = {
    "feature-extraction": "dims: [ 2, 384 ]",
    "text-classification": "label: ",
    "text-generation": "generated_text: 'Once upon a time",
    "translation": "generated_text: ",
    "automatic-speech-recognition": "text: ",
    "image-classification": "label: ",
}
pytestmark = pytest.mark.xdist_group("clients")


def snippets(package: Path, language: str) -> list[str]:
    text = (package / "README.md").read_text(encoding="utf-8")
    return [part.partition("```")[0] for part in text.split(f"```{language}\n")[1:]]


@pytest.fixture
def folder(client_work: Any, tmp_path: Path) -> Callable[[str], Path]:
    """A package's folder with the photo that snippets open beside its files."""

    def make(task: str) -> Path:
        copy = tmp_path / task
        shutil.copytree(client_work.packages / task, copy, copy_function=os.link)
        pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(copy / "photo.jpg")
        return copy

    return make


@pytest.mark.parametrize("task", TASKS)
def test_python_of_a_card_runs(
    folder: Callable[[str], Path], run_snippets: Callable[[Path], list[dict[str, Any]]], task: str
) -> None:
    package = folder(task)
    assert len(run_snippets(package)) == len(snippets(package, "python"))


@pytest.mark.parametrize("task", TASKS)
def test_javascript_of_a_card_runs_in_node(folder: Callable[[str], Path], task: str) -> None:
    if shutil.which("node") is None or not (NODE / "node_modules").is_dir():
        if os.environ.get("CONVERTER_REQUIRE_NODE"):
            pytest.fail("node or its packages are absent: install Node 20 and run `make node-clients`")
        pytest.skip("needs Node 20 and `make node-clients`")
    package = folder(task)
    (code,) = snippets(package, "js")
    (package / "snippet.mjs").write_text(code, encoding="utf-8")
    (package / "node_modules").symlink_to(NODE / "node_modules")
    done = subprocess.run(["node", "snippet.mjs"], cwd=package, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert TASKS[task] in done.stdout
