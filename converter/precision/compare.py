"""Numbers that say how much of fp32 is kept: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.precision.budget import Quality
from converter.runtime.maxsim import maxsim

Vectors = NDArray[np.float64]

# Of wide outputs, the logits of a vocabulary, so many of the likeliest are compared.
LIKELIEST = 256
_CROWD = 160


def compare_vectors(reference: Any, found: Any, what: str = "texts") -> Quality:
    """Of embeddings (texts, dimension): cosines, and `top1`, whether the nearest other text is the same one.

    Nearest of at most 160: among more, neighbours are closer and more of them change places.
    """
    if not np.isfinite(found).all():
        return Quality({"cosine": -1.0, "cosine_min": -1.0, "top1": 0.0}, len(found), what)
    first, second = (_unit(np.asarray(vectors, np.float64)) for vectors in (reference, found))
    cosines = (first * second).sum(axis=1)
    kept = np.concatenate(
        [_nearest(a) == _nearest(b) for a, b in zip(_crowds(first), _crowds(second), strict=True)]
    )
    values = {"cosine": float(cosines.mean()), "cosine_min": float(cosines.min()), "top1": float(kept.mean())}
    return Quality(values, len(found), what)


def compare_pages(reference: Sequence[Any], found: Sequence[Any], queries: int) -> Quality:
    """Of vectors of queries, then of pages. `maxsim_top1`: share of queries whose best page stays."""
    if not all(np.isfinite(entry).all() for entry in found):
        return Quality({"cosine": -1.0, "cosine_min": -1.0, "maxsim_top1": 0.0}, queries, "queries and pages")
    cosines = np.concatenate([row_cosines(a, b) for a, b in zip(reference, found, strict=True)])
    best = [maxsim(entry[:queries], entry[queries:]).argmax(axis=1) for entry in (reference, found)]
    values = {
        "cosine": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
        "maxsim_top1": float((best[0] == best[1]).mean()),
    }
    return Quality(values, queries, "queries and pages")


def row_cosines(reference: Any, found: Any) -> Vectors:
    """Cosine of each row (last axis) with its counterpart; rows too short to have a direction count as alike."""
    first, second = (
        np.asarray(value, np.float64).reshape(-1, np.shape(value)[-1]) for value in (reference, found)
    )
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    alike = (lengths < 1e-12) & (np.abs(first - second).max(axis=1, initial=0) < 1e-6)
    cosines: Vectors = np.where(alike, 1.0, (first * second).sum(axis=1) / np.maximum(lengths, 1e-12))
    return cosines


@dataclass(frozen=True)
class Rows:
    """Rows of an output: values (rows, width), the largest one's place, and of a wide output which columns these are.

    `loss` is the negative log-likelihood of the token that came next, where there is one.
    """

    values: Any
    first: Any
    columns: Any = None
    loss: Any = None

    @staticmethod
    def of(output: Any, like: Rows | None = None, targets: Sequence[int] | None = None) -> Rows:
        """From an output (..., width); the columns of a wide one are `like`'s, or its likeliest."""
        table = np.asarray(output, np.float32).reshape(-1, np.shape(output)[-1])
        loss = None
        if targets is not None:
            pairs = zip(table, targets, strict=True)
            loss = np.array([_log_sum(row) - row[target] for row, target in pairs], np.float64)
        first, columns = table.argmax(axis=1), None
        if table.shape[1] > 4 * LIKELIEST:
            columns = np.stack([_likeliest(row) for row in table]) if like is None else like.columns
            table = np.take_along_axis(table, columns, axis=1)
        if targets is not None:
            table = table - table.mean(
                axis=1, keepdims=True
            )  # a constant added to all logits changes nothing
        return Rows(table, first, columns, loss)


# Row by row: a copy of all logits of a passage is many times what is kept of them.
def _log_sum(row: Any) -> Any:
    largest = row.max()
    return np.log(np.exp(row - largest).sum()) + largest


def _likeliest(row: Any) -> Any:
    return np.argpartition(-row, LIKELIEST)[:LIKELIEST].copy()


Sampled = Mapping[str, Rows]


def compare_rows(reference: Sequence[Sampled], found: Sequence[Sampled], what: str) -> Quality:
    """Of outputs sample by sample: cosines of all rows; `top1` of what are logits, or of the samples' mean vectors, or
    where no two samples need have as long ones (scores of items), of every row; `perplexity` as a multiple of the
    reference's, where there are losses.
    """
    pairs = [(name, a[name], b[name]) for a, b in zip(reference, found, strict=True) for name in a]
    if not all(np.isfinite(b.values).all() for _, _, b in pairs):
        return Quality({"cosine": -1.0, "cosine_min": -1.0, "top1": 0.0}, len(found), what)
    cosines = np.concatenate([row_cosines(a.values, b.values) for _, a, b in pairs])
    values = {"cosine": float(cosines.mean()), "cosine_min": float(cosines.min())}
    labels = [(a.first == b.first) for name, a, b in pairs if "logits" in name]
    steady, cases = _of_one_width(reference), len(found)
    if not labels and steady and len(found) > 1:
        first, second = (
            np.stack([_mean(sample, steady) for sample in samples]) for samples in (reference, found)
        )
        values["top1"] = compare_vectors(first, second).values["top1"]
    elif labels or not steady:
        kept = np.concatenate(labels or [a.first == b.first for _, a, b in pairs])
        values["top1"], cases = float(kept.mean()), len(kept)
    losses = [(a.loss, b.loss) for _, a, b in pairs if a.loss is not None]
    if losses:
        before, after = (np.concatenate([pair[side] for pair in losses]).mean() for side in (0, 1))
        values["perplexity"] = float(np.exp(min(after - before, 50.0)))
    return Quality(values, len(found), what, cases)


def _of_one_width(samples: Sequence[Sampled]) -> list[str]:
    """The outputs that every sample has, with rows as long in each."""
    names = [name for name in samples[0] if all(name in sample for sample in samples)]
    return [name for name in names if len({sample[name].values.shape[1] for sample in samples}) == 1]


def _mean(sample: Sampled, names: Sequence[str]) -> Any:
    return np.concatenate([sample[name].values.mean(axis=0) for name in names])


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(lengths, 1e-12)
    return unit


def _crowds(unit: Vectors) -> list[Vectors]:
    return np.array_split(unit, -(-len(unit) // _CROWD))


def _nearest(unit: Vectors) -> NDArray[np.int64]:
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    nearest: NDArray[np.int64] = likeness.argmax(axis=1)
    return nearest
