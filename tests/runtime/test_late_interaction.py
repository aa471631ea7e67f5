"""Pages and queries of a package to vectors and scores, compared with the graphs fed by hand."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from converter.errors import PackageError, UsageError
from converter.precision.quantize import quantize_package
from converter.runtime import LateInteraction, list_images
from converter.runtime.files import open_package
from converter.runtime.session import SessionSettings, open_session

pytestmark = pytest.mark.xdist_group("colqwen2")
Draw = Callable[..., Image.Image]
QUERIES = ["What is ONNX?", "net revenue", "", "net revenue"]
SIZES = [(20, 31), (30, 18), (20, 31), (6, 60)]


@pytest.fixture(scope="module")
def model(retrieval_package: Path) -> LateInteraction:
    return LateInteraction(retrieval_package)


@pytest.fixture
def pages(picture: Draw) -> list[Image.Image]:
    return [picture(height, width, seed) for seed, (height, width) in enumerate(SIZES)]


def by_hand(package: Path, stem: str, inputs: Any) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(package / f"onnx/{stem}.onnx"))
    wanted = {value.name for value in session.get_inputs()}
    (embeddings,) = session.run(None, {name: inputs[name].numpy() for name in wanted})
    return embeddings[inputs["attention_mask"].numpy().astype(bool)]


def test_queries_are_the_graph_after_transformers(
    model: LateInteraction, retrieval_package: Path, patches: Any
) -> None:
    made = model.encode_queries(QUERIES, batch_size=2)
    for query, vectors in zip(QUERIES, made, strict=True):
        expected = by_hand(retrieval_package, "text_model", patches(text=[query]))
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_pages_are_the_graph_after_transformers(
    model: LateInteraction, retrieval_package: Path, patches: Any, pages: list[Image.Image]
) -> None:
    made = model.encode_images(pages)
    for page, vectors in zip(pages, made, strict=True):
        expected = by_hand(retrieval_package, "image_model", patches(images=[page]))
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_paths_and_folders_give_the_same_as_images(
    model: LateInteraction, pages: list[Image.Image], tmp_path: Path
) -> None:
    for index, page in enumerate(pages):
        page.save(tmp_path / f"{index}.png")
    (tmp_path / "readme.txt").write_text("no image")
    from_images = model.encode_images(pages)
    assert [path.name for path in list_images(tmp_path)] == ["0.png", "1.png", "2.png", "3.png"]
    for other in (model.encode_images(tmp_path), model.encode_images(list_images(tmp_path), batch_size=1)):
        for ours, expected in zip(other, from_images, strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_the_best_page_of_each_query_is_found(model: LateInteraction, pages: list[Image.Image]) -> None:
    queries, vectors = model.encode_queries(QUERIES), model.encode_images(pages)
    scores = model.score(queries, vectors)
    best, numbers = model.top_k(queries, vectors, k=2)
    assert scores.shape == (4, 4) and best.shape == numbers.shape == (4, 2)
    np.testing.assert_array_equal(best[:, 0], scores.max(axis=1))
    np.testing.assert_array_equal(numbers[1], numbers[3])


def test_a_package_with_only_the_unified_graph_serves_both(
    model: LateInteraction, retrieval_package: Path, pages: list[Image.Image], tmp_path: Path
) -> None:
    package = tmp_path / "package"
    shutil.copytree(retrieval_package, package)
    for stem in ("text_model", "image_model"):
        (package / f"onnx/{stem}.onnx").unlink()
    (package / "converter.json").unlink()
    unified = LateInteraction(package)
    for ours, expected in zip(unified.encode_queries(QUERIES), model.encode_queries(QUERIES), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    for ours, expected in zip(unified.encode_images(pages), model.encode_images(pages), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_pickled_copy_gives_the_same(model: LateInteraction) -> None:
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.encode_queries(["a"])[0], model.encode_queries(["a"])[0])


def test_nothing_to_encode_gives_nothing(model: LateInteraction) -> None:
    assert model.encode_queries([]) == []
    assert model.encode_images([]) == []


def test_a_bad_image_among_good_ones_is_named_before_any_is_run(
    model: LateInteraction, pages: list[Image.Image], tmp_path: Path
) -> None:
    (tmp_path / "page.png").write_text("no image")
    with pytest.raises(UsageError, match=r"image 1 .*page\.png"):
        model.encode_images([pages[0], tmp_path / "page.png"])


def test_an_image_too_long_for_the_model_is_named(model: LateInteraction, picture: Draw) -> None:
    with pytest.raises(UsageError, match=r"image 0 .*200 times"):
        model.encode_images([picture(1, 201)])


def test_a_page_with_more_tokens_than_the_model_takes_is_refused(
    retrieval_package: Path, picture: Draw, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    shutil.copytree(retrieval_package, package)
    settings = (package / "processor_config.json").read_text()
    (package / "processor_config.json").write_text(settings.replace("1440", "144000"))
    with pytest.raises(UsageError, match="the model takes 512"):
        LateInteraction(package).encode_images([picture(200, 200)])


def test_pages_in_tiles_are_refused_and_queries_beside_them(
    model: LateInteraction, monkeypatch: pytest.MonkeyPatch, retrieval_package: Path
) -> None:
    """ColSmol and ColModernVBERT: their processors cut pages, and end queries in other tokens."""
    tiled = LateInteraction(retrieval_package)
    monkeypatch.setitem(vars(tiled), "_image", SimpleNamespace(inputs=("input_ids", "pixel_attention_mask")))
    for refused in (
        lambda: tiled.encode_queries(["a"]),
        lambda: tiled.encode_images([Image.new("RGB", (9, 9))]),
    ):
        with pytest.raises(PackageError, match="cut into tiles"):
            refused()


def test_one_query_without_a_list_is_refused(model: LateInteraction) -> None:
    with pytest.raises(UsageError, match="list"):
        model.encode_queries("What is ONNX?")


def test_a_lost_data_file_is_named(retrieval_package: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(retrieval_package, package)
    (package / "onnx/model.onnx_data").unlink()
    with pytest.raises(PackageError, match=r"no onnx/model\.onnx_data"):
        LateInteraction(package).encode_queries(["a"])


def test_weights_of_large_data_files_are_not_packed(
    retrieval_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, setting = open_package(retrieval_package), "session.disable_prepacking"
    small = open_session(files, "onnx/text_model.onnx", SessionSettings()).get_session_options()
    with pytest.raises(RuntimeError, match=setting):
        small.get_session_config_entry(setting)
    monkeypatch.setattr("converter.runtime.session.PREPACK_LIMIT", 1000)
    large = open_session(files, "onnx/text_model.onnx", SessionSettings()).get_session_options()
    assert large.get_session_config_entry(setting) == "1"


def test_a_package_without_a_tokenizer_says_so(colqwen2_package: Path) -> None:
    with pytest.raises(PackageError, match=r"tokenizer\.json"):
        LateInteraction(colqwen2_package).encode_queries(["a"])


def test_mistakes_show_on_opening(retrieval_package: Path) -> None:
    with pytest.raises(UsageError, match="no precision 'q8'; it has fp32"):
        LateInteraction(retrieval_package, precision="q8")


@pytest.mark.coverage
def test_precisions_are_judged_on_pages_that_are_given_and_on_no_texts(
    retrieval_package: Path, pages: list[Image.Image], tmp_path: Path
) -> None:
    """Texts to calibrate on and pages to judge by were passed over, and so was a number too large."""
    folder, texts = tmp_path / "pages", tmp_path / "texts.txt"
    folder.mkdir()
    texts.write_text("a text\n")
    for number, page in enumerate(pages):
        page.save(folder / f"{number}.png")
    refused = {"calibration": str(texts), "evaluation": str(texts), "num_samples": 51}
    for name, value in refused.items():
        with pytest.raises(UsageError, match=r"this model takes images|50 calibration samples are there"):
            quantize_package(retrieval_package, ["int8"], output=tmp_path / "p", **{name: value})
    other = shutil.copytree(folder, tmp_path / "other pages")
    given = {"calibration": str(folder), "evaluation": str(other), "static": "minmax"}
    (row,) = quantize_package(retrieval_package, ["int8"], output=tmp_path / "p", **given).rows
    assert row.calibration is not None
    assert row.calibration["samples"] == len(pages)
    assert row.quality is not None
    assert row.quality.samples == 159, "every sentence asks for one of them"
