"""The retrieval wrappers against the untouched classes of transformers, in torch alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from converter import Architecture, Component, Size
from converter.parity.metrics import distance, parity_sizes
from converter.plugins import colpali, colqwen2
from converter.records import Tolerance
from converter.seeding import seed_weights
from converter.sources import merged

TASK = "feature-extraction"
PLUGINS = {"colqwen2": colqwen2, "colpali": colpali}
STEMS = ("text_model", "image_model", "model")
BOUND = Tolerance()


def architecture(name: str) -> Architecture:
    found: list[Architecture] = []
    PLUGINS[name].register_architectures(found.append)
    return found[0]


def tiny_config(name: str, **overrides: Any) -> Any:
    base = transformers.CONFIG_MAPPING[name]()
    source = PLUGINS[name].SOURCE
    tiny = {**source.tiny, "vlm_config": source.tinies[base.vlm_config.model_type]}
    return type(base).from_dict(merged(merged(base.to_dict(), tiny), overrides))


def build(config: Any) -> Any:
    model = getattr(transformers, architecture(config.model_type).source.classes[TASK])._from_config(config)
    seed_weights(model, 0)
    return model.eval()


@cache
def tiny_model(name: str) -> Any:
    return build(tiny_config(name))


def component(config: Any, stem: str) -> Component:
    parts = architecture(config.model_type).components(config, TASK)
    return next(part for part in parts if part.stem == stem)


@torch.no_grad()
def both(model: Any, part: Component, tensors: Mapping[str, torch.Tensor]) -> tuple[Any, Any]:
    """The embeddings of the original and those of the wrapper, each on inputs of its own."""
    copies = [{name: tensor.clone() for name, tensor in tensors.items()} for _ in range(2)]
    original = part.reference(model, copies[0])["embeddings"]
    wrapper = part.wrapper(model).eval()(**copies[1])
    return original.numpy(), wrapper.numpy()


def close(a: Any, b: Any) -> bool:
    max_abs, cosine = distance(a, b)
    return max_abs <= BOUND.max_abs and cosine >= BOUND.cosine


def check(model: Any, part: Component, size: Size) -> None:
    original, wrapper = both(model, part, part.inputs(size).tensors)
    assert np.isfinite(wrapper).all()
    assert close(original, wrapper), distance(original, wrapper)


def sizes_of(name: str, stem: str) -> list[Any]:
    axes = component(tiny_config(name), stem).axes
    sizes = [*parity_sizes(axes, 0), *parity_sizes(axes, 101)]
    return [pytest.param(name, stem, size, id=f"{name}-{stem}-{size.label}-{size.seed}") for size in sizes]


@pytest.mark.parametrize(
    ("name", "stem", "size"), [case for name in PLUGINS for stem in STEMS for case in sizes_of(name, stem)]
)
def test_wrapper_agrees_with_the_original(name: str, stem: str, size: Size) -> None:
    model = tiny_model(name)
    check(model, component(model.config, stem), size)


@pytest.mark.parametrize("name", PLUGINS)
def test_tiny_overrides_build_from_any_checkpoint_config(name: str) -> None:
    """Depth and per-layer lists come out as two layers, whatever depth the checkpoint had."""
    text = tiny_config(name).get_text_config()
    assert text.num_hidden_layers == 2
    assert len(getattr(text, "layer_types", None) or [0, 0]) == 2
    assert sum(p.numel() for p in tiny_model(name).parameters()) < 200_000


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("stem", STEMS)
def test_wrapper_holds_the_models_own_parameters_under_one_name_each(name: str, stem: str) -> None:
    model = tiny_model(name)
    wrapper = component(model.config, stem).wrapper(model)
    held = [id(p) for _, p in wrapper.named_parameters(remove_duplicate=False)]
    assert len(held) == len(set(held))
    assert set(held) <= {id(p) for p in model.parameters()}


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({"vision_config": {"spatial_merge_size": 3}}, id="merge-3"),
        pytest.param({"text_config": {"rope_parameters": {"mrope_section": [4, 1, 1]}}}, id="other-sections"),
        pytest.param(
            {"text_config": {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}},
            id="sliding-window",
        ),
        pytest.param(
            {"text_config": {"num_hidden_layers": 1}, "vision_config": {"depth": 3}}, id="other-depths"
        ),
    ],
)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_colqwen2_reads_its_geometry_from_the_config(overrides: dict[str, Any], padding: Any) -> None:
    config = tiny_config("colqwen2", vlm_config=overrides)
    size = Size({"batch_size": 3, "text_length": 6, "grid_height": 3, "grid_width": 2}, padding, 4)
    check(build(config), component(config, "model"), size)


def test_colpali_takes_an_image_token_outside_the_vocabulary() -> None:
    config = tiny_config("colpali", vlm_config={"image_token_index": 700})
    size = Size({"batch_size": 3, "text_length": 4}, "left", 1)
    check(build(config), component(config, "model"), size)


def test_colpali_text_attends_in_both_directions() -> None:
    """Where nothing is padded, the original does so even without the token types its processor adds."""
    model = tiny_model("colpali")
    part = component(model.config, "text_model")
    tensors = part.inputs(Size({"batch_size": 2, "sequence_length": 6})).tensors
    with torch.no_grad():
        plain = model(**tensors).embeddings.numpy()
    _, wrapper = both(model, part, tensors)
    assert close(plain, wrapper)


def neutral_image(
    config: Any, batch: int, patches: int, grid: tuple[int, int, int]
) -> dict[str, torch.Tensor]:
    vision = config.vlm_config.vision_config
    pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return {
        "pixel_values": torch.zeros(batch, patches, pixels),
        "image_grid_thw": torch.tensor([grid] * batch),
    }


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize(
    ("patches", "grid"),
    [
        pytest.param(4, (1, 2, 2), id="one-square-of-zeros"),
        pytest.param(0, (1, 2, 2), id="no-patches"),
        pytest.param(0, (1, 0, 0), id="no-patches-no-grid"),
    ],
)
@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_colqwen2_unified_serves_text_with_a_neutral_image(
    length: int, patches: int, grid: tuple[int, int, int], padding: Any
) -> None:
    model = tiny_model("colqwen2")
    unified = component(model.config, "model")
    size = Size({"batch_size": 3, "sequence_length": length}, padding, 2)
    tensors = component(model.config, "text_model").inputs(size).tensors
    tensors = {**tensors, **neutral_image(model.config, 3, patches, grid)}
    assert close(*both(model, unified, tensors))


@pytest.mark.parametrize("name", PLUGINS)
def test_embeddings_are_unit_vectors_and_zero_at_padding(name: str) -> None:
    model = tiny_model(name)
    part = component(model.config, "model")
    axes = {axis.name: axis.traced for axis in part.axes}
    tensors = part.inputs(Size({**axes, "batch_size": 4}, "left", 5)).tensors
    _, embeddings = both(model, part, tensors)
    lengths = np.linalg.norm(embeddings, axis=-1)
    assert np.allclose(lengths, tensors["attention_mask"].numpy(), atol=1e-6)


def misplaced(tensors: dict[str, torch.Tensor]) -> None:
    tensors["image_grid_thw"] = tensors["image_grid_thw"][:, [0, 2, 1]]


def unmasked(tensors: dict[str, torch.Tensor]) -> None:
    tensors["attention_mask"] = torch.ones_like(tensors["attention_mask"])


@pytest.mark.parametrize("spoil", [misplaced, unmasked])
def test_a_wrong_grid_or_mask_shows(spoil: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """What parity must catch moves the tiny model's output far past the bound."""
    model = tiny_model("colqwen2")
    part = component(model.config, "image_model")
    size = Size({"batch_size": 2, "text_length": 4, "grid_height": 1, "grid_width": 4}, "left")
    tensors = dict(part.inputs(size).tensors)
    wrapper = part.wrapper(model)
    with torch.no_grad():
        right = wrapper(**tensors)
        real = tensors["attention_mask"].bool()
        spoil(tensors)
        wrong = wrapper(**tensors)
    assert (right - wrong)[real].abs().max() > 100 * BOUND.max_abs


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("stem", STEMS)
def test_dummy_inputs_are_reproducible_and_vary_with_the_seed(name: str, stem: str) -> None:
    part = component(tiny_config(name), stem)
    axes = {axis.name: axis.traced for axis in part.axes}
    first, again, other = (part.inputs(Size(axes, "none", seed)).tensors for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["input_ids"], other["input_ids"])


def test_a_mixed_batch_has_rows_of_both_kinds() -> None:
    config = tiny_config("colqwen2")
    part = component(config, "model")
    axes = {axis.name: axis.traced for axis in part.axes}
    for seed in range(8):
        ids = part.inputs(Size(axes, "none", seed)).tensors["input_ids"]
        pages = (ids == config.vlm_config.image_token_id).any(dim=1)
        assert pages.any()
        assert not pages.all()


@pytest.mark.parametrize("name", PLUGINS)
def test_wrapper_runs_with_weights_on_disk(name: str, tmp_path: Any) -> None:
    """Weights are reached by calling the model's own modules, which is where offloading loads them."""
    import accelerate

    model = tiny_model(name)
    part = component(model.config, "model")
    tensors = part.inputs(Size({axis.name: axis.traced for axis in part.axes})).tensors
    expected, _ = both(model, part, tensors)
    offloaded = accelerate.disk_offload(
        copy.deepcopy(model), str(tmp_path), execution_device=torch.device("cpu")
    )
    for result in both(offloaded, part, tensors):
        assert close(expected, result)


def test_patch_convolution_opens_in_onnxruntime(tmp_path: Any) -> None:
    """onnxscript's own translation gives it a bias that onnxruntime refuses."""
    import onnxruntime

    embed = tiny_model("colqwen2").vlm.visual.patch_embed
    path = tmp_path / "embed.onnx"
    patches = torch.randn(5, 54)
    program = torch.onnx.export(
        embed,
        (patches,),
        input_names=["patches"],
        dynamic_shapes=({0: "patches"},),
        custom_translation_table=dict(architecture("colqwen2").translations()),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"patches": patches[:2].numpy()})
    with torch.no_grad():
        expected = embed(patches[:2]).numpy()
    assert close(expected, np.asarray(result))
