"""Choosing a plan, with measurements that are made up."""

from __future__ import annotations

import numpy as np

from converter.additions import Precision
from converter.precision.budget import Quality
from converter.precision.formats import Blocks, Plan
from converter.precision.judge import compare, corpus
from converter.precision.search import Trial, choose_plan

FOUR, EIGHT = Blocks(4), Blocks(8)
ERRORS = {"a": 0.001, "b": 0.02, "c": 0.004, "d": 0.001}
MODULES = tuple((name, 100) for name in ERRORS)


def measure(plan: Plan, *, quick: bool = False) -> Trial:
    """Each module in 4 bits adds its error and half the bytes it has in 8."""
    four = [name for name in ERRORS if plan.of(name) == FOUR]
    cosine = 1 - sum(ERRORS[name] for name in four)
    return Trial(plan, 800 - 100 * len(four), Quality(cosine, cosine, 1.0, 10))


def chosen(budget: dict[str, float], cheaper: Blocks | None = FOUR) -> tuple[Plan, tuple[Trial, ...]]:
    precision = Precision("q4", lambda: (Plan(EIGHT),), cheaper=None if cheaper is None else lambda: cheaper)
    return choose_plan(precision, budget, MODULES, measure, lambda done, total: None)


def test_what_is_cheaper_is_taken_for_all_modules_where_the_budget_allows() -> None:
    plan, tried = chosen({"cosine": 0.9})
    assert plan.exceptions == dict.fromkeys(ERRORS, FOUR)
    assert len(tried) == 2


def test_modules_that_add_most_error_keep_their_bits_and_no_others_do() -> None:
    plan, _ = chosen({"cosine": 0.99})
    assert plan.exceptions == dict.fromkeys("acd", FOUR)


def test_a_part_of_the_allowed_error_is_left_to_texts_that_fare_worse() -> None:
    plan, _ = chosen({"cosine": 0.9941})
    assert plan.exceptions == dict.fromkeys("ad", FOUR)


def test_a_budget_no_cheaper_module_keeps_leaves_the_plan_alone() -> None:
    plan, _ = chosen({"cosine": 0.9995})
    assert plan == Plan(EIGHT)


def test_without_a_plan_that_keeps_the_budget_the_closest_is_judged() -> None:
    precision = Precision("q8", lambda: (Plan(FOUR), Plan(FOUR, {"b": EIGHT})))
    plan, tried = choose_plan(precision, {"cosine": 0.999}, MODULES, measure, lambda done, total: None)
    assert plan.exceptions == {"b": EIGHT}
    assert len(tried) == 2


def test_a_single_plan_is_not_measured_before_it_is_judged() -> None:
    plan, tried = chosen({"cosine": 0.999}, cheaper=None)
    assert plan == Plan(EIGHT)
    assert not tried


def test_the_corpus_is_split_in_two_halves_that_share_no_text() -> None:
    calibration, evaluation = corpus()
    assert len(calibration) > 50
    assert len(evaluation) > 50
    assert not set(calibration) & set(evaluation)


def test_embeddings_that_are_not_finite_keep_nothing() -> None:
    reference = np.eye(3)
    broken = reference.copy()
    broken[0, 0] = np.nan
    assert compare(reference, reference) == Quality(1.0, 1.0, 1.0, 3)
    assert compare(reference, broken).misses({"cosine": 0.5})
