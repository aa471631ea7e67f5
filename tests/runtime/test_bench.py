"""The benchmark measures every contender on the same work and says how; times are not judged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converter.bench.benchmark import bench
from converter.bench.inputs import describe, draw, unit_of
from converter.bench.load import make_texts
from converter.bench.report import BenchReport, Contender, Measure, Spread
from converter.cli.main import run
from converter.errors import PackageError, UsageError
from converter.packages.graph_info import GraphInfo, Value
from converter.packages.package import inspect_package
from converter.runtime.files import PackageFiles

Capture = pytest.CaptureFixture[str]
QUICK = ["--batch-size", "2", "--repeats", "1", "--documents", "3", "--threads", "1"]
BATCH, DOCS = Measure("batch 1", "lower"), Measure("docs/s", "higher")


def contender(name: str, seconds: float, speed: float) -> Contender:
    figures = {"batch 1": Spread.of([seconds]), "docs/s": Spread.of([speed])}
    return Contender(name, figures, 0.1, 0.2, 10**8, 1.0)


def report(*contenders: Contender) -> BenchReport:
    return BenchReport(
        "p", (BATCH, DOCS), contenders, "cosine", "8 documents", 2, 5, "a cpu", {"converter": "1"}
    )


@pytest.mark.xdist_group("minilm")
def test_torch_and_each_precision_are_measured(minilm: Path, minilm_package: Path) -> None:
    measured = bench(minilm_package, str(minilm), batch_sizes=[1, 3], repeats=1, documents=5, threads=1)
    assert [entry.name for entry in measured.contenders] == ["torch", "fp32"]
    for entry in measured.contenders:
        assert set(entry.figures) == {"batch 1", "batch 3", "docs/s"}
        assert entry.agreement == pytest.approx(1, abs=1e-6)
        assert min(entry.open_seconds, entry.resident_bytes, entry.figures["docs/s"].median) > 0
    assert measured.threads == 1
    assert {"torch", "onnxruntime"} <= set(measured.versions)


@pytest.mark.xdist_group("minilm")
def test_the_command_prints_json_draws_a_plot_and_adds_to_the_card(
    minilm_package: Path, tmp_path: Path, capsys: Capture
) -> None:
    package, plot = tmp_path / "package", tmp_path / "bench.png"
    shutil.copytree(minilm_package, package)
    assert run(["bench", str(package), *QUICK, "--json", "--record", "--plot", str(plot)]) == 0
    printed = json.loads(capsys.readouterr().out)
    (entry,) = printed["contenders"]
    assert entry["name"] == "fp32"
    assert entry["times_the_baseline"] == {"batch 2": 1.0, "docs/s": 1.0}
    assert plot.read_bytes().startswith(b"\x89PNG")
    info = inspect_package(package)
    assert info.exact
    assert not info.edited
    assert "## Speed" in (package / "README.md").read_text()
    assert "1 thread each" in (package / "README.md").read_text()
    recorded = json.loads((package / "converter.json").read_text())["benchmark"]
    assert recorded["contenders"] == printed["contenders"]
    assert "package" not in recorded, "the path is the machine's own business"


@pytest.mark.xdist_group("clients")
def test_a_decoder_is_measured_by_the_tokens_it_generates(client_work: Any, in_this_process: None) -> None:
    task = "text-generation"
    checkpoint = str(client_work.checkpoint(task))
    measured = bench(client_work.packages / task, checkpoint, repeats=1, new_tokens=6, threads=1)
    assert [entry.name for entry in measured.contenders] == ["torch", "fp32"]
    assert measured.agreement == "same tokens"
    for entry in measured.contenders:
        assert set(entry.figures) == {"first token", "tokens/s"}
        assert entry.agreement == 1, "the same model chooses the same tokens"


@pytest.mark.xdist_group("clients")
def test_images_are_measured_at_the_size_the_model_was_made_for(
    client_work: Any, in_this_process: None
) -> None:
    task = "image-classification"
    checkpoint = str(client_work.checkpoint(task))
    measured = bench(client_work.packages / task, checkpoint, batch_sizes=[1, 3], repeats=1, threads=1)
    assert [each.name for each in measured.measures] == ["batch 1", "batch 3", "images/s"]
    assert "pixel_values 3 x 24 x 24" in measured.load
    assert [entry.name for entry in measured.contenders] == ["torch", "fp32"]
    for entry in measured.contenders:
        assert entry.figures["images/s"].median > 0
        assert entry.agreement == pytest.approx(1, abs=1e-6)


@pytest.mark.xdist_group("clients")
@pytest.mark.parametrize("task", ["translation", "automatic-speech-recognition"])
def test_an_encoder_and_its_decoder_are_measured_by_the_tokens_they_generate(
    client_work: Any, in_this_process: None, task: str
) -> None:
    checkpoint = str(client_work.checkpoint(task))
    measured = bench(client_work.packages / task, checkpoint, repeats=1, new_tokens=6, threads=1)
    assert [entry.name for entry in measured.contenders] == ["torch", "fp32"]
    for entry in measured.contenders:
        assert set(entry.figures) == {"first token", "tokens/s"}
        assert entry.agreement == 1, "the same model chooses the same tokens"


@pytest.mark.parametrize(
    ("inputs", "files", "expected"),
    [
        ({"pixel_values": ["b", 3, "height", "width"]}, {}, [3, 224, 224]),
        ({"pixel_values": ["b", 3, "h", "w"]}, {"config.json": {"image_size": [32, 48]}}, [3, 32, 48]),
        (
            {"pixel_values": ["b", 3, "h", "w"]},
            {"preprocessor_config.json": {"size": {"shortest_edge": 40}, "crop_size": 32}},
            [3, 32, 32],
        ),
        ({"input_values": ["b", "samples"]}, {}, [80000]),
        ({"input_values": ["b", "samples"]}, {"preprocessor_config.json": {"sampling_rate": 8000}}, [40000]),
        ({"input_features": ["b", "frames", 80], "attention_mask": ["b", "frames"]}, {}, [500, 80]),
    ],
)
def test_inputs_have_the_sizes_that_the_package_tells(
    tmp_path: Path, inputs: dict[str, list[Any]], files: dict[str, Any], expected: list[int]
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    values = tuple(Value(name, "float", tuple(shape)) for name, shape in inputs.items())
    graph = GraphInfo("onnx/model.onnx", values, (), 23, 10, 1, 0, 0, ())
    described = describe(PackageFiles(tmp_path, "", {}), graph, 2)
    assert unit_of(graph) == ("images" if "pixel_values" in inputs else "clips")
    assert described[0]["shape"] == [2, *expected]
    assert all(array.shape[0] == 2 for array in draw(described).values())


def test_a_graph_of_unknown_size_is_refused(tmp_path: Path) -> None:
    values = (Value("pixel_values", "float", ("batch", "channels", "height", "width")),)
    with pytest.raises(PackageError, match="knows no size"):
        describe(PackageFiles(tmp_path, "", {}), GraphInfo("g", values, (), 23, 10, 1, 0, 0, ()), 1)


def test_ratios_come_first_and_are_to_the_first_contender() -> None:
    header, rows = report(contender("torch", 0.4, 10), contender("fp32", 0.1, 30)).table()
    assert header[:3] == ("torch = 1", "batch 1 x", "docs/s x")
    assert [row[:3] for row in rows] == [("torch", "1.00", "1.00"), ("fp32", "4.00", "3.00")]


def test_a_report_survives_json() -> None:
    first = report(contender("torch", 0.4, 10), contender("fp32", 0.1, 30))
    assert BenchReport.from_json(json.loads(json.dumps(first.to_json()))) == first


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
    for wrong in ({"repeats": 0}, {"new_tokens": 1}, {"batch_sizes": ()}, {"documents": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            bench(tmp_path, **wrong)  # type: ignore[arg-type]
    with pytest.raises(PackageError, match="no graph"):
        bench(tmp_path)


@pytest.mark.xdist_group("colqwen2")
def test_pages_and_queries_are_measured_through_the_runtime(
    retrieval_package: Path, colqwen2_checkpoint: Path, in_this_process: None
) -> None:
    """The original takes the place of the graphs: the same tokens and patches go into both."""
    measured = bench(retrieval_package, str(colqwen2_checkpoint), batch_sizes=[1, 3], repeats=1, threads=1)
    assert [each.name for each in measured.measures] == ["queries 1", "queries 3", "pages/s"]
    assert [entry.name for entry in measured.contenders] == ["torch", "fp32"]
    for entry in measured.contenders:
        assert entry.agreement == pytest.approx(1, abs=1e-5)


def test_many_measures_stand_below_each_other() -> None:
    names = [f"part, batch {size}" for size in range(7)]
    measures = tuple(Measure(name, "lower") for name in names)
    figures = {name: Spread.of([0.1]) for name in names}
    found = [Contender(name, figures, 0.1, 0.2, 10**8, 1.0) for name in ("torch", "fp32")]
    header, rows = replace(report(*found), measures=measures).table()
    assert header == ("torch = 1", "fp32 x", "torch", "fp32")
    assert rows[0] == ("part, batch 0, ms", "1.00", "100.0 (100.0-100.0)", "100.0 (100.0-100.0)")
    assert [row[0] for row in rows[7:]] == ["cosine", "open s", "MB"]


def test_a_package_of_another_kind_without_a_record_is_refused_by_its_inputs(tmp_path: Path) -> None:
    """CLIP's joint graph, for one: nobody says what goes with what."""
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "s"])
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["b", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.INT64, ["b", "s"])
    node = helper.make_node("Identity", ["input_ids"], ["logits"])
    (tmp_path / "onnx").mkdir()
    onnx.save(
        helper.make_model(helper.make_graph([node], "g", [ids, pixels], [logits])),
        tmp_path / "onnx/model.onnx",
    )
    with pytest.raises(
        PackageError, match=r"takes .*pixel_values.*no converter\.json.*only encoders and classifiers"
    ):
        bench(tmp_path)


def test_a_plot_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert run(["bench", str(tmp_path), "--plot", str(tmp_path / "nowhere" / "x.png")]) == 2
    assert run(["bench", str(tmp_path), "--plot", str(tmp_path / "x.doc")]) == 2
    assert "name it .png" in capsys.readouterr().err
    find: Any = __import__("importlib.util").util.find_spec
    hidden = lambda name, *rest: None if name == "matplotlib" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", hidden)
    assert run(["bench", str(tmp_path), "--plot", str(tmp_path / "x.png")]) == 2
    assert "pip install 'converter[plot]'" in capsys.readouterr().err


def test_recording_asks_for_a_package_before_anything_is_measured(tmp_path: Path, capsys: Capture) -> None:
    np.save(tmp_path / "something.npy", np.zeros(1))
    assert run(["bench", str(tmp_path), "--record"]) == 1
    assert "is not a package of this converter" in capsys.readouterr().err
