"""The table of architectures: what is run, what counts as known, and that the committed table says no more."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from converter.registry import load_registry
from converter.request import DEFAULT_OPSET

ROOT = Path(__file__).resolve().parent.parent


def row(arch: str, result: str = "pass", opset: int = DEFAULT_OPSET) -> dict[str, Any]:
    told = {"difference": 2e-6} if result == "pass" else {"reason": "ExportError: an op | nobody has"}
    base = {"arch": arch, "model_type": arch, "task": "fill-mask", "opset": opset, "seconds": 3.2}
    return {**base, "result": result, **told}


def test_every_type_comes_before_the_second_task_of_any(coverage_script: Any) -> None:
    cases = coverage_script.cases()
    firsts = {case["arch"] for case in cases}
    assert [case["arch"] for case in cases[: len(firsts)]] == list(
        dict.fromkeys(case["arch"] for case in cases)
    )
    assert {"bert", "fnet", "efficientnet"} <= firsts  # with a plugin of their own, and without
    assert len(firsts) > 500
    registry = load_registry()
    assert all(registry.find(name).name == name for name in ("bert_generation", "openai_gpt", "fnet"))
    assert len({(case["arch"], case["task"]) for case in cases}) == len(cases)
    # A type that nothing converts is a case as well: it fails, and says why.
    assert {"arch": "pix2struct", "task": "image-text-to-text"} in cases
    assert coverage_script.run_case("pix2struct", "image-text-to-text")["reason"].startswith(
        "UsageError: model type"
    )
    # Types that an architecture owns beside its first, and what a family registers for each of its own.
    assert {"colsmol", "colqwen2_5", "gpt-sw3"} <= firsts
    assert coverage_script.named_type(registry.find("colsmol"), "colsmol") == "colsmol"
    assert coverage_script.named_type(registry.find("deberta_v2"), "deberta_v2") == "deberta-v2"


def test_no_result_is_dropped_because_a_plugin_fails_to_load(
    coverage_script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin with a typing error once took the rows of all its types out of the table."""
    broken = SimpleNamespace(failures=("generic: SyntaxError",))
    monkeypatch.setattr("converter.registry.load_registry", lambda: broken)
    with pytest.raises(SystemExit, match="generic: SyntaxError"):
        coverage_script.cases()


def test_a_run_goes_on_where_it_stopped_unless_the_opset_changed(
    coverage_script: Any, tmp_path: Path
) -> None:
    file = tmp_path / "results.jsonl"
    lines = [row("bert"), row("bert", "fail", opset=18), row("fnet", opset=18), row("mpnet", "fail")]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    known = coverage_script.results(file)
    assert known["bert", "fill-mask"]["result"] == "pass"
    assert {arch for (arch, _), found in known.items() if coverage_script.current(found)} == {"bert", "mpnet"}
    assert not coverage_script.current(known["fnet", "fill-mask"])


def test_what_failed_and_what_is_old_is_not_among_what_passes(coverage_script: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Written by hand.\n\n## Results\n\nolder ones\n")
    coverage_script.write_table(page, [row("bert"), row("mpnet", "fail"), row("fnet", opset=18)])
    passing, _, failing = page.read_text().partition("## Failures")
    assert passing.startswith("Written by hand.\n\n## Results\n\n1 model types") and "older" not in passing
    assert "| bert | fill-mask | pass | 2.0e-06 | 3.2 |" in passing
    assert "mpnet" not in passing and "fnet" not in passing + failing
    assert "| mpnet | fill-mask | ExportError: an op / nobody has |" in failing


def test_the_committed_table_is_what_the_committed_results_say(coverage_script: Any, tmp_path: Path) -> None:
    rows = list(coverage_script.results(coverage_script.RESULTS).values())
    page = tmp_path / "page.md"
    page.write_text(coverage_script.TABLE.read_text())
    coverage_script.write_table(page, rows)
    assert page.read_text() == coverage_script.TABLE.read_text()
    assert all(entry["difference"] <= 1e-4 for entry in rows if entry["result"] == "pass")
    reasons = [entry["reason"] for entry in rows if entry["result"] != "pass"]
    assert all(reasons) and not any(map(coverage_script.FOLDERS.search, reasons))


def test_a_reason_names_no_folder_of_the_machine(coverage_script: Any) -> None:
    error = ValueError(
        "cannot open /tmp/coverage-x/p/onnx/model.onnx (1/2)\n\nsee </opt/a b/c.py>\nthird line"
    )
    said = "ValueError: cannot open model.onnx (1/2) see <a b/c.py>"
    assert coverage_script.reason_of(error) == said
