"""Virtual environments as strangers have them: our wheel and theirs, and nothing of this repository on the path.

Both are installed by pip from the package index, once a session. Tests that use them carry
`xdist_group("third-party")`, which keeps them, and so the environments, on one worker.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# The packages here have tests of their own, which run where the packages are installed.
collect_ignore_glob = ["converter-*"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROJECTS = sorted(path.parent for path in HERE.glob("converter-*/pyproject.toml"))
TUTORIAL = (
    HERE / "converter-tiny-mlp"
)  # not installed as a wheel: tests write and install it as a newcomer does
SOURCES = ("converter", "plugins", "wrappers", "docs", "pyproject.toml", "README.md", "LICENSE")
# What would lead an installed converter back to this repository, or set it up otherwise.
LEAKS = ("CONVERTER_", "PYTHON", "PYTEST", "VIRTUAL_ENV", "COVERAGE")
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and commands run in it from another folder."""

    folder: Path

    def run(
        self, program: str, *argv: str | Path, cwd: Path, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """`bin/program argv`, offline, with nothing inherited that points to this repository."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(LEAKS)}
        return subprocess.run(
            [self.folder / "bin" / program, *argv],
            cwd=cwd,
            env={**inherited, "HF_HUB_OFFLINE": "1", **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    def python(self, code: str, *argv: str | Path, cwd: Path) -> str:
        """What the code prints. Fails with its error where it raises."""
        result = self.run("python", "-c", code, *argv, cwd=cwd)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def install(self, *requirements: str | Path) -> None:
        python = self.folder / "bin" / "python"
        subprocess.run(
            [sys.executable, *PIP, "--python", python, "install", "--no-compile", *requirements], check=True
        )


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of the converter and of every package here, built from copies of their sources."""
    folder = tmp_path_factory.mktemp("wheels")
    ours = folder / "sources" / "converter"
    for name in SOURCES:
        _copy(ROOT / name, ours / name)
    copies = [_copy(project, folder / "sources" / project.name) for project in PROJECTS]
    command = [sys.executable, *PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([*command, ours, *copies], check=True)
    return folder


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        return shutil.copyfile(source, target)
    return shutil.copytree(
        source, target, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".*")
    )


@pytest.fixture(scope="session")
def base(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """`pip install converter`: no torch."""
    yield from _environment(tmp_path_factory.mktemp("base"), _wheel(wheels, "converter"), pip=False)


@pytest.fixture(scope="session")
def environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """`pip install converter[export]`, every package here but the tutorial's, and what their tests need."""
    # The pin of the Makefile is a build for CPUs.
    ran = {name: importlib.metadata.version(name) for name in ("torch", "pytest", "pytest-xdist")}
    tools = [f"{name}=={version.partition('+')[0]}" for name, version in ran.items()]
    ours = f"{_wheel(wheels, 'converter')}[export]"
    theirs = [_wheel(wheels, project.name) for project in PROJECTS if project != TUTORIAL]
    yield from _environment(tmp_path_factory.mktemp("environment"), *tools, ours, *theirs)


@dataclass
class Newcomer:
    """Somebody with an empty folder who types what docs/plugins.md says."""

    environment: Environment
    folder: Path
    typed: list[str]

    def type(self, command: str, *, exits: int = 0, cwd: str = ".", **names: str) -> str:
        """What a command of the page prints, FOLDER and the like replaced by names."""
        self.typed.append(command)
        program, *argv = (names.get(word, word) for word in command.partition(" #")[0].split())
        result = self.environment.run(program, *argv, cwd=self.folder / cwd)
        said = result.stdout + result.stderr
        assert result.returncode == exits, f"{command}\n{said}"
        return said


@pytest.fixture(scope="session")
def newcomer(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    """From `converter new` to a verified package, with nothing changed in between."""
    made = Newcomer(environment, tmp_path_factory.mktemp("newcomer"), [])
    start = time.monotonic()
    assert environment.run("converter", "new", "tiny_mlp", cwd=made.folder).returncode == 0
    made.type("pip install ./converter-tiny-mlp")
    said = made.type("converter --arch tiny_mlp --tiny --output tiny-mlp-onnx")
    assert "parity passed (full" in said
    print(f"from `converter new` to a verified package: {time.monotonic() - start:.0f} s")
    return made


def _wheel(wheels: Path, project: str) -> Path:
    (found,) = wheels.glob(f"{project.replace('-', '_')}-*.whl")
    return found


def _environment(folder: Path, *requirements: str | Path, pip: bool = True) -> Iterator[Environment]:
    options = () if pip else ("--without-pip",)
    subprocess.run([sys.executable, "-m", "venv", *options, folder], check=True)
    made = Environment(folder)
    made.install(*requirements)
    yield made
    # Gigabytes, which pytest would keep for three runs; nobody waits for it.
    subprocess.Popen(["rm", "-rf", folder], start_new_session=True)
