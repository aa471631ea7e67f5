"""The command line as a process of its own: signals, pipes, and what lies in the working directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def shell(*argv: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "converter", *argv]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environ}, check=False
    )


def test_a_termination_leaves_no_temporary_folder(tmp_path: Path) -> None:
    code = (
        "import sys, tempfile, time, converter.pipeline\n"
        "from converter.__main__ import main\n"
        "def convert_request(request, progress):\n"
        "    with tempfile.TemporaryDirectory(dir='.'):\n"
        "        print('started', file=sys.stderr, flush=True)\n"
        "        time.sleep(600)\n"
        "converter.pipeline.convert_request = convert_request\n"
        "sys.argv[1:] = ['--model', 'm']\n"
        "sys.exit(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "started\n"
        assert list(tmp_path.iterdir())
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["plugins", "wrappers"])
def test_a_folder_of_the_users_with_our_name_does_no_harm(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    for name in ("__init__.py", "common.py", "passes.py"):
        (tmp_path / folder / name).write_text("raise SystemExit('the wrong folder was imported')\n")
    expected = shell("list", cwd=tmp_path.parent)
    result = shell("list", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == expected.stdout


def test_a_base_installation_says_which_extra_to_install(tmp_path: Path) -> None:
    hide = (
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "hidden = {'torch', 'transformers'}\n"
        "PathFinder.find_spec = lambda name, *rest: None if name in hidden else find(name, *rest)\n"
        "from converter.cli.main import run\n"
        "sys.exit(run(['--arch', 'x', '--tiny', '--output', 'out']))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", hide], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "this needs torch, transformers" in result.stderr
    assert "pip install 'converter[export]'" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m converter list --json | head -c 1"
    result = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr) == ("{", "")
