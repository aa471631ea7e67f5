"""The commands list, plugins, inspect, verify, download and merge-data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from converter.cli.main import run
from converter.packages.package import write_record
from converter.records import Comparison, ParityReport
from converter.request import Progress

Capture = pytest.CaptureFixture[str]


def test_list_shows_every_architecture_and_one_when_asked(capsys: Capture) -> None:
    assert run(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["architectures"]
    first = listed[0]
    assert run(["list", "--arch", first["model_types"][0]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{first['name']}: ")
    assert set(first["tasks"]) <= set(lines)


@pytest.mark.parametrize("name, told", [("vit", True), ("bert", False)])
def test_list_tells_whose_numbers_stand_in_shapes(name: str, told: bool, capsys: Capture) -> None:
    assert run(["list", "--arch", name]) == 0
    assert ("small model" in capsys.readouterr().out) is told


def test_list_names_every_architecture_and_its_tasks_in_lines_that_fit_a_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    assert run(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["architectures"]
    assert run(["list"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 90
    words = set(out.replace(",", " ").split())
    assert {entry["name"] for entry in listed} | {
        task for entry in listed for task in entry["tasks"]
    } <= words
    assert lines[-1].startswith(f"{len(listed)} architectures;")


def test_a_task_whose_inputs_cannot_be_shown_says_why(install: Callable[..., None], capsys: Capture) -> None:
    install("hollow")
    assert run(["list", "--arch", "hollow"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert (
        "  inputs cannot be shown: AttributeError: 'NoneType' object has no attribute 'write_tiny'" in shown
    )
    assert run(["list", "--arch", "generic", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["architectures"]
    assert {row["task"] for row in entry["unshown"]} == set(entry["tasks"])
    assert "it stands in for many model types; name one of them with --arch" in entry["unshown"][0]["reason"]


def test_list_says_what_auto_does_and_what_takes_other_models(capsys: Capture) -> None:
    assert run(["list", "--arch", "auto"]) == 0
    chosen, _, _, stand_in, *tasks = capsys.readouterr().out.splitlines()
    assert "model_type in config.json" in chosen and stand_in.startswith("generic: any other class")
    assert "video-classification" in " ".join(tasks)
    assert run(["list", "--arch", "auto", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)["architectures"]] == ["generic"]


OWN_LAYOUT = """
from converter import Architecture, Variant, hookimpl

@hookimpl
def register_architectures(register):
    tasks = {"task": (Variant("v", ("model",), "vectors out"),)}
    register(Architecture("NAME", (), "made up", "", None, lambda config, task: (), tasks))
"""


def test_how_checkpoints_are_known_is_said_where_no_model_type_tells(
    install: Callable[..., None], capsys: Capture
) -> None:
    install("own_layout", OWN_LAYOUT)
    assert run(["list", "--arch", "own_layout"]) == 0
    assert "its checkpoints are known by their layout" in capsys.readouterr().out.splitlines()[0]


def test_an_option_of_the_output_may_stand_before_or_after_the_command(capsys: Capture) -> None:
    assert run(["--json", "list"]) == 0
    before = capsys.readouterr().out
    assert run(["list", "--json", "True"]) == 0
    assert capsys.readouterr().out == before
    assert json.loads(before)


def test_plugins_shows_what_each_brought_and_each_failure_on_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("CONVERTER_PLUGINS", "nobody")
    assert run(["plugins"]) == 0
    out = capsys.readouterr().out
    assert "failed: nobody (not installed): CONVERTER_PLUGINS names it" in out
    assert run(["plugins", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["failures"][0]["plugin"] == "nobody"
    assert {name for plugin in value["plugins"] for name in plugin["passes"]}
    monkeypatch.setenv("CONVERTER_STRICT_PLUGINS", "1")
    assert run(["plugins"]) == 2


@pytest.mark.parametrize("passed", [True, False])
def test_verify_exits_with_3_when_parity_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, passed: bool
) -> None:
    def verify_package(
        package: Path, model: str, progress: Progress, *, base_model: str | None
    ) -> ParityReport:
        assert (package, model) == (Path("folder"), "checkpoint")
        return ParityReport("full", "asked for", (Comparison("model", "s", "y", "p", 0.1, 0.9, passed),))

    monkeypatch.setattr("converter.packages.finished.verify_package", verify_package, raising=False)
    assert run(["verify", "folder", "--model_id", "checkpoint"]) == (0 if passed else 3)
    assert ("FAILED" in capsys.readouterr().out) == (not passed)


def test_download_and_merge_data_say_where_the_result_lies(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    calls: list[Any] = []

    def download(model: str, output: Path, **options: Any) -> Path:
        calls.append((model, output, options))
        return output

    module = ModuleType("converter.packages.merge_data")
    monkeypatch.setattr(module, "merge_data", lambda *given: calls.append(given), raising=False)
    monkeypatch.setitem(sys.modules, "converter.packages.merge_data", module)
    monkeypatch.setattr("converter.checkpoints.download.download", download)
    assert run(["download", "org/m", "--output", "here", "--token", "t"]) == 0
    assert run(["merge-data", "a/model.onnx", "--output", "there", "--json"]) == 0
    options = {"revision": None, "token": "t", "cache_dir": None, "overwrite": False}
    assert calls == [("org/m", Path("here"), options), (Path("a/model.onnx"), Path("there"))]
    assert capsys.readouterr().out.startswith("wrote here\n{")


def test_inspect_exits_with_1_when_a_file_is_not_what_was_recorded(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "config.json").write_text("{}")
    record = {"architecture": "some_arch", "task": "t", "parity": {"mode": "off", "passed": True}}
    write_record(tmp_path, {**record, "source": {"name": "org/m", "revision": None}})
    assert run(["inspect", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "some_arch, t" in out
    assert "parity: never checked" in out
    assert "every recorded file is there and unchanged" in out
    (tmp_path / "config.json").write_text("[]")
    assert run(["inspect", str(tmp_path)]) == 1
    assert "altered: config.json" in capsys.readouterr().out
    assert run(["inspect", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["altered"] == ["config.json"]
    assert run(["inspect", str(tmp_path / "nowhere")]) == 1
