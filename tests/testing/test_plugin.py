"""The pytest plugin, as somebody's CI runs it: parity cases of an architecture without a line of test code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from converter.testing.plan import CaseName

FLAWED = Path(__file__).parents[1] / "packages" / "converter-flawed"


def run_pytest(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("CONVERTER_", "PYTEST_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *argv],
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(FLAWED), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_loading_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, pytest\n"
        "before = set(sys.modules)\n"
        "import converter.testing.plugin\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert new - set(sys.stdlib_module_names) <= {'converter'}, new\n"
        "assert 'converter.records' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_option_nothing_is_collected(tmp_path: Path) -> None:
    result = run_pytest("--collect-only", "-q", cwd=tmp_path)
    assert result.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


REFUSED = {
    "arch": ("--converter-arch flowed", "did you mean 'flawed'"),
    "precision": ("--converter-arch flawed --converter-precisions fp32,q9", "unknown precision 'q9'"),
    "no precision": ("--converter-arch flawed --converter-precisions ,", "no precision is named"),
    "task": ("--converter-arch flawed --converter-task encodings", "has no task 'encodings'"),
    "model": ("--converter-arch flawed --converter-model nowhere/to/be", "nowhere/to/be"),
    "no arch": ("--converter-task encoding", "--converter-arch"),
}
RUN_ALL = """
import contextlib, io, json, pytest, sys
for options in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = pytest.main(["-p", "no:cacheprovider", *options.split()])
    print("\\nRESULT", json.dumps([code, said.getvalue()]))
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit code and stderr of each pytest run. One process makes them all, so that torch is imported once."""
    asked = json.dumps([options for options, _ in REFUSED.values()])
    environ = {**os.environ, "PYTHONPATH": str(FLAWED), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", RUN_ALL, asked],
        cwd=tmp_path_factory.mktemp("empty"),
        env={name: value for name, value in environ.items() if not name.startswith("PYTEST_")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [line.removeprefix("RESULT ") for line in result.stdout.splitlines() if line.startswith("RESULT")]
    return dict(zip(REFUSED, map(json.loads, lines), strict=True))


@pytest.mark.xdist_group("refusals")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_tested_is_said_before_any_test_runs(
    case: str, refusals: dict[str, tuple[int, str]]
) -> None:
    code, said = refusals[case]
    assert code == pytest.ExitCode.USAGE_ERROR
    assert REFUSED[case][1] in said


def test_an_architecture_that_is_not_there_is_said_before_workers_start(tmp_path: Path) -> None:
    result = run_pytest("--converter-arch", "flowed", "-n", "2", cwd=tmp_path)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "did you mean 'flawed'" in result.stderr


def test_a_case_for_each_variant_size_and_precision_on_two_workers_from_one_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = tmp_path / "traces"
    monkeypatch.setenv("FLAWED_TRACES", str(traces))
    options = ["--converter-arch", "flawed", "--converter-precisions", "fp32,q8", "-v", "-n", "2"]
    result = run_pytest(*options, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    passed = re.findall(r"\[(gw\d)\].* PASSED converter::flawed::(\S+)", result.stdout)
    sizes = {
        precision: {name.removesuffix(precision) for _, name in passed if name.endswith(precision)}
        for precision in ("-fp32", "-q8")
    }
    assert sizes["-fp32"] == sizes["-q8"]
    assert {
        "text-model-batch_size=2,sequence_length=5",
        "text-model-batch_size=1,sequence_length=1",
    } <= sizes["-fp32"]
    assert len(passed) == len(sizes["-fp32"]) * 2 > 20
    assert {worker for worker, _ in passed} == {"gw0", "gw1"}
    assert len(set(traces.read_text().split())) == 1  # every conversion is a process of its own there


def test_a_case_of_generation_is_named_by_what_is_played() -> None:
    played = CaseName("text", "greedy generation, prefill in two chunks", "")
    assert str(played) == "text-greedy-generation-prefill-in-two-chunks-fp32"


def test_a_wrong_one_fails_with_what_was_compared_and_forgotten_axes_are_warnings(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom flawed import Source\n"
        "Source().write_tiny(Path('checkpoint'), like='mask, short', seed=1, task='encoding')\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(FLAWED)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, check=True)
    options = ["--converter-arch", "flawed", "--converter-model", "checkpoint", "-m", "converter_full"]
    result = run_pytest(*options, "-rA", "--junit-xml", "report.xml", cwd=tmp_path)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout + result.stderr
    cases = ElementTree.parse(tmp_path / "report.xml").findall(".//testcase")
    assert {case.get("classname") for case in cases} == {"converter.flawed"}
    failed = {
        case.get("name", ""): case.findtext("failure", "")
        for case in cases
        if case.find("failure") is not None
    }
    padded = re.compile("(left|right)-fp32$")
    assert failed.keys() == {case.get("name", "") for case in cases if padded.search(case.get("name", ""))}
    text = failed["text-model-batch_size=4,right-fp32"]
    assert re.search(r"FAILED: model hidden at .*: wrapper/original differ by ", text)
    assert re.search(r"passed: model hidden at .*: graph/wrapper differ by ", text)
    measured = {entry.get("name") for entry in cases[0].findall("properties/property")}
    assert {"hidden graph/original", "hidden wrapper/original", "hidden graph/wrapper"} == measured
    assert "torch.__trace" not in result.stdout, "tracing logs thousands of lines that pytest collects"
    said = " ".join(result.stdout.split())
    forgotten = "model: axis 1 of 'input_ids' and axis 1 of 'attention_mask' is fixed at 5, but the original also takes"
    assert said.count(forgotten) == 1, said
    assert said.count("model: axis 'sequence_length' of output 'hidden' came out fixed at 5") == 1


def test_generation_is_a_case_of_its_own(tmp_path: Path) -> None:
    result = run_pytest("--converter-arch", "qwen3", "-rA", "-q", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "PASSED converter::qwen3::text-greedy-generation-prefill-in-two-chunks-fp32" in result.stdout
    assert "PASSED converter::qwen3::text-model-" in result.stdout
