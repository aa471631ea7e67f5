"""How a kind of model is judged: what it is run on, and what of its outputs is compared with fp32's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        results = []
        for index, sample in enumerate(samples):
            found: dict[str, Rows] = {}
            for stem, feed in self.feeds(sessions, sample).items():
                for name, value in sessions.run(stem, feed).items():
                    if value.dtype.kind == "f" and value.size and value.ndim:
                        key = f"{stem}.{name}"
                        found[key] = Rows.of(value, None if like is None else like[index][key])
            if not found:
                raise UsageError("the graphs give no numbers to compare")
            results.append(found)
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
        results = []
        for index, encoding in enumerate(tokens.encode(passages)):
            ids = list(encoding.ids[:longest])
            if len(ids) < 2:
                raise UsageError("a text has fewer than two tokens: there is nothing to predict in it")
            feed = with_empty_past(sessions, self.stem, _causal(ids))
            logits = sessions.run(self.stem, feed, ["logits"])["logits"][0, :-1]
            results.append(
                {"logits": Rows.of(logits, None if like is None else like[index]["logits"], ids[1:])}
            )
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
        results = []
        for index, sample in enumerate(samples):
            feed = self.features(sessions, sample)
            hidden = sessions.run(self.encoder, feed, ["last_hidden_state"])["last_hidden_state"]
            mask = feed.get("attention_mask", np.ones(hidden.shape[:2], np.int64))
            known = {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}
            answer = like[index][1] if like is not None else self._answer(sessions, known)
            logits = self._logits(sessions, known, answer[:-1])
            rows = Rows.of(logits, None if like is None else like[index][0]["logits"], answer[1:])
            results.append(({"logits": rows}, answer))
        return results

    def _answer(self, sessions: Sessions, known: Mapping[str, Any]) -> list[int]:
        answer = [self.start]
        while len(answer) <= _GENERATED:
            answer.append(int(self._logits(sessions, known, answer)[-1].argmax()))
            if answer[-1] in self.end:
                break
        return answer

    def _logits(self, sessions: Sessions, known: Mapping[str, Any], ids: Sequence[int]) -> Any:
        row = np.asarray([ids], np.int64)
        feed = with_empty_past(sessions, self.decoder, {**_causal(ids), **known, "input_ids": row})
        return sessions.run(self.decoder, feed, ["logits"])["logits"][0]

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
    """Late interaction: the vectors of queries and of page images. A sample is a query and a page."""

    measures: tuple[str, ...] = ("cosine", "cosine_min", "maxsim_top1")

    def run(self, sessions: Sessions, samples: Sequence[Any], like: Any = None) -> Any:
        retrieval = _Retrieval(sessions)
        queries = retrieval.encode_queries([query for query, _ in samples], batch_size=_BATCH)
        return [*queries, *retrieval.encode_images([page for _, page in samples], batch_size=2)]

    def compare(self, reference: Any, found: Any) -> Quality:
        return compare_pages(reference, found, len(reference) // 2)
