"""Late interaction: each token of a query finds its best token of a page, and the similarities are added.

The formula of ColBERT (Khattab and Zaharia, 2020), section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from converter.errors import UsageError

Vectors = NDArray[np.float32]
LARGEST_BLOCK = 2**24  # similarities at once: 64 MiB


def maxsim(queries: Sequence[Vectors], pages: Sequence[Vectors]) -> Vectors:
    """Scores (queries, pages) in float32, of arrays (tokens, dim) each.

    Nothing is padded, so a page's score does not depend on the others it is scored with.
    """
    if not len(queries) or not len(pages):
        return np.zeros((len(queries), len(pages)), dtype=np.float32)
    _check([*queries, *pages])
    scores = np.empty((len(queries), len(pages)), dtype=np.float32)
    for rows in _blocks(queries, 2048):
        tokens = np.concatenate([queries[row] for row in rows])
        first = _starts([queries[row] for row in rows])
        for columns in _blocks(pages, max(1, LARGEST_BLOCK // len(tokens))):
            block = [pages[column] for column in columns]
            similarities = tokens @ np.concatenate(block).T
            best = np.maximum.reduceat(similarities, _starts(block), axis=1)
            scores[rows.start : rows.stop, columns.start : columns.stop] = np.add.reduceat(
                best, first, axis=0
            )
    return scores


def top_k(scores: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
    """The k best pages of each query, best first: scores and page numbers, (queries, k) each.

    Equal scores keep the pages' order. With fewer than k pages, all of them.
    """
    if k < 1:
        raise UsageError(f"the best {k} pages cannot be chosen", remedy="give k of 1 or more")
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order.astype(np.int64)


def _check(arrays: Sequence[Vectors]) -> None:
    widths = {array.shape[-1] for array in arrays}
    if any(array.ndim != 2 or not len(array) for array in arrays) or len(widths) != 1:
        shapes = sorted({array.shape for array in arrays})
        raise UsageError(f"queries and pages must be (tokens, dim) with tokens and one dim, not {shapes}")


def _starts(arrays: Sequence[Vectors]) -> NDArray[np.int64]:
    return np.cumsum([0, *(len(array) for array in arrays[:-1])])


def _blocks(arrays: Sequence[Vectors], tokens: int) -> Iterator[range]:
    """Runs of arrays with at most so many tokens together, or of one that has more."""
    start, total = 0, 0
    for index, array in enumerate(arrays):
        if index > start and total + len(array) > tokens:
            yield range(start, index)
            start, total = index, 0
        total += len(array)
    yield range(start, len(arrays))
