"""The work of a benchmark: what is asked of every contender, and how their answers are compared."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converter.bench.report import Measure
from converter.errors import PackageError

if TYPE_CHECKING:
    from converter.bench.feeds import Made

BATCH_SIZES = (1, 8, 32)
WORDS = 16  # of each text whose latency is measured
DOCUMENT_WORDS = (4, 120)  # the shortest and longest document
DOCUMENT_BATCH = 32
CALLS_FOR = 16  # texts a turn at least, so that small batches are not one tick of the clock
COMPARED = 2  # rows of made-up inputs at which outputs are compared
ARRAY_CALLS_FOR = 4  # images or clips, which take longer
PROMPTS, PROMPT_TOKENS = 2, 32  # a turn
PAGE, PAGES = (640, 480), 2  # height and width of a page, and how many are run at once
LATE_DOCUMENTS = (16, 20, 90)  # how many, of so many words
_VOCABULARY = (
    "the report shows that revenue grew in every region while costs fell and a small team in the north "
    "found new ways to store energy from wind water and light before winter came over the old harbour"
)


@dataclass(frozen=True)
class Load:
    """Requests for `converter.bench.worker`, and the one whose output is compared by `agree`, found and baseline."""

    measures: tuple[Measure, ...]
    tasks: tuple[Mapping[str, Any], ...]
    compared: Mapping[str, Any]
    agreement: str
    agree: Callable[[Any, Any], float]
    words: str


def text_load(batch_sizes: Sequence[int], documents: int) -> Load:
    """Latency at each batch size, and throughput over documents of mixed length."""
    mixed = {"texts": make_texts(documents, *DOCUMENT_WORDS), "batch_size": DOCUMENT_BATCH}
    words = (
        f"latency of texts of {WORDS} words, tokenizing and pooling included; {documents} documents of"
        f" {DOCUMENT_WORDS[0]} to {DOCUMENT_WORDS[1]} words, sorted by length, in batches of {DOCUMENT_BATCH};"
        " cosine is the least of any document"
    )
    return _latency_and_rate("batch", batch_sizes, "docs/s", mixed, words)


def late_load(batch_sizes: Sequence[int], *, documents: bool) -> Load:
    """Latency of queries at each batch size, and throughput of what they look for: texts, or pages."""
    of = "documents" if documents else "pages"
    found = {"texts": make_texts(*LATE_DOCUMENTS)} if documents else {"pages": [PAGE] * PAGES}
    words = (
        f"latency of queries of {WORDS} words, tokenizing included; "
        + (
            f"{LATE_DOCUMENTS[0]} documents of {LATE_DOCUMENTS[1]} to {LATE_DOCUMENTS[2]} words"
            if documents
            else f"{PAGES} pages of {PAGE[1]} x {PAGE[0]} pixels of noise, reading them included"
        )
        + f", in batches of {PAGES}; cosine is the least of any of their tokens' vectors"
    )
    return _latency_and_rate("queries", batch_sizes, f"{of}/s", {**found, "batch_size": PAGES}, words)


def _latency_and_rate(
    what: str, batch_sizes: Sequence[int], rate: str, many: Mapping[str, Any], words: str
) -> Load:
    """Texts at each batch size, timed call by call, then `many` at once for a rate, whose vectors are compared."""
    tasks: list[dict[str, Any]] = [
        {
            "name": f"{what} {size}",
            "texts": make_texts(size, WORDS, WORDS),
            "batch_size": size,
            "calls": -(-CALLS_FOR // size),
            "a_second": False,
        }
        for size in batch_sizes
    ]
    measures = (*(Measure(task["name"], "lower") for task in tasks), Measure(rate, "higher"))
    tasks.append({"name": rate, **many, "calls": 1, "a_second": True})
    return Load(measures, tuple(tasks), tasks[-1], "cosine", _least_cosine, words)


def timed(call: Callable[[], Any], count: int) -> tuple[list[float], Any]:
    """Seconds of each of `count` calls, and what the last one returned."""
    seconds, result = [], None
    for _ in range(count):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return seconds, result


def encoded(
    request: Mapping[str, Any], encode: Callable[[], Any], plain: Callable[[Any], Any]
) -> dict[str, Any]:
    """The reply to a task of `text_load` or `late_load`: seconds of each call, or items a second.

    `encode` returns the vectors, `plain` turns them into lists where the request asks for the output.
    """
    seconds, vectors = timed(encode, request["calls"])
    values = [len(vectors) / spent for spent in seconds] if request["a_second"] else seconds
    reply: dict[str, Any] = {"figures": {request["name"]: values}}
    return {**reply, "output": plain(vectors)} if request.get("output") else reply


def array_load(
    inputs: Mapping[int, Sequence[Mapping[str, Any]]], batch_sizes: Sequence[int], unit: str, described: str
) -> Load:
    """Latency at each batch size, and `unit` per second at the largest.

    `inputs` are those of each batch size, and of 2, whose outputs are compared: all of those of the largest would be
    gigabytes of text for some models.
    """
    largest, rate = max(batch_sizes), f"{unit}/s"
    tasks = [
        {
            "name": f"batch {size}",
            "inputs": inputs[size],
            "calls": -(-ARRAY_CALLS_FOR // size),
            "rate": rate if size == largest else "",
        }
        for size in batch_sizes
    ]
    measures = (*(Measure(f"batch {size}", "lower") for size in batch_sizes), Measure(rate, "higher"))
    words = (
        f"latency of batches of noise, {described} each, what comes before the model not counted; {rate} in batches of"
        f" {largest}; cosine is the least of two {unit}'"
    )
    compared = {"name": "", "inputs": inputs[2], "calls": 1, "rate": ""}
    return Load(measures, tuple(tasks), compared, "cosine", _least_cosine, words)


def generation_load(prompts: Sequence[Any], new_tokens: int, of: str = "") -> Load:
    """Time to the first token and tokens a second after it, batch 1, greedily. `of` says what the prompts are."""
    words = (
        f"{of or f'prompts of {PROMPT_TOKENS} tokens drawn at random'}, batch 1, {new_tokens} tokens chosen greedily;"
        " same tokens is the share of them that are the baseline's"
    )
    request = {"prompts": prompts, "new_tokens": new_tokens}
    measures = (Measure("first token", "lower"), Measure("tokens/s", "higher"))
    return Load(measures, (request,), request, "same tokens", _same_tokens, words)


def graphs_load(made: Made) -> Load:
    """Latency of each graph at its batch sizes, and rows a second in the largest batch."""
    measures: list[Measure] = []
    tasks: list[dict[str, Any]] = []
    for stem in made.stems:
        name = f"{stem}, " if len(made.stems) > 1 else ""
        batches = made.batches[stem]
        for size in batches or (COMPARED,):
            largest = bool(batches) and size == max(batches)
            task: dict[str, Any] = {
                "name": f"{name}batch {size}" if batches else f"{name}one call",
                "stem": stem,
                "batch": size,
                "calls": -(-ARRAY_CALLS_FOR // size),
                "rate": f"{name}rows/s" if largest else "",
            }
            tasks.append(task)
            measures.append(Measure(task["name"], "lower"))
        if batches:
            measures.append(Measure(f"{name}rows/s", "higher"))
    words = (
        f"latency of {'each graph by itself' if name else 'the graph'} on inputs that its architecture makes up"
        + (f" ({made.sizes})" if made.sizes else "")
        + ", what comes before the model not counted; rows/s in the largest batch; cosine is the least of any row of"
        f" any output at {COMPARED} rows"
    )
    return Load(tuple(measures), tuple(tasks), {}, "cosine", _least_of_files, words)


def scenario_load(made: Made, new_tokens: int) -> Load:
    """Time to the first token of all rows, and tokens of all rows a second after it."""
    words = (
        f"{made.scenario}, on a prompt that its architecture makes up; {new_tokens} tokens a row, those of all rows of"
        " the prompt counted; same tokens is the share of them that are the baseline's"
    )
    request = {"new_tokens": new_tokens}
    measures = (Measure("first token", "lower"), Measure("tokens/s", "higher"))
    return Load(measures, (request,), request, "same tokens", _same_tokens, words)


def make_tokens(vocabulary: int, count: int) -> list[list[int]]:
    """So many prompts. The same every time."""
    draw = random.Random(0)
    return [[draw.randrange(vocabulary) for _ in range(PROMPT_TOKENS)] for _ in range(count)]


def make_texts(count: int, shortest: int, longest: int) -> list[str]:
    """Texts of so many words, each length from `shortest` to `longest` as likely. The same every time."""
    draw, words = random.Random(0), _VOCABULARY.split()
    return [" ".join(draw.choices(words, k=draw.randint(shortest, longest))) for _ in range(count)]


def _least_cosine(found: Any, baseline: Any) -> float:
    import numpy as np

    a, b = np.asarray(found, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).min())


def _least_of_files(found: str, baseline: str) -> float:
    """Of any row of any output that both files have; of whole numbers only where there is nothing else."""
    import numpy as np

    with np.load(found) as ours, np.load(baseline) as theirs:
        both = [name for name in theirs.files if name in ours.files]
        pairs = [(ours[name], theirs[name]) for name in both]
    pairs = [pair for pair in pairs if np.issubdtype(pair[0].dtype, np.floating)] or pairs
    if not pairs:
        raise PackageError("the graphs give no output that the original gives: nothing can be compared")
    return min(_rows_cosine(ours, theirs) for ours, theirs in pairs)


def _rows_cosine(found: Any, baseline: Any) -> float:
    """Zeros are like zeros, and infinities like infinities in the same places."""
    import numpy as np

    rows = len(found) if found.ndim > 1 else 1
    a, b = (array.astype(np.float64).reshape(rows, -1) for array in (found, baseline))
    alike = ~np.isfinite(a) & (a == b)
    a, b = np.where(alike, 0, a), np.where(alike, 0, b)
    empty = ~(a.any(axis=1, keepdims=True) | b.any(axis=1, keepdims=True))
    return _least_cosine(np.where(empty, 1, a), np.where(empty, 1, b))


def _same_tokens(found: Any, baseline: Any) -> float:
    pairs = [
        pair for ours, theirs in zip(found, baseline, strict=True) for pair in zip(ours, theirs, strict=True)
    ]
    return float(sum(a == b for a, b in pairs) / len(pairs))
