"""Vision-language models as clients run them: three graphs, greedy decoding, against the untouched `generate`.

Each row of a batch has a prompt of its own length around an image, padded on the left. The graphs are fed as
transformers.js feeds them: features where the image tokens stand, positions counted outside, keys and values back in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter import Size, convert
from converter.bench.benchmark import bench
from converter.checkpoint import open_checkpoint
from converter.parity.play import Played, play_graphs, play_original
from converter.parity.runners import run_original
from converter.registry import load_registry

Checkpoints = Callable[..., Path]
TASK = "image-text-to-text"
# Images of one size, and windows over images of any size; tiles and what sees as one of these does come later.
CHOSEN = ("gemma3", "qwen2_5_vl")
OTHERS = (
    "idefics3",
    "qwen3_vl",
    "smolvlm",
    "llava",
    "llava_next",
    "llava_onevision",
    "paligemma",
    "got_ocr2",
    "internvl",
)
MODELS = [*CHOSEN, *(pytest.param(name, marks=pytest.mark.coverage) for name in OTHERS)]


@pytest.mark.parametrize("name", MODELS)
def test_greedy_decoding_is_that_of_generate(name: str, tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    report = convert(model=tiny_checkpoint(name), output=tmp_path / "package", parity="full")
    assert (report.task, report.parity.proven) == (TASK, True)
    (tokens,) = [row for row in report.parity.comparisons if row.output == "tokens"]
    assert tokens.size == "greedy generation from images: 2 rows, 32 tokens"


@pytest.fixture(scope="module")
def seen_package(tiny_checkpoint: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2-VL, whose images have grids of their own."""
    package = tmp_path_factory.mktemp("seen") / "package"
    convert(model=tiny_checkpoint("qwen2_vl"), output=package, parity="off")
    return package


@pytest.fixture(scope="module")
def seen(tiny_checkpoint: Checkpoints, seen_package: Path) -> tuple[Played, Path]:
    """Its tokens, and its graphs."""
    folder = tiny_checkpoint("qwen2_vl")
    architecture, checkpoint = load_registry().find("qwen2_vl"), open_checkpoint(folder)
    (scenario,) = architecture.scenarios(architecture.source.config(checkpoint), TASK)
    model = architecture.source.original(checkpoint, TASK, None)
    return play_original(model, scenario, seed=3, steps=32), seen_package / "onnx"


def test_prompts_of_different_lengths_and_images_give_the_tokens_of_the_original(
    seen: tuple[Played, Path],
) -> None:
    played, graphs = seen
    assert play_graphs(played, graphs, "cpu").passed
    assert len(set(played.prompt["attention_mask"].sum(axis=1))) == 2
    assert len({tuple(grid) for grid in played.prompt["grid_thw"]}) == 2
    # The image's features, the first chunk of the prompt and the second, after the ids' embeddings.
    stems = [call.stem for call in played.scenario.opening]
    assert stems == ["vision_encoder", "embed_tokens", *["decoder_model_merged"] * 2]
    assert len({tuple(tokens) for tokens in played.tokens}) == 2


def test_another_image_and_other_positions_show(seen: tuple[Played, Path]) -> None:
    played, graphs = seen
    negative = {**played.prompt, "pixel_values": -np.asarray(played.prompt["pixel_values"])}
    assert not play_graphs(replace(played, prompt=negative), graphs, "cpu").passed
    positions = np.asarray(played.prompt["position_ids"])
    only_time = {**played.prompt, "position_ids": np.broadcast_to(positions[:1], positions.shape)}
    assert not play_graphs(replace(played, prompt=only_time), graphs, "cpu").passed


def test_the_benchmark_times_the_three_graphs_as_one_model(
    tiny_checkpoint: Checkpoints, seen_package: Path, in_this_process: None
) -> None:
    measured = bench(seen_package, str(tiny_checkpoint("qwen2_vl")), repeats=1, new_tokens=6, threads=1)
    assert [entry.name for entry in measured.contenders] == ["torch", "fp32"]
    assert "greedy generation from images" in measured.load
    for entry in measured.contenders:
        assert set(entry.figures) == {"first token", "tokens/s"}
        assert entry.agreement == 1, "the same model chooses the same tokens"


def test_prompts_hold_none_of_several_tokens_that_end_a_text(tiny_checkpoint: Checkpoints) -> None:
    """As published: Gemma 3's config.json has a list where others have a number."""
    architecture, checkpoint = load_registry().find("gemma3"), open_checkpoint(tiny_checkpoint("gemma3"))
    config = architecture.source.config(checkpoint)
    config.eos_token_id = ends = list(range(3, 300))
    (scenario,) = architecture.scenarios(config, TASK)
    assert not np.isin(np.asarray(scenario.prompt(3)["input_ids"]), ends).any()


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
def test_grids_of_tiles_are_packed_as_the_original_packs_them(
    name: str, tiny_checkpoint: Checkpoints
) -> None:
    """Images wide, tall, square and tiny: the best grid, its padding, newlines, and what is made smaller."""
    architecture, checkpoint = load_registry().find(name), open_checkpoint(tiny_checkpoint(name))
    model = architecture.source.original(checkpoint, TASK, None)
    (vision, *_) = architecture.components(architecture.source.config(checkpoint), TASK)
    sizes = [Size({"num_images": 1 + seed % 3}, seed=seed) for seed in range(9)]
    tiles = set()
    for result in run_original(model, vision, sizes):
        tiles.add(result.feed["pixel_values"].shape[1])
        want, found = result.original["image_features"], result.wrapper["image_features"]
        assert want.shape == found.shape
        np.testing.assert_allclose(found, want, atol=1e-4)
    assert len(tiles) > 1
