"""MaxSim: the sum over a query's tokens of the best similarity among a page's tokens."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from converter.errors import UsageError
from converter.runtime import maxsim, top_k

Array = np.ndarray


def arrays(count: int, longest: int, seed: int, shortest: int = 1) -> list[Array]:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(shortest, longest + 1, count)
    return [draw.standard_normal((length, 20)).astype(np.float32) for length in lengths]


def test_scores_are_the_formula_whatever_the_lengths() -> None:
    queries, pages = arrays(7, 9, 0), arrays(11, 30, 1)
    expected = [[(query @ page.T).max(axis=1).sum() for page in pages] for query in queries]
    np.testing.assert_allclose(maxsim(queries, pages), expected, rtol=1e-5)


def test_scores_are_those_of_transformers(patches: Any) -> None:
    queries, pages = arrays(3, 9, 0, shortest=9), arrays(5, 12, 1, shortest=12)
    expected = patches.score_retrieval(
        [torch.from_numpy(query) for query in queries], [torch.from_numpy(page) for page in pages]
    )
    np.testing.assert_allclose(maxsim(queries, pages), expected, rtol=1e-5)


def test_blocks_change_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, pages = arrays(40, 80, 2), arrays(30, 50, 3)
    whole = maxsim(queries, pages)
    monkeypatch.setattr(sys.modules["converter.runtime.maxsim"], "LARGEST_BLOCK", 2**14)
    np.testing.assert_allclose(maxsim(queries, pages), whole, rtol=1e-5)


def test_the_best_pages_come_first_and_ties_in_order() -> None:
    scores, pages = top_k(np.array([[1, 5, 3, 5], [4, 3, 2, 1]], dtype=np.float32), 3)
    assert pages.tolist() == [[1, 3, 2], [0, 1, 2]]
    assert scores.tolist() == [[5, 5, 3], [4, 3, 2]]


def test_fewer_pages_than_asked_for_are_all_given() -> None:
    _, pages = top_k(maxsim(arrays(2, 3, 0), arrays(1, 3, 1)), 10)
    assert pages.shape == (2, 1)


def test_nothing_to_score_gives_an_empty_table() -> None:
    assert maxsim([], arrays(3, 4, 0)).shape == (0, 3)
    assert maxsim(arrays(3, 4, 0), []).shape == (3, 0)


@pytest.mark.parametrize(
    "page", [np.zeros((0, 20)), np.zeros((3, 21)), np.zeros(20)], ids=lambda a: str(a.shape)
)
def test_what_is_no_multi_vector_is_refused(page: Array) -> None:
    with pytest.raises(UsageError, match="tokens, dim"):
        maxsim(arrays(1, 3, 0), [page.astype(np.float32)])
