"""Queries, page images and documents to one vector a token, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from converter.errors import PackageError, UsageError
from converter.runtime.display import progress_of
from converter.runtime.documents import Documents
from converter.runtime.files import open_package
from converter.runtime.images import Picture, Size, gather, open_image, read_pixels
from converter.runtime.maxsim import Vectors, maxsim, top_k
from converter.runtime.prompts import Processor
from converter.runtime.session import Array, Graph, OnnxGraph, SessionKeywords, SessionSettings
from converter.runtime.tokens import check_texts

OUTPUTS = ("embeddings",)
Masked = tuple[dict[str, Array], Array]  # a feed, and which of its tokens count
GRIDS, TILES = "image_grid_thw", "pixel_attention_mask"


class LateInteraction:
    """Multi-vector retrieval from a package folder or a hub id, over page images or, with ColBERT, over texts.

    `precision` and the settings of the session are as for `Encoder`. A graph is opened when it is first used:
    queries take `text_model`, pages `image_model`, and either takes `model` where the package has only that
    one. `query_prefix` replaces what stands in front of queries to pages. Can be pickled; the copy opens the
    package again.
    """

    def __init__(
        self,
        package: str | Path,
        *,
        precision: str = "auto",
        query_prefix: str | None = None,
        **session: Unpack[SessionKeywords],
    ) -> None:
        self._settings = SessionSettings(**session)
        self._precision, self._prefix = precision, query_prefix
        self._files = open_package(package, self._settings.precisions(precision))
        self._graph(
            "text_model", "image_model", "model"
        )  # sessions open when they are used, mistakes show now
        again = partial(LateInteraction, precision=precision, query_prefix=query_prefix, **session)
        self._again = partial(again, self._files.source)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return self._again, ()

    @cached_property
    def _text(self) -> OnnxGraph:
        return self._open("text_model", "model")

    @cached_property
    def _image(self) -> OnnxGraph:
        return self._open("image_model", "model")

    @cached_property
    def _documents(self) -> Documents:
        return Documents(self._files)

    @property
    def _sees(self) -> bool:
        """Whether the model is one of images; else texts are marked and filled up as ColBERT has them."""
        config = self._files.read_object("config.json")
        return "vision_config" in config or any(
            isinstance(part, dict) and "vision_config" in part for part in config.values()
        )

    @cached_property
    def _processor(self) -> Processor:
        if TILES in self._image.inputs:
            raise PackageError(
                f"{self._files.folder} takes pages cut into tiles, which this runtime does not make",
                remedy="prepare pages and queries with its own library's processor, and run onnxruntime on them",
            )
        patches = GRIDS in self._image.inputs
        return Processor(self._files, patches=patches, query_prefix=self._prefix)

    def _graph(self, *stems: str) -> str:
        return self._files.graph(stems, self._precision, half_first=self._settings.half_first)

    def _open(self, *stems: str) -> OnnxGraph:
        return OnnxGraph(self._files, self._graph(*stems), self._settings, OUTPUTS)

    def encode_queries(
        self, texts: Sequence[str], *, batch_size: int = 32, show_progress: bool = False
    ) -> list[Vectors]:
        """One (tokens, dim) float32 array a query, in the order given.

        Raises UsageError for what is no text and for a query longer than the model takes. ColBERT cuts queries at
        the length it was trained with, and fills them up to it.
        """
        listed = check_texts(texts)
        if not listed:
            return []
        if not self._sees:
            found = self._documents.queries(listed)
            return self._run_texts(found, self._documents.query_feed, batch_size, "queries", show_progress)
        rows = self._processor.queries(listed)
        keys = [(len(row), 0) for row in rows]
        images = "pixel_values" in self._text.inputs

        def feed_of(batch: Sequence[int]) -> Masked:
            neutral = self._processor.layout.neutral(len(batch)) if images else {}
            return self._masked([rows[index] for index in batch], neutral)

        return _in_batches(keys, batch_size, feed_of, self._text, "queries", show_progress)

    def encode_documents(
        self, texts: Sequence[str], *, batch_size: int = 32, show_progress: bool = False
    ) -> list[Vectors]:
        """One (tokens, dim) float32 array a document, in the order given; punctuation has no vectors.

        A text longer than the model was trained with is cut. Raises UsageError for what is no text and for a
        model of images.
        """
        listed = check_texts(texts)
        if self._sees:
            raise UsageError("this package's documents are images", remedy="use encode_images")
        if not listed:
            return []
        rows = self._documents.documents(listed)
        return self._run_texts(rows, self._documents.document_feed, batch_size, "documents", show_progress)

    def _run_texts(
        self,
        rows: Sequence[Sequence[int]],
        feed_of: Callable[[Sequence[Sequence[int]]], Masked],
        batch_size: int,
        what: str,
        show_progress: bool,
    ) -> list[Vectors]:
        def batched(batch: Sequence[int]) -> Masked:
            return feed_of([rows[index] for index in batch])

        keys = [(len(row), 0) for row in rows]
        return _in_batches(keys, batch_size, batched, self._text, what, show_progress)

    def encode_images(
        self, images: str | Path | Iterable[Picture], *, batch_size: int = 4, show_progress: bool = False
    ) -> list[Vectors]:
        """One (tokens, dim) float32 array a page, in the order given.

        `images` are paths and PIL images, or a folder, whose images come in the order of `list_images`. Every
        image is looked at before the first is run; batches are of one size, and only a batch's pixels are in
        memory. Raises UsageError naming an image that cannot be read or that the model cannot take.
        """
        pictures = gather(images)
        if not pictures:
            return []
        processor = self._processor
        targets = [self._target(picture, index) for index, picture in enumerate(pictures)]

        def feed_of(batch: Sequence[int]) -> Masked:
            target = targets[batch[0]]
            read = [read_pixels(pictures[index], index) for index in batch]
            return self._masked([processor.page(target)] * len(batch), processor.layout.tensors(read, target))

        return _in_batches(targets, batch_size, feed_of, self._image, "pages", show_progress)

    def _target(self, picture: Picture, index: int) -> Size:
        image = open_image(picture, index)
        width, height = image.size
        if image is not picture:
            image.close()
        try:
            return self._processor.layout.target((height, width))
        except (ValueError, ZeroDivisionError) as error:
            name = picture if isinstance(picture, str | Path) else "given as a PIL image"
            raise UsageError(
                f"image {index} ({name}), {width} x {height} pixels, does not fit the model: {error}",
                remedy="crop or split it",
            ) from error

    def _masked(self, rows: Sequence[Sequence[int]], extra: dict[str, Array]) -> Masked:
        feed = {**self._processor.pad(rows), **extra}
        return feed, feed["attention_mask"].astype(bool)

    def score(self, queries: Sequence[Vectors], pages: Sequence[Vectors]) -> Vectors:
        """MaxSim of each query and page, (queries, pages) in float32; see `maxsim`."""
        return maxsim(queries, pages)

    def top_k(
        self, queries: Sequence[Vectors], pages: Sequence[Vectors], k: int = 10
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """The best pages of each query: scores and page numbers, (queries, k) each, best first."""
        return top_k(maxsim(queries, pages), k)


def _in_batches(
    keys: Sequence[Size],
    size: int,
    feed_of: Callable[[Sequence[int]], Masked],
    graph: Graph,
    what: str,
    show_progress: bool,
) -> list[Vectors]:
    """What `graph` gives at the real tokens of batches of items that have one key, in the items' order."""
    if size < 1:
        raise UsageError(f"a batch of {size} {what} cannot be run", remedy="give 1 or more")
    groups: dict[Size, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    batches = [
        group[start : start + size] for group in groups.values() for start in range(0, len(group), size)
    ]
    masks: list[Array] = []

    def feeds() -> Iterator[dict[str, Array]]:
        for batch in batches:
            feed, real = feed_of(batch)
            masks.append(real)
            yield feed

    results: dict[int, Vectors] = {}
    with progress_of(f"encode {len(keys)} {what}", shown=show_progress) as progress:
        for index, rows in enumerate(graph.run_all(feeds())):
            kept = [row[real] for row, real in zip(rows, masks[index], strict=True)]
            results.update(zip(batches[index], kept, strict=True))
            progress.advance(len(results), len(keys))
    return [results[index] for index in range(len(keys))]
