"""The command line: what it accepts, what it asks of the pipeline, what it prints, and how it ends."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.arguments import flag_names, normalise
from converter.cli import cli, run
from converter.console import PlainProgress, quiet_libraries, show_progress, write_table
from converter.errors import CheckpointError, ParityError, UsageError
from converter.package import write_record
from converter.pipeline import Report
from converter.records import Comparison, ParityReport
from converter.request import SILENT, ConversionRequest, Progress

Capture = pytest.CaptureFixture[str]
FLAGS = flag_names(cli)


def report(**changes: Any) -> Report:
    rows = tuple(
        Comparison("model", size, "embeddings", pair, distance, 0.9999999, True)
        for size, pair, distance in (
            ("batch_size=1", "original/graph", 2e-7),
            ("batch_size=3", "wrapper/graph", 5e-7),
        )
    )
    usual: dict[str, Any] = {
        "output": Path("models/x"),
        "architecture": "some_arch",
        "task": "feature-extraction",
        "variants": ("text",),
        "parity": ParityReport("full", "asked for", rows),
        "stages": (("trace model", 1.25), ("write graphs", 0.5)),
        "peak_memory": 1_400_000_000,
        "files": {"onnx/model.onnx": 91_000_000, "config.json": 612},
        "notes": ("no tokenizer files were found",),
    }
    return Report(**usual | changes)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ConversionRequest]:
    """Requests that reach the pipeline, which does nothing but answer."""
    return fake_pipeline(monkeypatch, lambda request, progress: report())


def fake_pipeline(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[ConversionRequest, Progress], Report]
) -> list[ConversionRequest]:
    requests: list[ConversionRequest] = []

    def convert_request(request: ConversionRequest, progress: Progress) -> Report:
        requests.append(request)
        return answer(request, progress)

    monkeypatch.setattr("converter.pipeline.convert_request", convert_request)
    return requests


# --- what it accepts ---


@pytest.mark.parametrize(
    ("given_argv", "expected"),
    [
        (["--model_id", "a_b"], ["--model-id", "a_b"]),
        (["--model_id=a_b"], ["--model-id=a_b"]),
        (["--tiny", "True"], ["--tiny"]),
        (["--tiny", "false"], []),
        (["--tiny=True"], ["--tiny"]),
        (["--trust_remote_code=False"], []),
        (["--no_post_process", "False", "--tiny"], ["--tiny"]),
        (["--tiny=maybe"], ["--tiny=maybe"]),
        (["--model", "True"], ["--model", "True"]),
        (["--tiny", "list"], ["--tiny", "list"]),
        (["--", "--model_id", "--tiny", "True"], ["--", "--model_id", "--tiny", "True"]),
        (["some_folder", "-x_y"], ["some_folder", "-x_y"]),
    ],
)
def test_underscores_and_truth_values_are_accepted(given_argv: list[str], expected: list[str]) -> None:
    assert normalise(given_argv, FLAGS) == expected


@given(
    st.lists(
        st.sampled_from(["--tiny", "--model", "x_y", "True", "False", "--", "--quiet=True", "--a_b=c_d"])
    )
)
def test_normalising_twice_changes_nothing_more_than_once_unless_truth_values_pile_up(
    argv: list[str],
) -> None:
    once = normalise(argv, FLAGS)
    assert len(once) <= len(argv)
    if not {"True", "False"} & set(once):
        assert normalise(once, FLAGS) == once


def test_the_defaults_of_the_options_are_those_of_the_record(asked: list[ConversionRequest]) -> None:
    assert run(["--tiny", "False", "--seed", "0"]) == 0
    assert asked == [ConversionRequest()]


def test_every_option_reaches_the_record(asked: list[ConversionRequest], tmp_path: Path) -> None:
    argv = (
        "--arch a --model_id m --revision r --cache_dir c --output o --task k --variants text,,image "
        "--token t --dtype fp16 --opset 21 --batch-size 3 --sequence_length 9 --no_post_process "
        "--external-data always --parity full --atol 0.5 --seed 7 --device cuda --tiny True --overwrite "
        "--keep-failed --no-stamp --allow-pickle --trust_remote_code True --quiet"
    )
    assert run(argv.split()) == 0
    assert asked == [
        ConversionRequest(
            arch="a",
            model="m",
            output=Path("o"),
            revision="r",
            token="t",
            cache_dir=Path("c"),
            task="k",
            variants=("text", "image"),
            dtype="fp16",
            opset=21,
            batch_size=3,
            sequence_length=9,
            optimize="none",
            stamp=False,
            external_data="always",
            parity="full",
            atol=0.5,
            seed=7,
            device="cuda",
            tiny=True,
            overwrite=True,
            keep_failed=True,
            allow_pickle=True,
            trust_remote_code=True,
        )
    ]


def test_skipping_validation_is_parity_off(asked: list[ConversionRequest]) -> None:
    assert run(["--model", "m", "--skip-validation"]) == 0
    assert asked[0].parity == "off"
    assert run(["--model", "m", "--skip-validation", "--parity", "full"]) == 2
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--dtype", "fp8"], "fp8"),
        (["--batch-size", "1"], "size 1 all the same"),
        (["--output", "a", "--output-parent-dir", "b"], "both an output folder and an output parent"),
        (["--archh", "x"], "Did you mean '--arch'?"),
        (["pluggins"], "Did you mean 'plugins'?"),
        (["--tiny", "list"], "--tiny before the command 'list' has no effect"),
        (["verify", "somewhere"], "--model"),
        (["list", "--arch", "no_such_arch"], "unknown architecture 'no_such_arch'"),
        (["--opset", "9"], "opset"),
    ],
)
def test_wrong_usage_exits_with_2_and_starts_nothing(
    asked: list[ConversionRequest], capsys: Capture, argv: list[str], words: str
) -> None:
    assert run(argv) == 2
    assert words in capsys.readouterr().err
    assert not asked


def test_no_arguments_at_all_show_the_help(asked: list[ConversionRequest], capsys: Capture) -> None:
    assert run([]) == 0
    assert "Usage: converter" in capsys.readouterr().out
    assert not asked


def test_a_target_is_named_after_the_model() -> None:
    assert ConversionRequest().target("org/some-model", "arch") == Path("models/some-model")
    assert ConversionRequest().target("/data/some-model/", "arch") == Path("models/some-model")
    assert ConversionRequest(output=Path("o")).target("org/m", "arch") == Path("o")
    assert ConversionRequest(output_parent=Path("p")).target("org/m", "arch") == Path("p/m")
    assert ConversionRequest().target("..", "arch").name not in ("", "..")


def test_the_token_does_not_show_when_a_request_is_printed() -> None:
    assert "hf_secret" not in repr(ConversionRequest(token="hf_secret"))


# --- what it prints ---


def test_a_conversion_prints_its_parity_its_files_and_where_it_lies(
    asked: list[ConversionRequest], capsys: Capture
) -> None:
    assert run(["--model", "m"]) == 0
    out = capsys.readouterr().out
    assert "parity passed (full: asked for)" in out
    line = next(line for line in out.splitlines() if line.startswith("model"))
    assert line.split() == ["model", "embeddings", "5.0e-07", "0.9999999", "2", "passed"]
    assert "onnx/model.onnx  91.0 MB" in out
    assert "note: no tokenizer files were found" in out
    assert "wrote models/x (some_arch, feature-extraction, text) in " in out
    assert "s, peak memory 1.40 GB" in out


def test_json_is_one_object_and_nothing_else_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def answer(request: ConversionRequest, progress: Progress) -> Report:
        print("a library that prints")
        progress.note("a note")
        failed = Comparison("model", "", "y", "original/graph", float("inf"), -1.0, False)
        return report(parity=ParityReport("full", "", (failed,)))

    fake_pipeline(monkeypatch, answer)
    assert run(["--model", "m", "--json"]) == 0
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    assert value["output"] == "models/x"
    assert value["parity"]["comparisons"][0]["max_abs"] == "inf"
    assert "a library that prints" in captured.err


def test_quiet_prints_nothing(asked: list[ConversionRequest], capsys: Capture) -> None:
    assert run(["--model", "m", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_verbose_adds_the_stages(asked: list[ConversionRequest], capsys: Capture) -> None:
    assert run(["--model", "m", "--verbose"]) == 0
    assert "trace model      1.25" in capsys.readouterr().out


def test_parity_that_was_not_checked_is_not_called_passed(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    fake_pipeline(monkeypatch, lambda request, progress: report(parity=ParityReport("off", "asked for")))
    assert run(["--model", "m"]) == 0
    out = capsys.readouterr().out
    assert "parity: not checked" in out
    assert "passed" not in out


def test_list_shows_every_architecture_and_one_when_asked(capsys: Capture) -> None:
    assert run(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["architectures"]
    first = listed[0]
    assert run(["list", "--arch", first["model_types"][0]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{first['name']}: ")
    assert set(first["tasks"]) <= set(lines)


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


def test_a_table_is_aligned_columns_where_there_is_no_terminal(capsys: Capture) -> None:
    write_table(("name", "size"), [("a", "1"), ("longer", "23")], right=("size",))
    assert capsys.readouterr().out == "name    size\na          1\nlonger    23\n"


def test_a_table_is_framed_on_a_terminal_and_takes_markup_literally(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_table(("name", "size"), [("[bold]x", "1")], right=("size",))
    assert "[bold]x" in capsys.readouterr().out


# --- progress and noise ---


def test_progress_is_a_line_a_stage_where_there_is_no_terminal(capsys: Capture) -> None:
    with show_progress(quiet=False) as progress:
        assert isinstance(progress, PlainProgress)
        with progress.stage("trace model"):
            progress.advance(1, 2)
        progress.spoke = float("-inf")
        progress.advance(1, 2)
    assert capsys.readouterr().err == "trace model ...\n  50 %\n"


def test_progress_is_live_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with show_progress(quiet=False) as progress, progress.stage("outer"), progress.stage("inner"):
        progress.advance(3, 4)
        progress.note("[a] note")
    assert "[a] note" in capsys.readouterr().err


def test_quiet_progress_says_nothing(capsys: Capture) -> None:
    with show_progress(quiet=True) as progress, progress.stage("x"):
        progress.note("y")
    assert progress is SILENT
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Iterator[Callable[[], None]]:
    """What libraries do: warn, log through a handler of their own, and print."""
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    logger = logging.getLogger("some.library")
    handler = logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)

    def make() -> None:
        warnings.warn("a warning", FutureWarning, stacklevel=1)
        logger.warning("a record")

    yield make
    logger.removeHandler(handler)


@pytest.mark.filterwarnings("error")
def test_libraries_are_silent_and_everything_is_put_back(noise: Callable[[], None], capsys: Capture) -> None:
    with quiet_libraries():
        assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"
        noise()
    assert capsys.readouterr() == ("", "")
    assert "TRANSFORMERS_VERBOSITY" not in os.environ
    with pytest.raises(FutureWarning):
        noise()


def test_verbose_lets_libraries_speak(noise: Callable[[], None], capsys: Capture) -> None:
    with quiet_libraries(verbose=True), pytest.warns(FutureWarning):
        noise()
    assert "a record" in capsys.readouterr().err


# --- how it ends ---


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (
            CheckpointError("tensor x is missing", remedy="download it again"),
            1,
            "error: tensor x is missing\n  download",
        ),
        (UsageError("no"), 2, "error: no"),
        (ParityError("they differ"), 3, "error: they differ"),
        (KeyboardInterrupt(), 130, "interrupted: nothing was written"),
        (ZeroDivisionError("oh"), 1, "this is a bug: ZeroDivisionError: oh; run again with --verbose"),
    ],
)
def test_each_error_is_one_message_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, raised: BaseException, code: int, words: str
) -> None:
    def answer(request: ConversionRequest, progress: Progress) -> Report:
        raise raised

    fake_pipeline(monkeypatch, answer)
    assert run(["--model", "m", "--json"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert "Traceback" not in captured.err
    run(["--model", "m", "--verbose"])
    assert ("Traceback" in capsys.readouterr().err) == isinstance(raised, Exception)


@pytest.mark.parametrize("passed", [True, False])
def test_verify_exits_with_3_when_parity_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, passed: bool
) -> None:
    def verify_package(package: Path, model: str, progress: Progress) -> ParityReport:
        assert (package, model) == (Path("folder"), "checkpoint")
        return ParityReport("full", "asked for", (Comparison("model", "s", "y", "p", 0.1, 0.9, passed),))

    monkeypatch.setattr("converter.pipeline.verify_package", verify_package, raising=False)
    assert run(["verify", "folder", "--model_id", "checkpoint"]) == (0 if passed else 3)
    assert ("FAILED" in capsys.readouterr().out) == (not passed)


def test_download_and_merge_data_say_where_the_result_lies(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    calls: list[Any] = []

    def download(model: str, output: Path, **options: Any) -> Path:
        calls.append((model, output, options))
        return output

    module = ModuleType("converter.merge_data")
    monkeypatch.setattr(module, "merge_data", lambda *given: calls.append(given), raising=False)
    monkeypatch.setitem(sys.modules, "converter.merge_data", module)
    monkeypatch.setattr("converter.download.download", download)
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


def shell(*argv: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "converter", *argv]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environ}, check=False
    )


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
        "from converter.cli import run\n"
        "sys.exit(run(['--arch', 'x', '--tiny', '--output', 'out']))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", hide], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "converting needs torch, transformers" in result.stderr
    assert "pip install 'converter[export]'" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m converter list --json | head -c 1"
    result = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr) == ("{", "")
