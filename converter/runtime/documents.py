"""Queries and documents of ColBERT: markers, expansion and what is left out, as its libraries have them.

PyLate writes its settings into config_sentence_transformers.json; ColBERT's own checkpoints have them in
artifact.metadata, or not at all, and mark texts with two tokens that BERT left unused. sentence-transformers has
prompts for markers, which may be empty, and the rest with its modules.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.errors import PackageError
from converter.runtime.files import PackageFiles
from converter.runtime.session import Array
from converter.runtime.tokens import TextTokenizer

PYLATE, OWN = "config_sentence_transformers.json", "artifact.metadata"


@dataclass(frozen=True)
class Convention:
    """Markers follow a text's first token; lengths count all tokens; `skipped` have no vectors in documents.

    A marker may be empty, and so may the token that queries are filled up with: then it is the mask token.
    """

    query_marker: str = "[unused0]"
    document_marker: str = "[unused1]"
    query_length: int = 32
    document_length: int = 180
    expand: bool = True
    attend: bool = False
    skipped: tuple[str, ...] = tuple(string.punctuation)
    filler: str = ""

    @staticmethod
    def read(files: PackageFiles) -> Convention:
        """What the package says: its modules' or PyLate's settings, ColBERT's own, or the defaults of ColBERTv2."""
        for entry in files.read_json("modules.json") or []:
            if str(entry["type"]).endswith(".MultiVectorMask"):
                return _of_modules(files, files.read_object(f"{entry['path']}/config.json"))
        pylate, own = files.read_object(PYLATE), files.read_object(OWN)
        if "query_prefix" in pylate or "query_length" in pylate:
            return _of_pylate(pylate)
        known = Convention()
        return Convention(
            query_marker=own.get("query_token_id", known.query_marker),
            document_marker=own.get("doc_token_id", known.document_marker),
            query_length=own.get("query_maxlen", known.query_length),
            document_length=own.get("doc_maxlen", known.document_length),
            attend=bool(own.get("attend_to_mask_tokens", known.attend)),
            skipped=known.skipped if own.get("mask_punctuation", True) else (),
        )


def _of_pylate(config: Mapping[str, Any]) -> Convention:
    skipped = config.get("skiplist_words")
    return Convention(
        query_marker=config.get("query_prefix") or "[Q] ",
        document_marker=config.get("document_prefix") or "[D] ",
        query_length=config.get("query_length") or 32,
        document_length=config.get("document_length") or 180,
        expand=config.get("do_query_expansion", True) is not False,
        attend=bool(config.get("attend_to_expansion_tokens")),
        skipped=tuple(string.punctuation) if skipped is None else tuple(skipped),
    )


def _of_modules(files: PackageFiles, mask: Mapping[str, Any]) -> Convention:
    """Of a MultiVectorEncoder of sentence-transformers."""
    settings = files.read_object("sentence_bert_config.json")
    prompts = files.read_object(PYLATE).get("prompts") or {}
    expansion = settings.get("query_expansion") or {}
    if expansion.get("strategy", "fixed") != "fixed" or mask.get("keep_only_token_ids"):
        raise PackageError(
            f"{files.folder} has settings of a MultiVectorEncoder that this runtime does not know",
            remedy="prepare texts with sentence-transformers, and run onnxruntime on them",
        )
    longest = int(files.read_object("config.json").get("max_position_embeddings") or 512)
    return Convention(
        query_marker=str(prompts.get("query") or "").strip(),
        document_marker=str(prompts.get("document") or "").strip(),
        query_length=expansion.get("length") or settings.get("query_length") or longest,
        document_length=settings.get("document_length") or longest,
        expand=bool(expansion),
        attend=bool(expansion.get("attend")),
        skipped=tuple(mask.get("skiplist_words") or ()),
        filler=str(expansion.get("token") or ""),
    )


class Documents:
    """Texts as the tensors of a ColBERT graph."""

    def __init__(self, files: PackageFiles) -> None:
        self._tokens = TextTokenizer(files)
        self._files = files
        self.convention = Convention.read(files)
        self._query_ids = self._numbers(self.convention.query_marker)
        self._document_ids = self._numbers(self.convention.document_marker)
        filler = self.convention.filler or self._tokens.token("mask_token") or "[MASK]"
        self._fill_id = self._number(filler) if self.convention.expand else self._tokens.pad_id
        skipped = (self._skipped(word) for word in self.convention.skipped)
        self._skipped_ids = sorted(number for number in skipped if number is not None)

    def _numbers(self, marker: str) -> list[int]:
        return [self._number(marker)] if marker else []

    def _number(self, token: str) -> int:
        number = self._tokens.tokenizer.token_to_id(token)
        if number is None:
            raise PackageError(
                f"the tokenizer of {self._files.folder} has no token {token!r}",
                remedy="copy the tokenizer's files from the model's repository",
            )
        return int(number)

    def _skipped(self, word: str) -> int | None:
        """The word as a token, or else its first token."""
        number = self._tokens.tokenizer.token_to_id(word)
        if number is not None:
            return int(number)
        ids = self._tokens.tokenizer.encode(word, add_special_tokens=False).ids
        return ids[0] if ids else None

    def _rows(self, texts: Sequence[str], marker: list[int], most: int) -> list[list[int]]:
        """Token ids with the marker second; cut at `most` tokens, the last of which is then the closing one."""
        self._tokens.truncate_at(most - len(marker))
        encodings = self._tokens.encode(texts)
        return [[encoding.ids[0], *marker, *encoding.ids[1:]] for encoding in encodings]

    def queries(self, texts: Sequence[str]) -> list[list[int]]:
        return self._rows(texts, self._query_ids, self.convention.query_length)

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        return self._rows(texts, self._document_ids, self.convention.document_length)

    def query_feed(self, rows: Sequence[Sequence[int]]) -> tuple[dict[str, Array], Array]:
        """Tensors and which vectors count: all of them where queries are filled up with mask tokens."""
        width = self.convention.query_length if self.convention.expand else max(map(len, rows))
        feed = self._feed(rows, width, self._fill_id)
        if not self.convention.expand:
            return feed, feed["attention_mask"].astype(bool)
        if self.convention.attend:
            feed["attention_mask"][:] = 1
        return feed, np.ones_like(feed["attention_mask"], dtype=bool)

    def document_feed(self, rows: Sequence[Sequence[int]]) -> tuple[dict[str, Array], Array]:
        """Tensors and which vectors count: those of real tokens that are not skipped."""
        feed = self._feed(rows, max(map(len, rows)), self._tokens.pad_id)
        kept = feed["attention_mask"].astype(bool) & ~np.isin(feed["input_ids"], self._skipped_ids)
        return feed, kept

    def _feed(self, rows: Sequence[Sequence[int]], width: int, fill: int) -> dict[str, Array]:
        ids = np.full((len(rows), width), fill, dtype=np.int64)
        mask = np.zeros_like(ids)
        for line, flags, row in zip(ids, mask, rows, strict=True):
            line[: len(row)], flags[: len(row)] = row, 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
