"""Where parity fails: wrappers with one mistake each, and a graph that something broke after tracing.

The plugin in packages/converter-flawed makes the mistake that its checkpoint's config asks for, in the second layer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from converter.cli.main import run
from converter.parity.bisect import Divergence, bisect_package
from converter.parity.points import aligned
from converter.registry import load_registry

FLAWED = Path(__file__).parent / "packages" / "converter-flawed"
DOCS = Path(__file__).parents[1] / "docs" / "plugins.md"

Flawed = Callable[..., tuple[Path, Path]]
# onnxsim rewrites graphs at this level: the modules of its nodes are mapped back.
SIMPLIFIED = ("--optimize", "extended")


@pytest.fixture(scope="module")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flawed]:
    """`flawed("scale")` -> a package made by a wrapper with that flaw, unproven, and its checkpoint."""

    def convert(flaw: str, *options: str) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp(flaw)
        checkpoint, package = folder / "checkpoint", folder / "package"
        source = load_registry().find("flawed").source
        source.write_tiny(checkpoint, like=flaw, seed=1, task="encoding")
        arguments = [
            "--model",
            checkpoint,
            "--output",
            package,
            "--parity",
            "off",
            "--external-data",
            "always",
            "--quiet",
            *options,
        ]
        assert run([str(argument) for argument in arguments]) == 0
        return package, checkpoint

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FLAWED)
        yield convert


def only(found: tuple[Divergence, ...]) -> Divergence:
    assert len(found) == 1
    return found[0]


def test_a_wrong_scale_is_found_between_the_projections_and_the_output(flawed: Flawed) -> None:
    package, checkpoint = flawed("scale")
    found = only(bisect_package(package, str(checkpoint)))
    assert found.module == "layers.1.attention"
    assert found.against == "original"
    assert str(found.point) == "what layers.1.attention.out is given"
    assert {f"layers.1.attention.{part}" for part in ("query", "key", "value")} <= set(found.sources)
    assert any("Softmax" in node for node in found.nodes)
    assert not found.parameters
    given = [line.partition(" [[")[0] for line in found.inputs]
    # The smallest size there is: of one token the scale does not show.
    assert given == ["input_ids int64 (1, 2)", "attention_mask int64 (1, 2)"]
    assert shown(found.lines()) == shown(documented("departs from the original"))


def documented(words: str) -> list[str]:
    """The lines of the block of docs/plugins.md in which these words are."""
    blocks = re.findall(r"^```text\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if words in block)
    return str(block).splitlines()


def shown(lines: Sequence[str]) -> list[str]:
    """Numbers differ from machine to machine, and the page leaves most nodes out."""
    plain = [re.sub(r"-?\d[\d.e+-]*", "0", line).rstrip() for line in lines]
    return [line.partition(":")[0] if line.startswith("  nodes") else line for line in plain]


def test_a_dropped_mask_is_found_at_a_padded_size_and_is_missed_among_the_sources(flawed: Flawed) -> None:
    package, checkpoint = flawed("mask", *SIMPLIFIED)
    found = only(bisect_package(package, str(checkpoint)))
    assert found.module == "layers.1.attention"
    assert found.size.endswith(("left", "right"))
    assert "attention_mask" not in found.sources


def test_a_transposed_weight_is_found_by_the_parameter_it_is(flawed: Flawed) -> None:
    package, checkpoint = flawed("transposed")
    found = only(bisect_package(package, str(checkpoint)))
    assert found.module == "layers.1.dense"
    assert set(found.parameters) == {"layers.1.dense.weight", "layers.1.dense.bias"}
    assert found.sources == ("layers.1.norm",)
    assert any("MatMul" in node for node in found.nodes)


def test_positions_off_by_one_are_found_where_the_table_is_asked(flawed: Flawed) -> None:
    package, checkpoint = flawed("position", *SIMPLIFIED)
    found = only(bisect_package(package, str(checkpoint)))
    assert str(found.point) == "what positions is given"
    assert found.point.max_abs == 1
    assert any("Range" in node for node in found.nodes)


def test_a_graph_that_was_broken_after_tracing_is_compared_with_its_wrapper(
    flawed: Flawed, capsys: pytest.CaptureFixture[str]
) -> None:
    package, checkpoint = flawed("none")
    assert run(["bisect", str(package), "--model", str(checkpoint), "--quiet"]) == 0

    model = onnx.load(package / "onnx" / "model.onnx")
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type = "Abs"
    onnx.save(model, package / "onnx" / "model.onnx")
    before = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run(["bisect", str(package), "--model", str(checkpoint), "--json"]) == 3
    (found,) = json.loads(capsys.readouterr().out)["divergences"]
    assert found["against"] == "wrapper"
    assert found["module"] == "layers.0"
    assert f"{node.name} (Abs)" in found["nodes"]
    assert {path: path.read_bytes() for path in package.rglob("*") if path.is_file()} == before

    assert run(["bisect", str(package), "--model", str(checkpoint)]) == 3
    said = capsys.readouterr().out
    assert "in layers.0: first wrong is what layers.0.final is given" in said
    assert "DIFFERS" in said


@pytest.mark.parametrize(
    ("found", "expected", "comparable"),
    [
        ((2, 3, 4), (6, 4), True),
        ((1, 3), (2, 3), True),
        ((3, 2), (2, 3), False),
        ((2, 2), (2, 3), False),
    ],
    ids=["packed", "repeated", "transposed", "another size"],
)
def test_values_compare_where_only_their_leading_axes_differ(
    found: tuple[int, ...], expected: tuple[int, ...], comparable: bool
) -> None:
    result = aligned(np.zeros(found), np.zeros(expected))
    assert (result is not None and result.shape == expected) is comparable


def test_indices_do_not_compare_with_numbers() -> None:
    assert aligned(np.zeros(3, np.int64), np.zeros(3, np.float32)) is None
