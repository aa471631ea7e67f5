"""Small processors of transformers, with tokenizers made on the spot: the reference for ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from converter.runtime import Encoder

CHAT_TOKENS = {
    "<|endoftext|>": 588,
    "<|im_start|>": 589,
    "<|im_end|>": 590,
    "<|vision_start|>": 591,
    "<|vision_end|>": 592,
    "<|image_pad|>": 593,
}
FIXED_TOKENS = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<image>": 593}


def byte_tokenizer(special: dict[str, int]) -> Tokenizer:
    """Every byte is a token, wherever the special ones leave room in a vocabulary without gaps."""
    free = [number for number in range(601) if number not in special.values()]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters += [f"<unused{number}>" for number in free[len(letters) :]]
    vocabulary = {**dict(zip(letters, free, strict=True)), **special}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def patch_processor(*, patch_size: int = 3, most: int = 36 * 40) -> Any:
    """Pages of any grid, cut into patches."""
    from transformers import ColQwen2Processor, PreTrainedTokenizerFast
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(CHAT_TOKENS),
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        padding_side="left",
        extra_special_tokens={"image_token": "<|image_pad|>"},
    )
    images = Qwen2VLImageProcessorPil(patch_size=patch_size, min_pixels=36 * 4, max_pixels=most)
    return ColQwen2Processor(images, tokenizer)


def fixed_processor() -> Any:
    """Pages of one size, 21 x 21 pixels in 9 patches."""
    from transformers import ColPaliProcessor, PreTrainedTokenizerFast
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    backend = byte_tokenizer(FIXED_TOKENS)
    backend.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        extra_special_tokens={"image_token": "<image>"},
    )
    images = SiglipImageProcessorPil(size={"height": 21, "width": 21}, image_seq_length=9)
    return ColPaliProcessor(images, tokenizer)


@pytest.fixture(scope="session")
def encoder(minilm_package: Path) -> Encoder:
    """MiniLM's, with every setting as it is by default."""
    return Encoder(minilm_package)


@pytest.fixture
def copy(minilm_package: Path, tmp_path: Path) -> Path:
    """MiniLM's package, to be spoilt; its files are links, to be replaced and not written to."""
    package = tmp_path / "package"
    shutil.copytree(minilm_package, package, copy_function=os.link)
    return package


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    """`picture(height, width, seed=0, mode="RGB")`: noise over a gradient, so that resampling shows."""

    def draw(height: int, width: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
        noise = np.random.default_rng(seed).integers(0, 55, (height, width, 4))
        ramp = np.linspace(0, 200, height * width).reshape(height, width, 1)
        return Image.fromarray((ramp + noise).astype(np.uint8), "RGBA").convert(mode)

    return draw


@pytest.fixture(scope="session")
def patches() -> Any:
    """The reference processor of pages of any grid."""
    return patch_processor()


@pytest.fixture(scope="session")
def fixed() -> Any:
    """The reference processor of pages of one size."""
    return fixed_processor()


@pytest.fixture(scope="session")
def retrieval_package(colqwen2_package: Path, patches: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny ColQwen2 package with the tokenizer and processor a real checkpoint brings."""
    package = tmp_path_factory.mktemp("retrieval") / "package"
    shutil.copytree(colqwen2_package, package)
    patches.save_pretrained(package)
    return package
