"""docs/plugins.md, followed to the letter: its files are a package's files, and its commands are typed as they stand.

`pytest -s tests/packages/test_tutorial.py` says how long `converter new` to a verified package took.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save_file

if TYPE_CHECKING:
    from tests.packages.conftest import Newcomer

HERE = Path(__file__).parent
PROJECT = HERE / "converter-tiny-mlp"
TUTORIAL = HERE.parents[1] / "docs" / "plugins.md"
BLOCK = re.compile(r"^`([\w./-]+)`\n\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)

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


def test_every_command_of_the_page_works_in_an_empty_folder(newcomer: Newcomer) -> None:
    """With a checkpoint of the newcomer's own, and later a wrapper with a mistake."""
    newcomer.type("converter new my_arch")
    assert (newcomer.folder / "converter-my-arch" / "pyproject.toml").is_file()
    assert "converter-tiny-mlp 0.1.0" in newcomer.type("converter plugins")
    session = onnxruntime.InferenceSession(newcomer.folder / "tiny-mlp-onnx" / "onnx" / "model.onnx")
    feed = {"features": np.zeros((4, 5), np.float32), "item_ids": np.arange(28).reshape(4, 7)}
    assert session.run(["scores"], feed)[0].shape == (4, 7)

    write_checkpoint(newcomer.folder / "checkpoint")
    said = newcomer.type("converter --model FOLDER --output DIR", FOLDER="checkpoint", DIR="package")
    assert "tiny_mlp, item-scoring, scores" in said, "found by its model type"

    command = "pytest --converter-arch tiny_mlp"
    said = newcomer.type(documented(command), cwd="converter-tiny-mlp")
    assert "tests/test_conversion.py ." in said, "the package's own test ran too"
    (newcomer.folder / "empty").mkdir()  # these cases alone: a folder with tests would run them too
    real = {"FOLDER": "../checkpoint", "cwd": "empty"}
    said = newcomer.type(documented(f"{command} --converter-model FOLDER"), **real)
    assert re.search(r"= \d+ passed", said)
    said = newcomer.type(documented(f"{command} --converter-precisions fp32,q8 -n 2"), cwd="empty")
    assert re.search(r"= \d+ passed", said)

    said = newcomer.type("converter verify DIR --model FOLDER", DIR="package", FOLDER="checkpoint")
    assert "parity passed" in said

    with mistaken(newcomer):
        command = "converter --model FOLDER --output DIR --keep-failed"
        assert "smallest failing size" in newcomer.type(command, exits=3, FOLDER="checkpoint", DIR="wrong")
        command = "converter bisect DIR.failed --model FOLDER"
        said = newcomer.type(command, exits=3, **{"DIR.failed": "wrong.failed", "FOLDER": "checkpoint"})
        assert "model departs from the original at batch_size=1,num_items=1" in said
    said = newcomer.type("converter quantize PACKAGE --precisions q8", PACKAGE="package")
    assert "judged on made-up inputs" in said, "those that the plugin declares"
    said = newcomer.type("converter bisect PACKAGE --precision q8", PACKAGE="package")
    assert ranked(said) == ranked(TUTORIAL.read_text()), "the modules that the page shows"

    assert {command.partition(" #")[0].strip() for command in newcomer.typed} == set(commands())


def ranked(text: str) -> set[str]:
    """The modules in a table of `bisect --precision`: which of them adds most differs from machine to machine."""
    found = set(re.findall(r"^model +(model\S*) +\d\.\d\de", text, re.MULTILINE))
    assert found
    return found


def commands() -> Iterator[str]:
    """Every command in a shell block of the page, without its comment."""
    for block in CONSOLE.findall(TUTORIAL.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                yield line.removeprefix("$ ").partition(" #")[0].strip()


def documented(command: str) -> str:
    assert command in commands(), command
    return command


def write_checkpoint(folder: Path) -> None:
    """What the newcomer has already: trained weights, with the prefix that the training code left."""
    draw, width, sizes = (
        np.random.default_rng(3),
        12,
        {"features": 5, "catalogue": 31, "hidden": 12, "layers": 2},
    )
    shapes = {"enter.weight": (width, 5), "items.weight": (31, width)}
    shapes |= {f"layers.{number}.weight": (width, width) for number in (0, 1)}
    shapes |= {f"{name}.bias": (width,) for name in ("enter", "layers.0", "layers.1")}
    tensors = {f"net.{name}": draw.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny_mlp", **sizes}))
    save_file(tensors, folder / "model.safetensors")


@contextmanager
def mistaken(newcomer: Newcomer) -> Iterator[None]:
    """The installed wrapper gives scores a little too large."""
    (wrapper,) = newcomer.environment.folder.rglob("converter_tiny_mlp/wrapper.py")
    right = wrapper.read_text()
    try:
        wrapper.write_text(right.replace("return scores", "return scores * 1.01"))
        yield
    finally:
        wrapper.write_text(right)
