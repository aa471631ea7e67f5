"""How a kind of model is judged: what it is run on, and what of its outputs is compared with fp32's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from converter.errors import UsageError
from converter.precision.budget import Quality
from converter.precision.compare import Rows, compare_pages, compare_rows, compare_vectors
from converter.precision.sessions import SessionGraph, Sessions
from converter.runtime.late_interaction import LateInteraction
from converter.runtime.tokens import TextTokenizer

_BATCH = 8
# Texts of a decoder are read in passages: more to predict from, fewer runs.
_PASSAGE = 4
_LONGEST, _GENERATED = 128, 16


class Task(Protocol):
    """`run` gives what `compare` takes; of a run on other graphs, with the reference's result to be like."""

    @property
    def measures(self) -> tuple[str, ...]: ...

    def run(self, sessions: Sessions, samples: Sequence[Any], like: Any = None) -> Any: ...

    def compare(self, reference: Any, found: Any) -> Quality: ...


@dataclass(frozen=True)
class Embeddings:
    """A text encoder: its pooled vectors, as its own runtime makes them."""

    stem: str
    outputs: tuple[str, ...]
    measures: tuple[str, ...] = ("cosine", "cosine_min", "top1")

    def run(self, sessions: Sessions, samples: Sequence[Any], like: Any = None) -> Any:
        from converter.request import SILENT
        from converter.runtime.encoder import TextPipeline

        pipeline = TextPipeline(sessions.files, SessionGraph(sessions, self.stem, self.outputs))
        return pipeline.encode(
            list(samples), batch_size=_BATCH, normalize=True, prompt_name=None, progress=SILENT
        )

    def compare(self, reference: Any, found: Any) -> Quality:
        return compare_vectors(reference, found)


@dataclass(frozen=True)
class Feeds:
    """Any graphs, a feed a sample: float outputs row by row. `feeds` turns a sample into a feed for each graph.

    `what` names the samples. Texts, images and made-up values come here, one at a time, so that nothing is padded.
    """

    feeds: Callable[[Sessions, Any], Mapping[str, Mapping[str, Any]]]
    what: str
    measures: tuple[str, ...] = ("cosine", "cosine_min", "top1")

    def run(self, sessions: Sessions, samples: Sequence[Any], like: Any = None) -> Any:
        feeds = [self.feeds(sessions, sample) for sample in samples]
        results: list[dict[str, Rows]] = [{} for _ in samples]
        for stem in dict.fromkeys(stem for feed in feeds for stem in feed):
            fed = [index for index, feed in enumerate(feeds) if stem in feed]
            found = sessions.run_all(stem, (feeds[index][stem] for index in fed))
            for index, values in zip(fed, found, strict=True):
                for name, value in values.items():
                    if value.dtype.kind == "f" and value.size and value.ndim:
                        key = f"{stem}.{name}"
                        results[index][key] = Rows.of(value, None if like is None else like[index][key])
        if not all(results):
            raise UsageError("the graphs give no numbers to compare")
        return results

    def compare(self, reference: Any, found: Any) -> Quality:
        return compare_rows(reference, found, self.what)


@dataclass(frozen=True)
class Language:
    """A decoder, on passages of text: the logits of each next token, and how likely the one that came was."""

    stem: str
    measures: tuple[str, ...] = ("cosine", "cosine_min", "top1", "perplexity")

    def run(self, sessions: Sessions, samples: Sequence[Any], like: Any = None) -> Any:
        tokens = TextTokenizer(sessions.files)
        longest = min(tokens.maximum or _LONGEST, _LONGEST)
        passages = [" ".join(samples[start : start + _PASSAGE]) for start in range(0, len(samples), _PASSAGE)]
        rows = [list(encoding.ids[:longest]) for encoding in tokens.encode(passages)]
        if any(len(ids) < 2 for ids in rows):
            raise UsageError("a text has fewer than two tokens: there is nothing to predict in it")
        feeds = (with_empty_past(sessions, self.stem, _causal(ids)) for ids in rows)
        results = []
        for index, found in enumerate(sessions.run_all(self.stem, feeds, ["logits"])):
            before = None if like is None else like[index]["logits"]
            results.append({"logits": Rows.of(found["logits"][0, :-1], before, rows[index][1:])})
        return results

    def compare(self, reference: Any, found: Any) -> Quality:
        return compare_rows(reference, found, "passages of text")


def _causal(ids: Sequence[int]) -> dict[str, Any]:
    row = np.asarray([ids], np.int64)
    return {
        "input_ids": row,
        "attention_mask": np.ones_like(row),
        "position_ids": np.arange(len(ids), dtype=np.int64)[None],
    }


def with_empty_past(sessions: Sessions, stem: str, feed: Mapping[str, Any]) -> dict[str, Any]:
    """A feed of a first step: the cache's inputs are there and have no positions yet."""
    batch = len(feed["input_ids"])
    empty = {}
    for name, value in sessions.inputs(stem).items():
        if name.startswith("past_key_values"):
            # (batch, heads, positions, width): an axis of its own name is the batch, a position, or no matter.
            shape = [size if isinstance(size, int) else 0 for size in value.shape]
            shape[0] = batch
            empty[name] = np.zeros(shape, np.float32)
        elif name == "use_cache_branch":
            empty[name] = np.array([False])
    return {**empty, **feed}


@dataclass(frozen=True)
class Translation:
    """An encoder and a decoder: fp32 answers each text, and every precision is held to that answer token by token."""

    encoder: str
    decoder: str
    start: int
    end: tuple[int, ...]
    features: Callable[[Sessions, Any], Mapping[str, Any]]
    what: str = "texts"
    measures: tuple[str, ...] = ("cosine", "cosine_min", "top1", "perplexity")

    def run(self, sessions: Sessions, samples: Sequence[Any], like: Any = None) -> Any:
        feeds = [self.features(sessions, sample) for sample in samples]
        known = []
        for feed, found in zip(
            feeds, sessions.run_all(self.encoder, feeds, ["last_hidden_state"]), strict=True
        ):
            hidden = found["last_hidden_state"]
            mask = feed.get("attention_mask", np.ones(hidden.shape[:2], np.int64))
            known.append({"encoder_hidden_states": hidden, "encoder_attention_mask": mask})
        answers = self._answers(sessions, known) if like is None else [answer for _, answer in like]
        results = []
        logits = self._logits(sessions, known, [answer[:-1] for answer in answers])
        for index, (answer, table) in enumerate(zip(answers, logits, strict=True)):
            before = None if like is None else like[index][0]["logits"]
            results.append(({"logits": Rows.of(table, before, answer[1:])}, answer))
        return results

    def _answers(self, sessions: Sessions, known: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        """All answers grow by a token at a time, until each has ended."""
        answers = [[self.start] for _ in known]
        growing = list(range(len(known)))
        for _ in range(_GENERATED):
            rows = [answers[index] for index in growing]
            logits = self._logits(sessions, [known[index] for index in growing], rows)
            for answer, table in zip(rows, logits, strict=True):
                answer.append(int(table[-1].argmax()))
            growing = [index for index in growing if answers[index][-1] not in self.end]
        return answers

    def _logits(
        self, sessions: Sessions, known: Sequence[Mapping[str, Any]], rows: Sequence[Sequence[int]]
    ) -> Iterator[Any]:
        feeds = (
            with_empty_past(sessions, self.decoder, {**_causal(ids), **given})
            for ids, given in zip(rows, known, strict=True)
        )
        for found in sessions.run_all(self.decoder, feeds, ["logits"]):
            yield found["logits"][0]

    def compare(self, reference: Any, found: Any) -> Quality:
        return compare_rows([entry[0] for entry in reference], [entry[0] for entry in found], self.what)


class _Retrieval(LateInteraction):
    """The package's own runtime, around graphs that are looked into."""

    def __init__(self, sessions: Sessions) -> None:
        super().__init__(sessions.folder)
        self._sessions = sessions

    def _open(self, *stems: str) -> Any:
        there = [stem for stem in stems if self._files.has(f"onnx/{stem}.onnx")]
        return SessionGraph(self._sessions, (there or list(stems))[0], ("embeddings",))


@dataclass(frozen=True)
class Pages:
    """Late interaction: the vectors of queries and of page images. A sample is some queries and a page."""

    measures: tuple[str, ...] = ("cosine", "cosine_min", "maxsim_top1")

    def run(self, sessions: Sessions, samples: Sequence[Any], like: Any = None) -> Any:
        retrieval = _Retrieval(sessions)
        texts = [query for queries, _ in samples for query in queries]
        queries = retrieval.encode_queries(texts, batch_size=_BATCH)
        return queries, retrieval.encode_images([page for _, page in samples], batch_size=2)

    def compare(self, reference: Any, found: Any) -> Quality:
        (queries, pages), others = reference, (*found[0], *found[1])
        return compare_pages([*queries, *pages], others, len(queries))
