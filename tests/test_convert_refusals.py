"""Conversions that cannot be: what they say, their exit codes, and that nothing is left half-written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file

from converter.added import trace_halves
from converter.checkpoint import open_checkpoint
from converter.cli.main import run
from converter.errors import CheckpointError, UsageError
from converter.registry import load_registry
from converter.request import ConversionRequest

Checkpoints = Callable[..., Path]
Array = np.ndarray


def convert_cli(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def broken(checkpoint: Path, target: Path, change: Callable[[dict[str, Array]], None]) -> Path:
    shutil.copytree(checkpoint, target)
    weights = load_file(target / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_a_missing_tensor_is_named_and_nothing_is_written(
    tiny_checkpoint: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "encoder.layer.1.attention.self.query.weight"
    checkpoint = broken(tiny_checkpoint("bert"), tmp_path / "checkpoint", lambda weights: weights.pop(name))
    assert convert_cli("--model", checkpoint, "--output", tmp_path / "package") == 1
    assert name in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_code_that_was_not_run_is_named_where_the_weights_are_its_own(
    tiny_checkpoint: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jina's BERT calls itself `bert` and has no table of positions."""
    name = "embeddings.position_embeddings.weight"
    checkpoint = broken(tiny_checkpoint("bert"), tmp_path / "checkpoint", lambda weights: weights.pop(name))
    entries = json.loads((checkpoint / "config.json").read_text())
    entries["auto_map"] = {
        "AutoModel": "maker/code--modeling_alibi.AlibiModel",
        "AutoTokenizer": ["a.B", None],
    }
    (checkpoint / "config.json").write_text(json.dumps(entries))
    assert convert_cli("--model", checkpoint, "--output", tmp_path / "package") == 1
    said = capsys.readouterr().err
    assert name in said and "code of its own (modeling_alibi.py)" in said and "--trust-remote-code" in said


def test_a_note_says_that_code_was_not_run_where_the_weights_fit_the_class_of_the_type(
    tiny_checkpoint: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """gte-Qwen2's own code looks both ways; transformers' Qwen2 takes its weights and does not."""
    checkpoint = shutil.copytree(tiny_checkpoint("bert"), tmp_path / "checkpoint")
    entries = json.loads((checkpoint / "config.json").read_text())
    entries["auto_map"] = {"AutoModel": "modeling_both_ways.BothWays"}
    (checkpoint / "config.json").write_text(json.dumps(entries))
    arguments = ["--model", checkpoint, "--output", tmp_path / "package", "--parity", "off"]
    assert convert_cli(*arguments) == 0
    said = capsys.readouterr()
    assert "names code of its own (modeling_both_ways.py), which was not run" in said.out + said.err


def test_a_tensor_of_the_wrong_shape_is_named(
    tiny_checkpoint: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "encoder.layer.0.output.dense.weight"

    def cut(weights: dict[str, Array]) -> None:
        weights[name] = np.ascontiguousarray(weights[name][:, :-1])

    checkpoint = broken(tiny_checkpoint("bert"), tmp_path / "checkpoint", cut)
    assert convert_cli("--model", checkpoint, "--output", tmp_path / "package") == 1
    assert name in capsys.readouterr().err


def test_a_truncated_shard_is_refused_before_any_work(
    tiny_checkpoint: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint("bert"), checkpoint)
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert convert_cli("--model", checkpoint, "--output", tmp_path / "package") == 1
    assert "model.safetensors" in capsys.readouterr().err


def test_an_existing_package_is_kept_without_overwrite(
    tiny_checkpoint: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "mine.txt").write_text("mine")
    assert convert_cli("--model", tiny_checkpoint("bert"), "--output", package) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (package / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--arch", "colqwen"], "colqwen2"),
        (["--arch", "bert", "--tiny", "--task", "fill-masks"], "fill-mask"),
        (["--arch", "colqwen2", "--tiny", "--variants", "texts"], "text"),
        (["--arch", "bert", "--model", "no/such/folder/here"], "--model"),
        (["--tiny"], "--arch"),
        ([], "--arch"),
    ],
    ids=[
        "near-miss arch",
        "near-miss task",
        "near-miss variant",
        "no such folder",
        "tiny of what",
        "nothing at all",
    ],
)
def test_a_request_that_cannot_be_met_says_what_to_type_instead(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = convert_cli(*arguments, "--output", tmp_path / "package")
    assert code in (1, 2)
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_wrong_graph_exits_3_and_leaves_no_package(tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    """A pass that breaks the graph, brought by a third party's plugin as an entry point."""
    site = tmp_path / "site"
    (site / "breaker-1.0.dist-info").mkdir(parents=True)
    (site / "breaker-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: breaker\nVersion: 1.0\n"
    )
    (site / "breaker-1.0.dist-info/entry_points.txt").write_text("[converter]\nbreaker = breaker\n")
    (site / "breaker.py").write_text(
        "from converter import GraphPass, hookimpl\n"
        "def swap(model):\n"
        "    node = next(n for n in model.graph if n.op_type == 'Gelu')\n"
        "    node.op_type = 'Relu'\n"
        "    node.attributes.clear()\n"
        "    return True\n"
        "@hookimpl\n"
        "def register_passes(register):\n"
        "    register(GraphPass('swap', swap, order=850))\n"
    )
    command = [sys.executable, "-m", "converter", "--model", str(tiny_checkpoint("bert"))]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    target = tmp_path / "out" / "package"
    finished = subprocess.run(
        [*command, "--output", str(target)], env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 3, finished.stderr
    assert "graph/original" in finished.stderr
    assert not target.exists()
    kept = subprocess.run(
        [*command, "--output", str(target), "--keep-failed"], env=environment, capture_output=True, text=True
    )
    assert kept.returncode == 3
    assert f"the failed package was kept as {target}.failed" in kept.stderr
    assert "nothing was written" not in kept.stderr
    assert (target.parent / "package.failed/FAILED").exists()
    assert not target.exists()


@pytest.mark.parametrize("delay", [2.0, 6.0])
def test_a_conversion_that_is_killed_leaves_the_old_package_and_the_next_run_cleans_up(
    delay: float, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    """`delay` seconds fall into loading and into tracing; the package there was stays whole either way."""
    package = tmp_path / "package"
    checkpoint = tiny_checkpoint("bert")
    assert convert_cli("--model", checkpoint, "--output", package, "--parity", "off", "--quiet") == 0
    before = {path.name: path.read_bytes() for path in (package / "onnx").iterdir()}
    command = [sys.executable, "-m", "converter", "--model", str(checkpoint), "--output", str(package)]
    child = subprocess.Popen([*command, "--overwrite", "--quiet"])
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(delay)
    child.kill()
    child.wait()
    assert {path.name: path.read_bytes() for path in (package / "onnx").iterdir()} == before
    assert (
        convert_cli("--model", checkpoint, "--output", package, "--overwrite", "--parity", "off", "--quiet")
        == 0
    )
    left = [path.name for path in tmp_path.iterdir() if not path.name.endswith("-lock")]
    assert left == ["package"]


def test_options_of_precisions_without_a_precision_are_refused() -> None:
    """They were passed over: the package came without what its budget was for."""
    with pytest.raises(UsageError, match="--keep, --block-size: no precision is asked for"):
        ConversionRequest(quantization={"keep": ("cosine=0.9",), "block_size": 32})


def test_tracing_in_halves_is_no_request_for_precisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ConversionRequest] = []
    monkeypatch.setattr(
        "converter.parity.proof.Job",
        lambda request, *_: SimpleNamespace(make=lambda _: asked.append(request)),
    )
    request = ConversionRequest(precisions=("fp16",), quantization={"keep": ("cosine=0.9",)})
    folder, notes = trace_halves(request, None, lambda *_, **__: None, tmp_path, None)  # type: ignore[arg-type]
    assert (folder, notes) == (tmp_path / "halves", ())
    assert (asked[0].dtype, asked[0].precisions) == ("fp16", ())


def test_a_backbone_that_only_the_hub_knows_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the hub's answer there is no config; it had been called a bug."""

    class ClientError(Exception):
        """As of the hub's client: neither an OSError nor any other that is expected."""

    def unreachable(*_: object, **__: object) -> None:
        raise ClientError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_exists", unreachable)
    config = {"model_type": "detr", "backbone": "resnet50", "backbone_kwargs": {"out_indices": [4]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"weight": np.zeros(2, np.float32)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"names a backbone, 'resnet50'.*cannot be asked") as refused:
        load_registry().find("detr").source.config(open_checkpoint(tmp_path))
    assert "backbone_config" in refused.value.remedy
