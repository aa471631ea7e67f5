"""The benchmark measures every contender on the same texts and says how; times are not judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from converter.bench import bench, make_texts
from converter.bench_report import BenchReport, Contender, Spread
from converter.cli import run
from converter.errors import PackageError, UsageError


def contender(name: str, seconds: float, speed: float) -> Contender:
    return Contender(name, {1: Spread.of([seconds])}, Spread.of([speed]), 0.1, 0.2, 10**8, 1.0)


@pytest.mark.xdist_group("minilm")
def test_torch_and_each_precision_are_measured(minilm: Path, minilm_package: Path) -> None:
    measured = bench(minilm_package, str(minilm), batch_sizes=[1, 3], repeats=1, documents=5, threads=1)
    assert [entry.name for entry in measured.contenders] == ["torch", "fp32"]
    for entry in measured.contenders:
        assert set(entry.latency) == {1, 3}
        assert entry.cosine == pytest.approx(1, abs=1e-6)
        assert min(entry.open_seconds, entry.resident_bytes, entry.docs_per_second.median) > 0
    assert measured.threads == 1
    assert {"torch", "onnxruntime"} <= set(measured.versions)


@pytest.mark.xdist_group("minilm")
def test_the_command_prints_the_report_as_json(
    minilm_package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--batch-size", "2", "--repeats", "1", "--documents", "3", "--threads", "1"]
    assert run(["bench", str(minilm_package), *quick, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (entry,) = report["contenders"]
    assert entry["name"] == "fp32"
    assert entry["times_the_baseline"] == {"batch 2": 1.0, "docs/s": 1.0}
    assert report["repeats"] == 1


def test_ratios_come_first_and_are_to_the_first_contender() -> None:
    report = BenchReport("p", (contender("torch", 0.4, 10), contender("fp32", 0.1, 30)), 2, 5, 8, "cpu", {})
    header, rows = report.table()
    assert header[:3] == ("torch = 1", "batch 1", "docs/s")
    assert [row[:3] for row in rows] == [("torch", "1.00x", "1.00x"), ("fp32", "4.00x", "3.00x")]


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert Spread.of([5, 1, 3, 2, 4]) == Spread(median=3, low=2, high=4)
    assert Spread.of([7]) == Spread(7, 7, 7)


def test_the_texts_are_the_same_every_time_and_of_the_asked_lengths() -> None:
    texts = make_texts(50, 4, 9)
    assert texts == make_texts(50, 4, 9)
    assert {len(text.split()) for text in texts} == {4, 5, 6, 7, 8, 9}


@pytest.mark.xdist_group("minilm")
def test_what_goes_wrong_in_a_contenders_process_is_told(minilm_package: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(minilm_package, package)
    (package / "tokenizer.json").unlink()
    with pytest.raises(PackageError, match=r"fp32: .*tokenizer\.json"):
        bench(package, repeats=1)


def test_numbers_that_measure_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        bench(tmp_path, repeats=0)
    with pytest.raises(PackageError, match="no graph"):
        bench(tmp_path)
