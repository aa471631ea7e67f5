"""Queries and pages are prepared without transformers, and come out as transformers' processors make them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converter.errors import PackageError, UsageError
from converter.runtime.files import open_package
from converter.runtime.images import nearest_grid, open_image, read_pixels
from converter.runtime.prompts import Processor

Draw = Callable[..., Image.Image]
QUERIES = ["What is ONNX?", "", "Überschuss 2024: \n  über <|im_end|> 5 %", "a " * 40]
MODES = ["RGB", "RGBA", "L", "LA", "P", "CMYK"]


def processor_in(folder: Path, reference: Any, model: dict[str, Any] | None = None) -> Processor:
    reference.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(model or {}))
    return Processor(open_package(folder), patches=hasattr(reference.image_processor, "merge_size"))


@pytest.fixture
def ours(patches: Any, tmp_path: Path) -> Processor:
    return processor_in(tmp_path, patches)


@pytest.mark.parametrize("kind", ["patches", "fixed"])
def test_queries_are_the_same_tokens_on_the_same_side(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    reference = request.getfixturevalue(kind)
    processor = processor_in(tmp_path, reference)
    expected = reference(text=QUERIES)
    made = processor.pad(processor.queries(QUERIES))
    np.testing.assert_array_equal(made["input_ids"], expected["input_ids"])
    np.testing.assert_array_equal(made["attention_mask"], expected["attention_mask"])


def test_colpali_engine_lays_texts_out_in_its_own_way(tmp_path: Path, fixed: Any) -> None:
    """As `ColPaliProcessor` of colpali-engine 0.3.18 gives them to PaliGemma's tokenizer and processor."""
    for part in (fixed.tokenizer, fixed.image_processor):  # its processors record no prefixes
        part.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"vision_config": {"image_size": 21, "patch_size": 7}}')
    processor = Processor(open_package(tmp_path), patches=False)
    tokens = lambda text: fixed.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    assert processor.queries(["net revenue"]) == [tokens("<bos>net revenue" + "<pad>" * 10)]
    assert processor.page((21, 21)) == tokens("<image>" * 9 + "<bos><bos>Describe the image.\n")


@pytest.mark.parametrize(
    ("height", "width"), [(20, 31), (6, 6), (1, 1), (5, 300), (90, 61), (36, 40), (7, 9)], ids=str
)
def test_pages_of_any_shape_are_the_same_patches(
    ours: Processor, patches: Any, picture: Draw, height: int, width: int
) -> None:
    page = picture(height, width)
    expected = patches(images=[page])
    target = ours.layout.target((height, width))
    tensors = ours.layout.tensors([page], target)
    np.testing.assert_allclose(tensors["pixel_values"], expected["pixel_values"], atol=1e-6)
    np.testing.assert_array_equal(tensors["image_grid_thw"], expected["image_grid_thw"])
    np.testing.assert_array_equal([ours.page(target)], expected["input_ids"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["patches", "fixed"])
def test_colours_and_transparency_are_read_the_same(
    kind: str, mode: str, tmp_path: Path, picture: Draw, request: pytest.FixtureRequest
) -> None:
    reference = request.getfixturevalue(kind)
    processor = processor_in(tmp_path, reference)
    page = picture(30, 24, mode=mode) if mode != "CMYK" else picture(30, 24).convert(mode)
    target = processor.layout.target((30, 24))
    tensors = processor.layout.tensors([page], target)
    expected = reference(images=[page])
    np.testing.assert_allclose(tensors["pixel_values"], expected["pixel_values"], atol=1e-6)
    np.testing.assert_array_equal([processor.page(target)], expected["input_ids"])


def test_the_published_sizes_give_the_published_grids() -> None:
    """Pages of 28 x 28 squares: an A4 scan, and a thumbnail that is enlarged."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    draw = np.random.default_rng(0)
    for height, width in draw.integers(1, 4000, (500, 2)).tolist():
        if max(height, width) <= 200 * min(height, width):
            expected = smart_resize(height, width, 28, 3136, 602112)
            assert nearest_grid((height, width), 28, 3136, 602112) == expected


def test_older_packages_keep_image_settings_in_a_file_of_their_own(patches: Any, tmp_path: Path) -> None:
    """`preprocessor_config.json` with `min_pixels` and `max_pixels`, as transformers 4 wrote it."""
    processor_in(tmp_path, patches)
    (tmp_path / "processor_config.json").unlink()
    old = {"patch_size": 3, "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 144, "max_pixels": 360}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    processor = Processor(open_package(tmp_path), patches=True)
    height, width = processor.layout.target((100, 100))
    assert 144 <= height * width <= 360


def test_a_photograph_is_turned_upright(tmp_path: Path, picture: Draw) -> None:
    page = picture(8, 20)
    tags = Image.Exif()
    tags[0x0112] = 6  # turned by a quarter
    page.save(tmp_path / "turned.png", exif=tags)
    assert open_image(tmp_path / "turned.png", 0).size == (8, 20)
    assert page.size == (20, 8)


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not an image")
    with pytest.raises(UsageError, match=r"image 3 .*notes\.png"):
        open_image(tmp_path / "notes.png", 3)


def test_an_image_that_breaks_off_is_named(tmp_path: Path, picture: Draw) -> None:
    path = tmp_path / "half.png"
    picture(64, 64).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError, match=r"half\.png"):
        read_pixels(path, 0)


def test_a_query_longer_than_the_model_takes_is_refused(patches: Any, tmp_path: Path) -> None:
    model = {"vlm_config": {"text_config": {"max_position_embeddings": 100}, "image_token_id": 593}}
    processor = processor_in(tmp_path, patches, model)
    with pytest.raises(UsageError, match=r"query 1 has .* tokens, the model takes 100"):
        processor.queries(["short", "long " * 50])


def test_a_tokenizer_of_another_model_is_refused(patches: Any, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="image_pad"):
        processor_in(tmp_path, patches, {"vlm_config": {"image_token_id": 12}})


def test_a_missing_tokenizer_is_named(patches: Any, tmp_path: Path) -> None:
    processor_in(tmp_path, patches)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(PackageError, match=r"tokenizer\.json"):
        Processor(open_package(tmp_path), patches=True)
