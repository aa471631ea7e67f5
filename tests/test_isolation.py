"""Plugins that break, each in its own way: one named line, and everything else goes on working."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from plugin_kit import GOOD, Install, load, only_failure, pass_names

from converter.cli.main import run
from converter.registry import Registry

BROKEN = {
    "raises": ("raise RuntimeError('no\\n  luck')", "RuntimeError: no luck"),
    "exits": ("import sys; sys.exit(4)", "importing it raised SystemExit(4)"),
    "skips": ("import pytest; pytest.skip('no', allow_module_level=True)", "importing it raised"),
    "wants_a_package": (
        "import surely_not_there.sub",
        "the package 'surely_not_there', which is not installed",
    ),
    "no_syntax": ("def", "SyntaxError"),
    "no_hooks": ("x = 1", "nothing in it is marked with @converter.hookimpl"),
    "unmarked": (
        "def register_architectures(register): pass",
        "its register_architectures is not marked with @converter.hookimpl",
    ),
    "signature": (
        "from converter import hookimpl\n@hookimpl\ndef register_architectures(register, more): pass",
        "more",
    ),
    "no_argument": (
        "from converter import hookimpl\n@hookimpl\ndef register_architectures(): pass",
        "its register_architectures takes no argument `register`",
    ),
    "not_a_function": (
        "from converter import hookimpl\nregister_architectures = hookimpl(3)",
        "AttributeError",
    ),
    "deep": ("def f(): f()\nf()", "RecursionError"),
    "misspelt": (
        "from converter import hookimpl\n@hookimpl\ndef register_architecture(register): pass",
        "there is no hook 'register_architecture'; did you mean 'register_architectures'?",
    ),
    "unknown_hook": (
        "from converter import hookimpl\n@hookimpl\ndef xyz(register): pass",
        "the hooks are register_architectures, register_variants, register_passes",
    ),
    "hook_raises": (
        "from converter import hookimpl\n@hookimpl\ndef register_passes(register): 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "hook_exits": (
        "from converter import hookimpl\n@hookimpl\ndef register_passes(register): raise SystemExit",
        "calling its hooks raised SystemExit()",
    ),
    "wrong_record": (
        "from converter import hookimpl\n@hookimpl\ndef register_architectures(register): register({})",
        "register_architectures was given a dict, not an Architecture",
    ),
    "string_of_types": (
        GOOD.replace('"NAME", "NAME-type")', '"NAME")').replace("*model_types", "model_types='x'"),
        "model_types is a tuple",
    ),
    "bad_record": (GOOD.replace('"NAME", "NAME-type"', '"not a name", "x"'), "must be a Python identifier"),
}


@pytest.mark.parametrize(("code", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_one_named_line_and_the_others_work(
    install: Install, builtin: Registry, code: str, message: str
) -> None:
    install("broken", code)
    install("a_good_one")
    install("z_good_one")
    registry = load()
    failure = only_failure(registry)
    assert (failure.plugin, failure.distribution) == ("broken", "converter-broken 1.0")
    assert message in failure.message
    assert "\n" not in str(failure)
    assert set(registry.architectures) == {*builtin.architectures, "a_good_one", "z_good_one"}
    assert pass_names(registry) == pass_names(builtin)


def test_broken_in_every_way_at_once_each_is_one_named_line_on_the_screen(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (code, _) in BROKEN.items():
        install(name, code)
    install("hangs", "import time\ntime.sleep(600)")
    install("twice", distribution="converter-one")
    install("twice", distribution="converter-two")
    install("nowhere", target="not a module!")
    install("works")
    monkeypatch.setenv("CONVERTER_PLUGIN_TIMEOUT", "1")
    assert run(["plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    failed = [line.removeprefix("failed: ").split()[0] for line in lines if line.startswith("failed: ")]
    assert sorted(failed) == sorted([*BROKEN, "hangs", "twice", "nowhere"])
    works = next(number for number, line in enumerate(lines) if line.startswith("works ("))
    assert lines[works + 1] == "  architectures: works"
    assert "its entry point names no module" in "".join(lines)
    assert run(["list", "--arch", "works"]) == 0
    monkeypatch.setenv("CONVERTER_STRICT_PLUGINS", "1")
    assert run(["list"]) == 2
    said = capsys.readouterr().err
    assert all(f"{name} (" in said for name in failed)
    monkeypatch.setenv("CONVERTER_PLUGINS", "works")
    assert run(["list"]) == 0


@pytest.mark.parametrize("where", ["import", "hook"])
def test_a_plugin_that_hangs_is_given_up_after_the_stated_time(
    install: Install, builtin: Registry, where: str
) -> None:
    hang = "import time\ntime.sleep(600)\n"
    hook = "from converter import hookimpl\n@hookimpl\ndef register_passes(register):\n    "
    install("hangs", hang if where == "import" else hook + hang.replace("\n", "; "))
    start = time.monotonic()
    registry = load(CONVERTER_PLUGIN_TIMEOUT="0.2")
    assert time.monotonic() - start < 300
    assert "took longer than 0.2 s (CONVERTER_PLUGIN_TIMEOUT)" in only_failure(registry).message
    assert set(registry.architectures) == set(builtin.architectures)


@pytest.mark.parametrize("hang", ["import time; time.sleep(600)", "while True: pass"])
def test_the_process_ends_although_a_plugin_hangs(install: Install, tmp_path: Path, hang: str) -> None:
    install("hangs", hang)
    environ = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "converter-hangs"),
        "CONVERTER_PLUGIN_TIMEOUT": "0.2",
    }
    command = [sys.executable, "-m", "converter", "plugins"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=300)
    assert "failed: hangs (converter-hangs 1.0): importing it took longer" in result.stdout


def test_ctrl_c_during_loading_is_not_a_plugins_failure(install: Install) -> None:
    install("interrupted", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load()


def test_a_module_of_the_plugin_itself_that_is_missing_is_not_called_a_package(install: Install) -> None:
    install("lost", target="converter_lost_lost.plugin")
    assert "its module 'converter_lost_lost.plugin' does not exist" in only_failure(load()).message


def test_a_function_the_entry_point_names_but_the_module_lacks(install: Install) -> None:
    install("lacking", target="converter_lacking_lacking:plugin")
    assert "AttributeError" in only_failure(load()).message
