"""A stranger's package, installed and used as strangers do: by its entry point, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

HERE = Path(__file__).parent
PROJECT = HERE / "converter-tiny-mlp"
TUTORIAL = HERE.parents[1] / "docs" / "plugins.md"
BLOCK = re.compile(r"^`([\w./-]+)`\n\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.xdist_group("third-party")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built and installed into a folder of its own, away from the sources."""
    folder = tmp_path_factory.mktemp("third-party")
    sources = shutil.copytree(
        PROJECT, folder / "sources", ignore=shutil.ignore_patterns("build", "*.egg-info")
    )
    install(sources, folder / "site")
    return folder / "site"


def install(sources: Path, site: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "--target", str(site), str(sources)], check=True)


def converter(site: Path, *argv: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CONVERTER_")}
    return subprocess.run(
        [sys.executable, "-m", "converter", *argv],
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


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


def test_the_plugin_is_listed_with_its_distribution(site: Path, tmp_path: Path) -> None:
    result = converter(site, "plugins", "--json", cwd=tmp_path, CONVERTER_STRICT_PLUGINS="1")
    assert result.returncode == 0, result.stderr
    plugin = json.loads(result.stdout)["plugins"][-1]
    assert (plugin["name"], plugin["distribution"], plugin["version"]) == (
        "tiny_mlp",
        "converter-tiny-mlp",
        "0.1.0",
    )
    assert plugin["architectures"] == ["tiny_mlp"]


def test_loading_the_plugin_imports_no_torch(site: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom converter.registry import load_registry\n"
        "assert 'tiny_mlp' in load_registry().architectures\nassert 'torch' not in sys.modules\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, check=True)


def test_the_tutorials_commands_make_a_package_that_runs(site: Path, tmp_path: Path) -> None:
    result = converter(site, "--arch", "tiny_mlp", "--tiny", "--output", "out", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["architecture"] == "tiny_mlp"
    assert report["parity"]["mode"] == "full"
    assert all(row["passed"] for row in report["parity"]["comparisons"])
    session = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "model.onnx")
    features = np.zeros((4, 5), np.float32)
    item_ids = np.arange(28, dtype=np.int64).reshape(4, 7)
    (scores,) = session.run(["scores"], {"features": features, "item_ids": item_ids})
    assert scores.shape == (4, 7)


def test_a_checkpoint_folder_is_recognised_by_its_model_type(site: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom converter_tiny_mlp.source import ItemScorerSource\n"
        "ItemScorerSource().write_tiny(Path('checkpoint'), like=None, seed=3, task='item-scoring')\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, check=True)
    result = converter(site, "--model", "checkpoint", "--output", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "tiny_mlp, item-scoring, scores" in result.stdout


def test_without_its_plugin_the_architecture_is_unknown(site: Path, tmp_path: Path) -> None:
    result = converter(
        site, "--arch", "tiny_mlp", "--tiny", "--output", "out", cwd=tmp_path, CONVERTER_PLUGINS=""
    )
    assert result.returncode == 2
    assert "unknown architecture 'tiny_mlp'" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_new_package_passes_its_own_tests_and_parity_at_once(tmp_path: Path) -> None:
    """From `converter new` to a proven architecture, with nothing changed in between."""
    assert converter(tmp_path, "new", "my-arch", cwd=tmp_path).returncode == 0
    project = tmp_path / "converter-my-arch"
    install(project, tmp_path / "site")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "--converter-arch", "my_arch"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "PASSED tests/test_conversion.py::test_a_tiny_checkpoint_becomes_a_proven_package" in result.stdout
    assert "PASSED converter::my_arch-model-batch_size=1,num_items=3" in result.stdout


def test_the_wheel_brings_the_templates_and_nothing_but_the_converter(tmp_path: Path) -> None:
    root = HERE.parents[1]
    for name in ("converter", "plugins", "wrappers"):
        shutil.copytree(
            root / name, tmp_path / "sources" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path / "sources" / name)
    install(tmp_path / "sources", tmp_path / "site")
    top = {path.name for path in (tmp_path / "site").iterdir() if not path.name.endswith(".dist-info")}
    assert top - {"bin"} == {"converter"}
    code = "import sys; from converter.cli import run; sys.exit(run(['new', 'my_arch', '--quiet']))"
    # -S: without the editable installation, whose finder would come first; the dependencies are named instead.
    paths = [str(tmp_path / "site"), str(Path(pytest.__file__).parents[1])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, env=environ, check=True)
    assert (tmp_path / "converter-my-arch" / "converter_my_arch" / "plugin.py").is_file()
