"""Text embeddings: tokens, one graph, pooling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from converter.errors import UsageError
from converter.request import Progress
from converter.runtime.display import progress_of
from converter.runtime.fastest import FASTEST, fastest, proven
from converter.runtime.files import PackageFiles, open_package
from converter.runtime.pooling import Pooling, Vectors, normalize_rows, read_pooling
from converter.runtime.session import Array, Graph, OnnxGraph, SessionKeywords, SessionSettings
from converter.runtime.tokens import TextTokenizer, check_texts

OUTPUTS = ("sentence_embedding", "last_hidden_state", "token_embeddings")
STEMS = ("model", "text_model")
SAMPLE = "The quarterly report shows revenue growing in every region but one, while costs fell."
WINDOW = 8192  # texts tokenized and sorted at once: bounds memory, and leaves little padding


class TextPipeline:
    """Texts to vectors around any graph: what `Encoder` does once its package is open."""

    def __init__(
        self, files: PackageFiles, graph: Graph, *, pooling: str | None = None, max_length: int | None = None
    ) -> None:
        self.graph = graph
        self.pooling: Pooling = read_pooling(files, pooling, in_graph=not self._pools)
        self._tokens = TextTokenizer(files)
        settings = files.read_object("sentence_bert_config.json")
        self._lower = bool(settings.get("do_lower_case"))
        self.max_length = _maximum(self._tokens, settings, max_length)
        self._tokens.truncate_at(self.max_length)
        prompts = files.read_object("config_sentence_transformers.json")
        self.prompts: Mapping[str, str] = dict(prompts.get("prompts") or {})
        self._default_prompt = prompts.get("default_prompt_name")
        self.dimension = self._dimension()

    def _dimension(self) -> int:
        width = self.graph.width or self._tokens.model.get("hidden_size") or self._tokens.model.get("d_model")
        if not isinstance(width, int):
            width = next(self._run_all([self._tokens.encode([""])]))[0].shape[-1]
            return int(width)
        return width * (len(self.pooling.modes) if self._pools else 1)

    @property
    def _pools(self) -> bool:
        return self.graph.output_rank == 3

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int,
        normalize: bool | None,
        prompt_name: str | None,
        progress: Progress,
    ) -> Vectors:
        """(texts, dimension) in the order given."""
        if batch_size < 1:
            raise UsageError(f"a batch of {batch_size} texts cannot be run", remedy="give 1 or more")
        prompt = self._prompt(prompt_name)
        skipped = 0 if self.pooling.include_prompt else self._tokens.leading(self._cased(prompt))
        if skipped and not self._pools:
            raise UsageError(
                "this package leaves prompts out of the pooling, and its graph has pooled already",
                remedy="run it with sentence-transformers",
            )
        result = np.empty((len(texts), self.dimension), dtype=np.float32)
        window = max(WINDOW, 16 * batch_size)
        for start in range(0, len(texts), window):
            chunk = [self._cased(prompt + text) for text in texts[start : start + window]]
            encodings = self._tokens.encode(chunk)
            batches = list(_batches([len(encoding.ids) for encoding in encodings], batch_size))
            found = self._run_all(([encodings[row] for row in rows] for _, rows in batches), skipped)
            for (done, rows), vectors in zip(batches, found, strict=True):
                result[start + rows] = vectors
                progress.advance(start + done, len(texts))
        wanted = self.pooling.normalize if normalize is None else normalize
        return normalize_rows(result) if wanted else result

    def run_once(self) -> None:
        """Some texts of usual length, to be timed."""
        next(self._run_all([self._tokens.encode([SAMPLE] * 8)]))

    def _cased(self, text: str) -> str:
        return text.lower() if self._lower else text

    def _run_all(self, batches: Iterable[Sequence[Any]], skipped: int = 0) -> Iterator[Vectors]:
        """The vectors of batches of texts, of which `skipped` tokens at the front are computed and not pooled."""
        masks: list[Array] = []

        def feeds() -> Iterator[dict[str, Array]]:
            for batch in batches:
                feed = self._tokens.pad([encoding.ids for encoding in batch])
                if "token_type_ids" in self.graph.inputs:
                    feed["token_type_ids"] = self._tokens.spread([encoding.type_ids for encoding in batch], 0)
                masks.append(feed["attention_mask"])
                yield feed

        for index, output in enumerate(self.graph.run_all(feeds())):
            mask = masks[index]
            pooled_tokens = np.where(mask.cumsum(axis=1) > skipped, mask, 0)
            yield self.pooling(output, pooled_tokens) if self._pools else output

    def _prompt(self, name: str | None) -> str:
        name = self._default_prompt if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            known = ", ".join(self.prompts) or "none"
            raise UsageError(f"this package has no prompt {name!r}; it has {known}")
        return self.prompts[name]


def _maximum(tokens: TextTokenizer, settings: Mapping[str, Any], asked: int | None) -> int | None:
    """The tokens a text may have: what is asked for, within what the model takes."""
    if asked is not None and asked < 1:
        raise UsageError(f"texts of {asked} tokens cannot be encoded", remedy="give max_length of 1 or more")
    recorded = settings.get("max_seq_length")
    wanted = asked if asked is not None else recorded if isinstance(recorded, int) else None
    limits = [limit for limit in (wanted, tokens.maximum) if limit is not None]
    return min(limits, default=None)


def _batches(lengths: Sequence[int], size: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Rows in batches of like length, the longest first, with how many are done after each."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        yield start + len(rows), rows


class Encoder:
    """Text embeddings from a package folder or a hub id.

    `precision` is `auto`, `fastest` (timed here, of those that keep their quality) or a name such as `fp32`, `q8`;
    `pooling` and `max_length` replace what the package says. The other settings are those of `SessionSettings`. An
    encoder can be pickled: the copy opens the package again, so each worker of a cluster has its own session.

    Raises PackageError for what is wrong with the package, UsageError for what is wrong with the request.
    """

    def __init__(
        self,
        package: str | Path,
        *,
        precision: str = "auto",
        pooling: str | None = None,
        max_length: int | None = None,
        **session: Unpack[SessionKeywords],
    ) -> None:
        settings = SessionSettings(**session)
        files = open_package(package, settings.precisions(precision))

        def opened(precision: str) -> TextPipeline:
            name = files.graph(STEMS, precision, half_first=settings.half_first)
            graph = OnnxGraph(files, name, settings, OUTPUTS)
            return TextPipeline(files, graph, pooling=pooling, max_length=max_length)

        chosen = precision
        if precision == FASTEST:
            stem = next((stem for stem in STEMS if files.precisions(stem)), STEMS[0])
            chosen = fastest(proven(files, stem) or ("auto",), lambda name: opened(name).run_once)
        self._pipeline = opened(chosen)
        self.file = self._pipeline.graph.file
        again = partial(Encoder, precision=precision, pooling=pooling, max_length=max_length, **session)
        self._again = partial(again, files.source)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return self._again, ()

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._pipeline.dimension

    @property
    def max_length(self) -> int | None:
        """Tokens a text may have, special ones included; longer texts are cut."""
        return self._pipeline.max_length

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        batch_size: int = 32,
        normalize: bool | None = None,
        prompt_name: str | None = None,
        show_progress: bool = False,
    ) -> Array:
        """Vectors in float32: (texts, dimension), in the order given, or (dimension,) for a single str.

        Batches are made of texts of like length, so that little padding is computed. Texts longer than
        `max_length` are cut. `normalize` None does as the checkpoint says; `prompt_name` puts one of the
        package's prompts in front. Raises UsageError for what is no text.
        """
        single = isinstance(texts, str)
        listed = check_texts([texts] if single else texts)
        with progress_of(f"encode {len(listed)} texts", shown=show_progress and bool(listed)) as progress:
            vectors = self._pipeline.encode(
                listed, batch_size=batch_size, normalize=normalize, prompt_name=prompt_name, progress=progress
            )
        return vectors[0] if single else vectors
