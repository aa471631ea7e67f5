"""Texts to token ids, with the `tokenizers` library alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.errors import PackageError, UsageError
from converter.runtime.files import PackageFiles
from converter.runtime.session import Array

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# transformers writes a number near 1e30 where a tokenizer knows no maximum.
_NO_LIMIT = 10**9


class TextTokenizer:
    """The tokenizer of a package: ids of a text, and rows padded to one length."""

    def __init__(self, files: PackageFiles) -> None:
        self.folder = files.folder
        self.config = {
            **files.read_object("special_tokens_map.json"),
            **files.read_object("tokenizer_config.json"),
        }
        self.model = files.read_object("config.json")
        self.tokenizer = _load(files)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.left = self.config.get("padding_side") == "left"
        self.pad_id = self._pad_id()

    def _pad_id(self) -> int:
        token = self.token("pad_token")
        number = self.tokenizer.token_to_id(token) if token else self.model.get("pad_token_id")
        return number if isinstance(number, int) else 0

    def token(self, role: str) -> str | None:
        """The text of a special token such as `pad_token`, as tokenizer_config.json has it."""
        places = [
            self.config,
            self.config.get("extra_special_tokens"),
            self.config.get("model_specific_special_tokens"),
        ]
        values = [place.get(role) for place in places if isinstance(place, Mapping)]
        value = next((value for value in values if value), None)
        content = value.get("content") if isinstance(value, Mapping) else value
        return content if isinstance(content, str) else None

    @property
    def maximum(self) -> int | None:
        """The most tokens the tokenizer's and the model's config allow; None where neither says."""
        limits = (self.config.get("model_max_length"), self.model.get("max_position_embeddings"))
        known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < _NO_LIMIT]
        return min(known, default=None)

    def truncate_at(self, maximum: int | None) -> None:
        """Cut texts from now on at so many tokens, the special ones among them."""
        if maximum is None:
            return
        try:
            self.tokenizer.enable_truncation(maximum)
        except Exception as error:  # a bare Exception is what the library raises
            raise UsageError(f"texts cannot be cut at {maximum} tokens: {error}") from error

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[Encoding]:
        """One encoding a text, unpadded; with `special`, what the tokenizer adds around a text is added."""
        encodings: list[Encoding] = self.tokenizer.encode_batch(list(texts), add_special_tokens=special)
        return encodings

    def leading(self, prompt: str) -> int:
        """The tokens that a prompt puts in front of any text, as sentence-transformers counts them.

        A special token at the end is the text's. 0 without a prompt.
        """
        if not prompt:
            return 0
        ids = self.encode([prompt])[0].ids
        last = self.tokenizer.get_added_tokens_decoder().get(ids[-1]) if ids else None
        return len(ids) - int(last is not None and last.special)

    def pad(self, rows: Sequence[Sequence[int]]) -> dict[str, Array]:
        """`input_ids` and `attention_mask`, int64 (batch, longest), padded on the tokenizer's side."""
        mask = self.spread([[1] * len(row) for row in rows], 0)
        return {"input_ids": self.spread(rows, self.pad_id), "attention_mask": mask}

    def spread(self, rows: Sequence[Sequence[int]], fill: int) -> Array:
        """Rows of different lengths in one int64 array; never narrower than one column."""
        width = max([1, *map(len, rows)])
        table = np.full((len(rows), width), fill, dtype=np.int64)
        for line, row in zip(table, rows, strict=True):
            line[width - len(row) if self.left else 0 :][: len(row)] = row
        return table


def _load(files: PackageFiles) -> Tokenizer:
    from tokenizers import Tokenizer

    path = files.require("tokenizer.json", purpose="turning text into tokens")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # a bare Exception is what the library raises
        raise PackageError(
            f"{path} is not a tokenizer file: {error}", remedy="copy the package again"
        ) from error


def check_texts(texts: Sequence[Any]) -> list[str]:
    """The texts as a list of str. Raises UsageError naming the first that is something else."""
    if isinstance(texts, str | bytes):
        raise UsageError("one text was given where a list of texts is wanted", remedy="put it in a list")
    if not isinstance(texts, Iterable):
        raise UsageError(f"{texts!r:.60} is no list of texts", remedy="give a list of str")
    listed = list(texts)
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            raise UsageError(f"text {index} is of type {type(text).__name__}, not str: {text!r:.60}")
        if not text.isascii():
            _check_characters(index, text)
    return [str(text) for text in listed]


def _check_characters(index: int, text: str) -> None:
    """Half of a surrogate pair is no character; the tokenizer's own error names neither it nor the text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"text {index} has {text[error.start]!r} at {error.start}, which is half of a character",
            remedy="read it with the encoding it was written in, or text.encode(errors='replace').decode()",
        ) from error
