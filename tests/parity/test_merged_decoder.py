"""The merged decoder as clients call it: what comes with a first step as its past does not matter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from converter import Size, convert
from converter.checkpoint import open_checkpoint
from converter.precision.quantize import quantize_package
from converter.registry import load_registry

Array = np.ndarray[Any, Any]


pytestmark = pytest.mark.xdist_group("bart")


@pytest.fixture(scope="module")
def package(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bart") / "package"
    convert(model=tiny_checkpoint("bart"), output=folder, parity="off", external_data="always")
    return folder


@pytest.fixture(scope="module")
def session(package: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(package / "onnx" / "decoder_model_merged.onnx")


def run(session: onnxruntime.InferenceSession, ids: Array, past: Any, *, later: bool) -> dict[str, Array]:
    """One step; `past` is an array by name, or the length of a random one."""
    random = np.random.default_rng(0)
    feeds = {
        "input_ids": ids,
        "encoder_hidden_states": random.standard_normal((len(ids), 6, 36)).astype(np.float32),
        "encoder_attention_mask": np.ones((len(ids), 6), np.int64),
        "use_cache_branch": np.array([later]),
    }
    for given in session.get_inputs():
        if given.name.startswith("past_key_values."):
            shape = (len(ids), given.shape[1], past, given.shape[3]) if isinstance(past, int) else ()
            feeds[given.name] = (
                random.standard_normal(shape).astype(np.float32)
                if isinstance(past, int)
                else past[given.name.replace("past_key_values", "present")]
            )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_first_step_ignores_its_past_of_any_length(
    session: onnxruntime.InferenceSession, rows: int
) -> None:
    """optimum sends a dummy of length 1, transformers.js one of length 0."""
    ids = np.arange(3, 3 + 4 * rows).reshape(rows, 4)
    empty = run(session, ids, 0, later=False)
    for length in (1, 5):
        dummy = run(session, ids, length, later=False)
        for name, value in empty.items():
            np.testing.assert_allclose(dummy[name], value, atol=1e-6, err_msg=name)
    assert empty["present.0.decoder.key"].shape[2] == 4
    assert empty["present.0.encoder.key"].shape[2] == 6


def test_in_halves_too_a_first_step_ignores_its_past(package: Path, tmp_path: Path) -> None:
    """onnxruntime gives values whose sizes have one name the same memory: a past that was cut has another size."""
    halves = tmp_path / "package"
    shutil.copytree(package, halves)
    quantize_package(halves, ["fp16"], unjudged=True)
    session = onnxruntime.InferenceSession(halves / "onnx" / "decoder_model_merged_fp16.onnx")
    ids = np.arange(3, 7)[None]
    empty, dummy = (run(session, ids, length, later=False) for length in (0, 1))
    np.testing.assert_array_equal(dummy["logits"], empty["logits"])


def test_traced_in_halves_it_is_right_at_sizes_of_one(tmp_path: Path) -> None:
    """There the past is turned into halves before it is cut, and both have one name for their sizes at first."""
    report = convert(arch="t5", tiny=True, dtype="fp16", output=tmp_path / "package")
    least = "batch_size=1,decoder_sequence_length=1,past_decoder_sequence_length=0,encoder_sequence_length=1"
    assert least in {row.size for row in report.parity.comparisons if row.component == "decoder_model_merged"}


def test_two_steps_give_what_one_gives(session: onnxruntime.InferenceSession) -> None:
    ids = np.arange(3, 13).reshape(2, 5)
    whole = run(session, ids, 1, later=False)
    first = run(session, ids[:, :3], 1, later=False)
    then = run(session, ids[:, 3:], first, later=True)
    np.testing.assert_allclose(then["logits"], whole["logits"][:, 3:], atol=1e-5)
    np.testing.assert_array_equal(then["present.1.encoder.value"], first["present.1.encoder.value"])


def test_encoder_and_decoder_have_data_files_of_their_own_names(package: Path) -> None:
    """transformers.js fetches the file that carries the graph's name, and optimum reads no other."""
    names = sorted(path.name for path in (package / "onnx").iterdir())
    graphs = ["decoder_model_merged.onnx", "encoder_model.onnx"]
    assert names == sorted([*graphs, *(f"{name}_data" for name in graphs)])
    config = json.loads((package / "config.json").read_text())
    assert config["transformers.js_config"]["use_external_data_format"] == dict.fromkeys(graphs, 1)


def test_a_config_that_counts_more_layers_than_the_decoder_has(tiny_checkpoint: Callable[..., Path]) -> None:
    """Donut's decoder is half of an mBART whose config counts the encoder's layers too; its cache has empty ones."""
    architecture = load_registry().find("vision_encoder_decoder")
    checkpoint = open_checkpoint(tiny_checkpoint("vision_encoder_decoder"))
    config = architecture.source.config(checkpoint)
    config.decoder.num_hidden_layers = config.decoder.decoder_layers + 3
    task = "image-to-text-with-past"
    component = next(part for part in architecture.components(config, task) if "decoder" in part.stem)
    model: Any = architecture.source.skeleton(config, task)
    axes = {axis.name: axis.low for axis in component.axes} | {"past_decoder_sequence_length": 0}
    given = component.reference(model, component.inputs(Size(axes)).tensors)
    assert list(given) == [output.name for output in component.outputs]
