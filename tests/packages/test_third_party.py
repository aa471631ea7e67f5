"""Strangers' packages, installed as wheels into a fresh environment and used only through the installed converter."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

if TYPE_CHECKING:
    from tests.packages.conftest import Environment, Newcomer

HERE = Path(__file__).parent
PROJECTS = sorted(path.parent for path in HERE.glob("converter-*/pyproject.toml"))
OTHERS = [
    project for project in PROJECTS if project.name != "converter-tiny-mlp"
]  # test_tutorial.py has that one

pytestmark = pytest.mark.xdist_group("third-party")


def test_nothing_in_the_environment_leads_to_these_sources(
    newcomer: Newcomer, environment: Environment, tmp_path: Path
) -> None:
    code = (
        "import json, sys, converter, converter.plugins, converter.wrappers, converter_tiny_mlp\n"
        "modules = converter, converter.plugins, converter.wrappers, converter_tiny_mlp\n"
        "print(json.dumps([sys.path, [module.__file__ for module in modules]]))"
    )
    path, files = json.loads(environment.python(code, cwd=tmp_path))
    root = str(HERE.parents[1])
    assert not [entry for entry in path if entry.startswith(root)]
    assert all(Path(file).is_relative_to(environment.folder) for file in files)


def test_every_plugin_is_listed_with_its_distribution(
    newcomer: Newcomer, environment: Environment, tmp_path: Path
) -> None:
    result = environment.run("converter", "plugins", "--json", cwd=tmp_path, CONVERTER_STRICT_PLUGINS="1")
    assert result.returncode == 0, result.stderr
    plugins = json.loads(result.stdout)["plugins"]
    theirs = {plugin["distribution"]: plugin for plugin in plugins if plugin["distribution"] != "converter"}
    assert set(theirs) == {project.name for project in PROJECTS}
    mlp = theirs["converter-tiny-mlp"]
    assert (mlp["name"], mlp["version"], mlp["architectures"]) == ("tiny_mlp", "0.1.0", ["tiny_mlp"])


def test_loading_plugins_imports_no_torch(
    newcomer: Newcomer, environment: Environment, tmp_path: Path
) -> None:
    code = (
        "import sys\nfrom converter.registry import load_registry\n"
        "assert 'tiny_mlp' in load_registry().architectures\n"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)"
    )
    environment.python(code, cwd=tmp_path)


@pytest.mark.parametrize("project", OTHERS, ids=lambda project: project.name)
def test_a_package_passes_its_own_tests_and_parity(
    project: Path, environment: Environment, tmp_path: Path
) -> None:
    """Its tests alone are copied: what they import is what is installed."""
    shutil.copytree(project / "tests", tmp_path / "tests")
    arch = project.name.removeprefix("converter-").replace("-", "_")
    result = environment.run("pytest", "-q", "-rA", "--converter-arch", arch, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "PASSED tests/" in result.stdout
    assert re.search(rf"PASSED converter::{arch}::\w+-model-batch_size=1,\S*-fp32", result.stdout)


def test_a_package_made_by_a_plugin_is_inspected_where_neither_plugin_nor_torch_is(
    newcomer: Newcomer, base: Environment, tmp_path: Path
) -> None:
    result = base.run("converter", "inspect", newcomer.folder / "tiny-mlp-onnx", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["record"]["architecture"] == "tiny_mlp"


ENCODE = """
import json, sys, numpy, {module}
kind = getattr({module}, "SentenceTransformer", None) or {module}.Encoder
numpy.save(sys.argv[2], kind(sys.argv[1]).encode(json.load(open("texts.json"))))
"""
TEXTS = ("A short one.", "The quick brown fox jumps over the lazy dog.", "", "naïve 漢字", "word " * 400)


def test_the_real_minilm_gives_sentence_embeddings_where_torch_is_not(
    environment: Environment, base: Environment, minilm: Path, tmp_path: Path
) -> None:
    """Converted where the package is, run by the base installation, compared with SentenceTransformer.encode."""
    command = ["--model", minilm, "--output", "out", "--json"]
    result = environment.run("converter", *command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["architecture"] == "sentence_transformers", (
        "modules.json counts for more than the model type"
    )
    assert report["parity"]["mode"] == "full"
    graph = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "model.onnx")
    assert [output.name for output in graph.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    environment.python(ENCODE.format(module="sentence_transformers"), minilm, "theirs.npy", cwd=tmp_path)
    base.python(ENCODE.format(module="converter.runtime"), "out", "ours.npy", cwd=tmp_path)
    difference = np.abs(np.load(tmp_path / "ours.npy") - np.load(tmp_path / "theirs.npy")).max()
    assert difference < 1e-5


def test_without_its_plugin_the_architecture_is_unknown(
    newcomer: Newcomer, environment: Environment, tmp_path: Path
) -> None:
    result = environment.run(
        "converter", "--arch", "tiny_mlp", "--tiny", "--output", "out", cwd=tmp_path, CONVERTER_PLUGINS=""
    )
    assert result.returncode == 2
    assert "unknown architecture 'tiny_mlp'" in result.stderr
    assert not list(tmp_path.iterdir())
