"""The verdict: what counts as the same, and which sizes are tried."""

from __future__ import annotations

import numpy as np
import pytest

from converter.errors import UsageError
from converter.parity.metrics import Terms, compare_all, distance, parity_sizes, tolerance_for
from converter.parity.verify import difference
from converter.records import Axis, Component, Tolerance
from converter.registry import load_registry

AXES = (Axis("batch_size", 2, high=6), Axis("sequence_length", 7, high=20))


COMPONENT = Component("model", lambda m: m, lambda s: None, lambda m, t: {}, AXES, ())  # type: ignore[arg-type,return-value]


def vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_equal_arrays_are_at_distance_zero() -> None:
    a = vectors(2, 5, 8)
    assert distance(a, a) == (0.0, pytest.approx(1.0))


def test_a_turned_vector_shows_in_the_cosine_of_its_own_row_only() -> None:
    a = vectors(2, 5, 8)
    b = a.copy()
    b[1, 3] = -b[1, 3]
    assert distance(a, b)[1] == pytest.approx(-1.0)


def test_positions_that_are_not_valid_are_not_compared() -> None:
    a = vectors(2, 5, 8)
    b = a.copy()
    b[0, 4] = np.nan
    valid = np.ones((2, 5), dtype=bool)
    assert distance(a, b, valid) == (float("inf"), -1.0)
    valid[0, 4] = False
    assert distance(a, b, valid)[0] == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_on_one_side_is_infinitely_far(bad: float) -> None:
    a = vectors(3, 4)
    b = a.copy()
    b[0, 0] = bad
    assert distance(a, b) == (float("inf"), -1.0)


def test_nan_on_both_sides_is_no_agreement() -> None:
    a = vectors(3, 4)
    a[0, 0] = np.nan
    assert distance(a, a.copy()) == (float("inf"), -1.0)


def test_the_same_infinity_on_both_sides_agrees() -> None:
    """Masked logits are minus infinity by design."""
    a = vectors(3, 4)
    a[0, 0] = -np.inf
    assert distance(a, a.copy())[0] == 0.0


def test_arrays_of_different_shape_are_infinitely_far() -> None:
    assert distance(vectors(2, 5, 8), vectors(2, 4, 8)) == (float("inf"), -1.0)


def test_each_two_results_are_compared_so_that_a_wrong_wrapper_cannot_hide() -> None:
    right, wrong = vectors(2, 3), vectors(2, 3, seed=1)
    size = parity_sizes(AXES, 0)[0]
    rows = compare_all(
        COMPONENT,
        size,
        {"original": {"logits": right}, "wrapper": {"logits": wrong}, "graph": {"logits": wrong}},
        {},
        Terms(load_registry({"CONVERTER_PLUGINS": ""}).metrics),
    )
    assert {row.pair: row.passed for row in rows} == {
        "wrapper/original": False,
        "graph/original": False,
        "graph/wrapper": True,
    }


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (vectors(2, 4), "its shape is (2, 4), not (2, 3)"),
        (np.full((2, 3), np.nan), "some of its numbers, or of the other's, are not finite"),
    ],
    ids=["shape", "not finite"],
)
def test_what_is_infinitely_far_apart_says_why(found: np.ndarray, why: str) -> None:
    results = {"original": {"logits": vectors(2, 3)}, "graph": {"logits": found}}
    terms = Terms(load_registry({"CONVERTER_PLUGINS": ""}).metrics)
    (row,) = compare_all(COMPONENT, parity_sizes(AXES, 0)[0], results, {}, terms)
    assert not row.passed
    assert difference(row).endswith(f"differ by inf (cosine -1.000000): {why}")


def test_the_sizes_tried_hold_what_tracing_never_saw() -> None:
    sizes = parity_sizes(AXES, seed=0)
    points = [(size["batch_size"], size["sequence_length"], size.padding) for size in sizes]
    assert points[0] == (2, 7, "none")
    assert (1, 7, "none") in points
    assert (1, 1, "none") in points
    assert {padding for _, _, padding in points} == {"none", "left", "right"}
    assert max(batch for batch, _, _ in points) >= 3
    assert len({size.label for size in sizes}) == len(sizes)


def test_sizes_come_from_the_seed() -> None:
    assert parity_sizes(AXES, seed=3) == parity_sizes(AXES, seed=3)
    assert parity_sizes(AXES, seed=3) != parity_sizes(AXES, seed=4)


def test_a_loose_tolerance_needs_its_reason() -> None:
    with pytest.raises(UsageError, match="reason"):
        Tolerance(max_abs=1e-2)


def test_the_users_atol_replaces_the_absolute_bound_only() -> None:
    assert tolerance_for(COMPONENT.criteria, "fp32", None) == Tolerance()
    assert tolerance_for(COMPONENT.criteria, "fp32", 1e-2).max_abs == 1e-2
    assert tolerance_for(COMPONENT.criteria, "fp32", 1e-2).cosine == Tolerance().cosine
