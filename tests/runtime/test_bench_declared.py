"""Graphs that only their architecture knows are measured on what it declares, each by itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import Axis, Component, DummyInputs, Size
from converter.bench.benchmark import bench
from converter.bench.feeds import Made, feed_of
from converter.bench.load import graphs_load
from converter.cli.main import run
from converter.errors import CheckpointError, PackageError, PluginError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def towers(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A CLIP: its checkpoint, and a package of its joint graph and one tower."""
    checkpoint, package = tiny_checkpoint("clip"), tmp_path_factory.mktemp("towers") / "package"
    options = ["--variants", "joint,image", "--parity", "off", "--quiet"]
    assert run(["--model", str(checkpoint), "--output", str(package), *options]) == 0
    return checkpoint, package


@pytest.mark.xdist_group("towers")
def test_graphs_that_take_texts_and_images_are_each_measured_as_their_architecture_calls_them(
    towers: tuple[Path, Path],
) -> None:
    """In processes of their own: what torch makes up reaches those without torch."""
    checkpoint, package = towers
    measured = bench(package, str(checkpoint), batch_sizes=[1, 3], repeats=1, threads=1)
    names = [
        f"{stem}, {what}" for stem in ("model", "vision_model") for what in ("batch 1", "batch 3", "rows/s")
    ]
    assert [each.name for each in measured.measures] == names
    assert [entry.name for entry in measured.contenders] == ["torch", "fp32"]
    for entry in measured.contenders:
        assert set(entry.figures) == set(names)
        assert entry.agreement == pytest.approx(1, abs=1e-5)
        assert (
            min(entry.open_seconds, entry.resident_bytes, *(each.median for each in entry.figures.values()))
            > 0
        )
    assert "sequence_length 16" in measured.load
    torch, fp32 = measured.contenders
    assert fp32.resident_bytes < torch.resident_bytes


@pytest.mark.xdist_group("towers")
def test_another_model_shows_in_the_cosine(
    towers: tuple[Path, Path], tmp_path: Path, in_this_process: None
) -> None:
    from converter.registry import load_registry

    architecture = load_registry().find("clip")
    architecture.source.write_tiny(tmp_path / "other", like=None, seed=8, task=architecture.tasks[0])
    measured = bench(towers[1], str(tmp_path / "other"), batch_sizes=[1], repeats=1, threads=1)
    assert measured.contenders[1].agreement < 0.9


@pytest.mark.xdist_group("towers")
def test_a_package_of_an_architecture_that_is_gone_is_refused(
    towers: tuple[Path, Path], tmp_path: Path
) -> None:
    package = tmp_path / "package"
    shutil.copytree(towers[1], package)
    record = json.loads((package / "converter.json").read_text())
    (package / "converter.json").write_text(json.dumps({**record, "architecture": "forgotten"}))
    with pytest.raises(PackageError, match="architecture 'forgotten', which is not installed"):
        bench(package)


@dataclass(frozen=True)
class Few:
    """Declares one graph that takes 4 rows at most, and some of one size."""

    fixed: bool = False

    def components(self) -> dict[str, Component]:
        axes = (Axis("rows", 2, high=4), Axis("length", 3, high=9))
        return {"model": Component("model", None, self.inputs, None, axes, ())}  # type: ignore[arg-type]

    def scenarios(self) -> tuple[()]:
        return ()

    def inputs(self, size: Size) -> DummyInputs:
        import torch

        if size["rows"] > 4:
            raise ValueError("too many")
        names = {1: "length"} if self.fixed else {0: "rows", 1: "length"}
        return DummyInputs({"x": torch.zeros(size["rows"], size["length"])}, {"x": names})


def declared_feeds(declared: Any, folder: Path, batches: list[int], monkeypatch: pytest.MonkeyPatch) -> Any:
    from converter.bench.feeds import make_feeds
    from converter.request import SILENT

    monkeypatch.setattr("converter.packages.declared.architecture_of", lambda record, folder: record)
    monkeypatch.setattr("converter.packages.declared.declared_by", lambda *rest: declared)
    return make_feeds(folder, {"architecture": "few"}, None, ["model"], batches, folder, SILENT)


def test_an_architecture_that_tells_by_the_checkpoint_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ColIdefics3's width is that of a tensor in the checkpoint."""
    from converter.bench.feeds import make_feeds
    from converter.request import SILENT

    def refuse(*rest: object) -> None:
        raise CheckpointError("it has no tensor 'linear.weight'")

    monkeypatch.setattr("converter.packages.declared.architecture_of", lambda record, folder: record)
    monkeypatch.setattr("converter.packages.declared.declared_by", refuse)
    with pytest.raises(PackageError, match=r"without the checkpoint: it has no tensor") as told:
        make_feeds(tmp_path, {"architecture": "few"}, None, ["model"], [1], tmp_path, SILENT)
    assert told.value.remedy == "name the checkpoint with --model"


def test_rows_follow_the_batch_and_all_else_is_as_long_as_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = declared_feeds(Few(), tmp_path, [1, 4], monkeypatch)
    assert made.batches == {"model": (1, 4)}
    assert made.sizes == "length 9"
    assert {batch: feed_of(tmp_path, "model", batch)["x"].shape for batch in (1, 2, 4)} == {
        1: (1, 9),
        2: (2, 9),
        4: (4, 9),
    }
    assert [each.name for each in graphs_load(made).measures] == ["batch 1", "batch 4", "rows/s"]


def test_a_graph_without_rows_is_measured_at_its_one_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = declared_feeds(Few(fixed=True), tmp_path, [1, 4], monkeypatch)
    assert made.batches == {"model": ()}
    assert [each.name for each in graphs_load(made).measures] == ["one call"]


def test_a_batch_that_the_architecture_cannot_make_is_refused_with_the_most_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        PluginError, match=r"'few' could not make inputs of model for a batch of 32.*too many"
    ) as told:
        declared_feeds(Few(), tmp_path, [1, 32], monkeypatch)
    assert "--batch-size 4" in told.value.remedy


def test_the_cosine_of_files_is_the_least_of_any_row_of_any_output(tmp_path: Path) -> None:
    agree = graphs_load(Made(("model",), {"model": (1,)})).agree
    same = {"a": np.array([[1.0, 0], [0, 0]]), "b": np.array([[-np.inf, 2.0]]), "c": np.array([3])}
    files = {"same": same, "turned": {**same, "a": np.array([[1.0, 1], [0, 0]])}, "other": {"d": np.ones(1)}}
    for name, arrays in files.items():
        np.savez(tmp_path / name, **arrays)
    paths = {name: str(tmp_path / f"{name}.npz") for name in files}
    assert agree(paths["same"], paths["same"]) == pytest.approx(1)
    assert agree(paths["turned"], paths["same"]) == pytest.approx(np.sqrt(0.5))
    with pytest.raises(PackageError, match="nothing can be compared"):
        agree(paths["other"], paths["same"])
