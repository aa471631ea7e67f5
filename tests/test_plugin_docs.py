"""The plugins that docs/plugins.md shows beside its tutorial, installed as they stand, and a conversion with them.

The tutorial's own files are tested where they are installed: tests/packages/test_tutorial.py.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from converter import convert
from converter.bench.benchmark import bench
from converter.cli.main import run
from converter.errors import ParityError, PluginError
from converter.precision.stored import read_graphs
from converter.recipes import RecipeTensor, read
from converter.registry import Registry, load_registry
from converter.scenario import State

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "tests" / "packages" / "converter-tiny-mlp"
FILE = re.compile(r"^`[\w./-]+`\n\n```python\n.*?^```$", re.MULTILINE | re.DOTALL)
PLUGIN = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Install = Callable[..., None]


@pytest.fixture
def documented(install: Install, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The tutorial's plugin and every plugin shown after it, loaded; a failure is fatal."""
    monkeypatch.syspath_prepend(str(TUTORIAL))
    install("tiny_mlp", target="converter_tiny_mlp.plugin")
    for number, code in enumerate(PLUGIN.findall(FILE.sub("", (ROOT / "docs" / "plugins.md").read_text()))):
        install(f"shown_{number}", code)
    monkeypatch.setenv("CONVERTER_STRICT_PLUGINS", "1")
    return load_registry()


def test_every_plugin_that_is_shown_does_what_is_said_of_it(
    documented: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "package"
    arguments = ["--arch", "tiny_mlp", "--tiny", "--output", str(package), "--json"]
    assert run(arguments) == 0, capsys.readouterr().err
    report = json.loads(capsys.readouterr().out)
    record = json.loads((package / "converter.json").read_text())

    assert report["variants"] == ["scores", "best"]
    session = onnxruntime.InferenceSession(package / "onnx" / "best.onnx")
    feed = {"features": np.ones((2, 5), np.float32), "item_ids": np.zeros((2, 3), np.int64)}
    assert session.run(["best"], feed)[0].shape == (2,)

    judged = [row for row in report["parity"]["comparisons"] if row["component"] == "best"]
    assert all(row["others"] == {"same-winner.share": 1.0} for row in judged)
    assert onnx.load(package / "onnx" / "model.onnx").doc_string == "made by the scoring team"
    assert json.loads((package / "contact.json").read_text()) == {
        "architecture": "tiny_mlp",
        "team": "scoring",
    }

    assert {(entry.noun, entry.name) for entry in documented.overrides} == {
        ("graph pass", "simplify"),
        ("package file", "companions"),
    }
    assert not (package / "config.json").exists()
    assert set(map(str, documented.overrides)) <= set(record["notes"])
    assert record["plugins"]["tiny_mlp"] == "converter-tiny_mlp 1.0"

    quantize = ["quantize", str(package), "--precisions", "rounded", "--quiet"]
    capsys.readouterr()
    assert run(quantize) == 2  # without config.json, which a plugin removed, there are no inputs to judge by
    assert "no quality can be measured on this package" in capsys.readouterr().err
    assert run([*quantize, "--unjudged"]) == 0
    made = json.loads((package / "converter.json").read_text())["precisions"]["rounded"]
    assert "onnx/model_rounded.onnx" in made["files"]
    graphs = read_graphs(package / "onnx", ["model_rounded"])
    weights = [value.const_value for value in graphs[0].model.graph.initializers.values()]
    recipes = [weight.recipe for weight in weights if isinstance(weight, RecipeTensor)]
    assert recipes and all(np.array_equal(values, values.astype("float16")) for values in map(read, recipes))


def test_the_class_of_transformers_that_is_shown_converts(documented: Registry, tmp_path: Path) -> None:
    """Its hidden states at padded sizes, too."""
    report = convert(arch="bert_generation", tiny=True, output=tmp_path / "package")
    assert report.parity.proven
    sizes = {row.size for row in report.parity.comparisons if row.output == "last_hidden_state"}
    assert any(size.endswith("left") for size in sizes)


def test_the_model_that_writes_is_held_to_its_tokens_and_measured_by_them(
    documented: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    documented.find("writer").source.write_tiny(tmp_path / "writer", like=None, seed=0, task="writing")
    report = convert(model=tmp_path / "writer", output=tmp_path / "package")
    (tokens,) = [row for row in report.parity.comparisons if row.output == "tokens"]
    assert report.parity.proven and tokens.size == "writing: 3 rows, 32 tokens"
    measured = bench(tmp_path / "package", str(tmp_path / "writer"), repeats=1, new_tokens=40, threads=1)
    assert [(entry.name, entry.agreement) for entry in measured.contenders] == [("torch", 1), ("fp32", 1)]

    (shown,) = [module for module in list(sys.modules.values()) if "the_last_tokens" in vars(module)]
    monkeypatch.setattr(shown, "the_last_tokens", the_first_tokens)
    with pytest.raises(ParityError, match="writing: 3 rows, 32 tokens"):
        convert(arch="writer", tiny=True, output=tmp_path / "wrong")
    monkeypatch.setattr(shown, "the_last_tokens", lambda run: the_first_tokens(run))
    with pytest.raises(PluginError, match="at the top of a module"):
        convert(arch="writer", tiny=True, output=tmp_path / "nowhere")


def the_first_tokens(run: State) -> dict[str, np.ndarray]:
    return {"input_ids": run.tokens[0][:, None]}


def test_every_section_of_a_card_is_handed_to_package_files(documented: Registry) -> None:
    assert [section.name for section in documented.card_sections][-1] == "contact"
