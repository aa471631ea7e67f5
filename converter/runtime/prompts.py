"""What stands around a query and around a page, read from the files of a package.

Conventions are told apart by what the image graph takes, patches of any grid or one fixed size, and by whose the
checkpoint is: transformers' processors for late interaction, or those of the library that trained the models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converter.errors import PackageError, UsageError
from converter.runtime.files import PackageFiles
from converter.runtime.images import FixedSize, PatchLayout, Size
from converter.runtime.session import Array
from converter.runtime.tokens import TextTokenizer

AUGMENTATION = 10  # padding tokens after a query, which the model uses as further vectors
CHAT_PREFIX = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>"
)


@dataclass(frozen=True)
class Convention:
    """Default texts, and whether they are laid out as a chat or as a prefix after the image tokens.

    query_end   after the padding tokens that end a query
    page_bos    opening tokens between the image tokens and the prompt, where that is no chat
    """

    chat: bool
    image_token: str
    query_prefix: str
    page_prompt: str
    query_end: str = "\n"
    page_bos: int = 1


PATCHES = Convention(True, "<|image_pad|>", "Query: ", CHAT_PREFIX)
FIXED = Convention(False, "<image>", "Question: ", "Describe the image.")
# colpali-engine 0.3.18: `process_queries` adds no prefix, and PaliGemma's processor opens an open prompt once more.
ENGINE_PATCHES = replace(PATCHES, query_prefix="", query_end="")
ENGINE_FIXED = replace(FIXED, query_prefix="", query_end="", page_bos=2)


def _convention(model: Mapping[str, Any], *, patches: bool) -> Convention:
    """transformers keeps the vision-language model's config in `vlm_config`; the training library has nothing else."""
    if "vision_config" in model and "vlm_config" not in model:
        return ENGINE_PATCHES if patches else ENGINE_FIXED
    return PATCHES if patches else FIXED


class Processor:
    """Queries and images of a package as the tensors its graphs take."""

    def __init__(self, files: PackageFiles, *, patches: bool, query_prefix: str | None = None) -> None:
        self._tokens = TextTokenizer(files)
        self._files = files
        self._convention = _convention(self._tokens.model, patches=patches)
        config = files.read_object("processor_config.json")
        images = config.get("image_processor") or files.read_object("preprocessor_config.json")
        model = self._tokens.model
        self._vlm: Mapping[str, Any] = model.get("vlm_config") or model
        vision = self._vlm.get("vision_config") or {}
        self.layout = PatchLayout.read(images) if patches else FixedSize.read(images, vision)
        recorded = config.get("query_prefix") or self._convention.query_prefix
        self._prefix = recorded if query_prefix is None else query_prefix
        self._page_prompt = config.get("visual_prompt_prefix") or self._convention.page_prompt
        self._pad = self._special("pad_token")
        self._bos = "" if patches else self._special("bos_token")
        self.image_token = self._tokens.token("image_token") or self._convention.image_token
        self.image_id = self._image_id()
        self._page: list[int] | None = None

    def _special(self, role: str) -> str:
        token = self._tokens.token(role)
        if token is None or self._tokens.tokenizer.token_to_id(token) is None:
            raise PackageError(
                f"the tokenizer of {self._files.folder} names no {role}",
                remedy="copy tokenizer.json and tokenizer_config.json from the model's repository",
            )
        return token

    def _image_id(self) -> int:
        """Raises PackageError where tokenizer and model do not mean the same token."""
        number = self._tokens.tokenizer.token_to_id(self.image_token)
        expected = self._vlm.get("image_token_id", self._vlm.get("image_token_index"))
        if number is None or expected not in (None, number):
            raise PackageError(
                f"the tokenizer of {self._files.folder} has {self.image_token} at {number},"
                f" the model has it at {expected}",
                remedy="copy the tokenizer's files from the model's repository",
            )
        return int(number)

    @property
    def maximum(self) -> int | None:
        """The positions the text tower has."""
        text = self._vlm.get("text_config") or {}
        limit = text.get("max_position_embeddings")
        return limit if isinstance(limit, int) else None

    def queries(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each query. Raises UsageError for one longer than the model takes: nothing is cut."""
        end = self._pad * AUGMENTATION + self._convention.query_end
        full = [f"{self._bos}{self._prefix}{text}{end}" for text in texts]
        rows = [encoding.ids for encoding in self._tokens.encode(full, special=self._convention.chat)]
        for index, row in enumerate(rows):
            self._check(len(row), f"query {index}")
        return rows

    def page(self, target: Size) -> list[int]:
        """Token ids of a page whose image is brought to that size."""
        if self._page is None:
            prompt = self._page_prompt
            if not self._convention.chat:
                prompt = f"{self.image_token}{self._bos * self._convention.page_bos}{prompt}\n"
            self._page = self._tokens.encode([prompt], special=self._convention.chat)[0].ids
        count = self.layout.tokens(target)
        row = [copy for number in self._page for copy in [number] * (count if number == self.image_id else 1)]
        self._check(len(row), f"a page of {target[1]} x {target[0]} pixels")
        return row

    def pad(self, rows: Sequence[Sequence[int]]) -> dict[str, Array]:
        """`input_ids` and `attention_mask`, int64 (batch, longest)."""
        return self._tokens.pad(rows)

    def _check(self, length: int, what: str) -> None:
        if self.maximum is not None and length > self.maximum:
            raise UsageError(
                f"{what} has {length} tokens, the model takes {self.maximum}", remedy="shorten or split it"
            )
