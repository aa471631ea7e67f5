"""Choosing a plan, with measurements that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.errors import ParityError, UsageError
from converter.precision.budget import Quality, parse_keep
from converter.precision.compare import compare_pages, compare_vectors
from converter.precision.formats import Blocks, Columns, NormalFloat, Plan, read_plan
from converter.precision.report import PrecisionRow, QuantizationReport
from converter.precision.samples import corpus
from converter.precision.search import Choice, Trial, choose_plan
from converter.precision.targets import Tuning
from converter.request import Preference

FOUR, EIGHT = Blocks(4), Blocks(8)
ERRORS = {"a": 0.001, "b": 0.02, "c": 0.004, "d": 0.001}
MODULES = tuple((name, 100) for name in ERRORS)
BOTH = (Plan(FOUR), Plan(EIGHT))


def measure(plan: Plan, *, quick: bool = False) -> Trial:
    """Each module in 4 bits adds its error and half the bytes it has in 8, and takes longer; float adds none."""
    four = [name for name in ERRORS if plan.of(name) == FOUR]
    floats = [name for name in ERRORS if plan.of(name) is None]
    cosine = 1 - sum(ERRORS[name] for name in four) - 1e-5 * (len(ERRORS) - len(floats))
    quality = Quality({"cosine": cosine, "cosine_min": cosine, "top1": 1.0}, 10)
    return Trial(plan, 800 - 100 * len(four) + 600 * len(floats), quality, 2.0 - 0.3 * len(four))


def chosen(
    budget: dict[str, float], plans: tuple[Plan, ...] = BOTH, prefer: Preference = "size", limit: int = 60
) -> Choice:
    return choose_plan(plans, budget, MODULES, measure, lambda done, total: None, prefer=prefer, limit=limit)


def test_what_is_smallest_is_taken_for_all_modules_where_the_budget_allows() -> None:
    assert chosen({"cosine": 0.9}).plan == Plan(FOUR)


def test_modules_that_add_most_error_keep_their_bits_and_no_others_do() -> None:
    assert chosen({"cosine": 0.99}).plan.exceptions == dict.fromkeys("acd", FOUR)


def test_a_part_of_the_allowed_error_is_left_to_samples_that_fare_worse() -> None:
    assert chosen({"cosine": 0.9941}).plan.exceptions == dict.fromkeys("ad", FOUR)


@pytest.mark.parametrize(("cases", "fours"), [(10_000, "ab"), (100, "a"), (20, "")])
def test_a_counted_share_must_be_beyond_its_bound_by_what_chance_may_take(cases: int, fours: str) -> None:
    """Of 100 cases a share of 0.9 has a standard error of 0.03: 0.93 is asked for, 0.9 by the samples that judge."""

    def counted(plan: Plan, *, quick: bool = False) -> Trial:
        trial = measure(plan)
        share = 1 - 0.04 * len([name for name in ERRORS if plan.of(name) == FOUR])
        return replace(trial, quality=Quality({"cosine": 0.9999, "top1": share}, 10, cases=cases))

    choice = choose_plan(BOTH, {"top1": 0.9}, MODULES, counted, lambda done, total: None)
    assert choice.plan.exceptions == dict.fromkeys(fours, FOUR)


def test_of_plans_as_large_to_a_thousandth_the_first_is_taken() -> None:
    exact = Blocks(8, accuracy_level=0)

    def sized(plan: Plan, *, quick: bool = False) -> Trial:
        return replace(measure(Plan(EIGHT)), plan=plan, nbytes=10_000_000 - 800 * (plan.matrices == exact))

    choice = choose_plan(
        (Plan(EIGHT), Plan(exact)), {"cosine": 0.9}, MODULES, sized, lambda done, total: None
    )
    assert choice.plan == Plan(EIGHT)


def test_a_budget_no_cheaper_module_keeps_leaves_the_plan_alone() -> None:
    assert chosen({"cosine": 0.9995}).plan == Plan(EIGHT)


def test_with_speed_preferred_what_is_fastest_is_taken_though_it_is_larger() -> None:
    assert chosen({"cosine": 0.9}, prefer="speed").plan == Plan(EIGHT)


def test_matrices_stay_in_float_where_no_format_keeps_the_budget_for_all() -> None:
    choice = chosen({"cosine": 0.99999}, (Plan(FOUR),))
    assert choice.plan.matrices is None
    assert not measure(choice.plan).quality.misses({"cosine": 0.99999})


def with_table(plan: Plan, *, quick: bool = False) -> Trial:
    """As `measure`, with a table whose 8 bits add more error than most modules."""
    trial = measure(plan)
    cosine = trial.quality.values["cosine"] - 0.02 * plan.tables
    return replace(trial, nbytes=trial.nbytes - 300 * plan.tables, quality=Quality({"cosine": cosine}, 10))


@pytest.mark.parametrize(
    ("plans", "budget", "matrices", "exceptions"),
    [(BOTH, 0.99, EIGHT, dict.fromkeys("acd", FOUR)), (BOTH[:1], 0.995, None, dict.fromkeys("ad", FOUR))],
    ids=["the table alone", "the table and most matrices"],
)
def test_a_table_stays_in_float_where_its_error_alone_is_too_much(
    plans: tuple[Plan, ...], budget: float, matrices: Blocks | None, exceptions: dict[str, Blocks]
) -> None:
    plan = choose_plan(plans, {"cosine": budget}, MODULES, with_table, lambda *_: None).plan
    assert plan == Plan(matrices, exceptions, tables=False)


def test_without_a_plan_that_keeps_the_budget_the_closest_is_judged() -> None:
    halves = (Plan(FOUR, half=True), Plan(EIGHT, half=True))
    assert chosen({"cosine": 0.999999999}, halves).plan == halves[1]


def test_so_many_plans_are_measured_and_not_many_more() -> None:
    assert len(chosen({"cosine": 0.99}, limit=2).trials) <= 2
    assert len(chosen({"cosine": 0.99}).trials) <= 60


def test_no_plan_is_begun_once_time_is_over_and_the_best_so_far_is_taken() -> None:
    def once_over(count: int) -> Choice:
        looks = iter(range(1000))
        return choose_plan(
            BOTH, {"cosine": 0.99}, MODULES, measure, lambda *_: None, over=lambda: next(looks) >= count
        )

    at_once, later, whole = (once_over(count) for count in (0, 1, 100))
    assert (at_once.plan, at_once.cut) == (Plan(FOUR), True)
    assert (later.plan, later.cut) == (Plan(EIGHT), True)
    assert whole == chosen({"cosine": 0.99})
    assert not whole.cut


def test_the_same_measurements_give_the_same_plan() -> None:
    assert chosen({"cosine": 0.99}) == chosen({"cosine": 0.99})


def test_a_single_plan_without_a_budget_is_not_measured() -> None:
    assert chosen({}, (Plan(EIGHT),)) == Choice(Plan(EIGHT))


def test_the_texts_to_choose_by_and_those_to_judge_by_share_none() -> None:
    calibration, evaluation = corpus()
    assert len(calibration) > 200
    assert len(evaluation) > 150
    assert not set(calibration) & set(evaluation)


def test_vectors_that_are_not_finite_keep_nothing() -> None:
    reference = np.eye(3)
    broken = reference.copy()
    broken[0, 0] = np.nan
    assert compare_vectors(reference, reference).values == {"cosine": 1.0, "cosine_min": 1.0, "top1": 1.0}
    assert compare_vectors(reference, broken).misses({"cosine": 0.5})


def test_pages_that_change_places_are_seen_though_their_vectors_hardly_move() -> None:
    query = [np.array([[1.0, 0.0]], np.float32)]
    pages = [np.array([[0.9, 0.436]], np.float32), np.array([[0.901, 0.434]], np.float32)]
    found = compare_pages([*query, *query, *pages], [*query, *query, *pages[::-1]], 2)
    assert found.values["cosine"] > 0.999
    assert found.values["maxsim_top1"] == 0


def test_perplexity_is_bounded_from_above() -> None:
    budget = parse_keep(["perplexity=1.01x", "top1=0.9"])
    assert budget == {"perplexity": 1.01, "top1": 0.9}
    good, bad = (Quality({"perplexity": value, "top1": 0.95}, 10) for value in (1.005, 1.02))
    with pytest.raises(UsageError, match="--keep top1 has two bounds"):
        parse_keep(["top1=0.9", "top1=0.8"])
    assert not good.misses(budget)
    assert bad.misses(budget) == ("perplexity 1.02000 misses 1.01 by 0.01",)


@pytest.mark.parametrize("entry", ["perplexity=0.5", "cosine=1.01x", "top1", "beauty=1", "cosine=nan"])
def test_a_bound_that_means_nothing_is_refused(entry: str) -> None:
    with pytest.raises(UsageError, match="--keep"):
        parse_keep([entry])


@pytest.mark.parametrize(
    "plan",
    [
        Plan(Blocks(4, size=16, symmetric=False), {"a": None, "b": Columns(activations="row", smooth=0.5)}),
        Plan(NormalFloat(kind="fp4"), tables=False, half=True),
    ],
)
def test_a_plan_is_read_back_as_it_was_written(plan: Plan) -> None:
    assert read_plan(plan.to_json()) == plan


def test_a_miss_says_what_the_samples_it_was_chosen_by_said() -> None:
    """Eight pages had all kept their rank, fifty did not: nothing told the user that eight were too few."""
    plan = Plan(Columns())
    trial = Trial(plan, 10, Quality({"cosine": 0.99, "top1": 1.0}, samples=8))
    judged, budget = Quality({"cosine": 0.98, "top1": 0.86}, samples=50), {"cosine": 0.9, "top1": 0.97}
    row = PrecisionRow("q8", {}, {}, 0.26, judged, budget, plan, (trial,))
    with pytest.raises(ParityError, match=r"top1 0\.86000 misses 0\.97") as caught:
        QuantizationReport(Path(), (row,), ()).require_passed()
    assert "q8, on the 8 samples it was chosen by: top1 1.00000" in caught.value.message


def test_a_precision_that_holds_at_last_is_no_longer_one_that_missed() -> None:
    row = PrecisionRow("q8", {"model_quantized.onnx": 10}, {}, 0.26, None, {}, Plan(Columns()))
    other = {"bytes": 1}
    before = {"precisions": {"q4": other}, "missed_precisions": {"q8": other, "fp16": other}}
    record = QuantizationReport(Path(), (row,), ("q8",)).entered(before)
    assert record["precisions"].keys() == {"q4", "q8"}
    assert record["missed_precisions"] == {"fp16": other}


@pytest.mark.parametrize("content", [[], {"matrices": 3}, {"matrices": {"format": "clay"}, "exceptions": {}}])
def test_what_is_no_recipe_is_refused(content: object) -> None:
    with pytest.raises(UsageError, match="not the recipe of a precision"):
        read_plan(content)


def test_a_target_gets_formats_it_has_kernels_for() -> None:
    plans = [Plan(Columns(activations="row")), Plan(Blocks(8))]
    assert Tuning("webgpu").apply("q8", plans) == [Plan(Blocks(8))]
    assert Tuning("avx2").apply("q8", plans)[0].matrices.reduce_range
    (static,) = Tuning("tensorrt").apply("q8", plans)
    assert static.matrices == Columns(activations="static", symmetric=True)
    assert not static.tables
    with pytest.raises(UsageError, match="webgpu has no kernels for int8"):
        Tuning("webgpu").apply("int8", plans[:1])


def test_choices_about_formats_reach_them() -> None:
    tuning = Tuning(
        "avx512_vnni",
        per_channel=False,
        weight_type="QUInt8",
        block_size=128,
        symmetric=False,
        accuracy_level=0,
    )
    columns, blocks = tuning.apply("q8", [Plan(Columns()), Plan(Blocks(8))])
    assert columns.matrices == Columns(signed=False, per_channel=False)
    assert blocks.matrices == Blocks(8, size=128, symmetric=False, accuracy_level=0)


def test_calibrated_activations_leave_no_other_format() -> None:
    """`--precisions q8 --static entropy` wrote blocks, whose activations nobody calibrates."""
    plans = [Plan(Columns()), Plan(Blocks(8)), Plan(None, {"head": Columns()})]
    static = Tuning("avx512_vnni", static="entropy")
    assert [plan.label for plan in static.apply("q8", plans)] == [
        "int8 by column, activations calibrated",
        "matrices as they are; 1 x int8 by column, activations calibrated",
    ]
    assert static.apply("q4", [Plan(Blocks(4))]) == [
        Plan(Blocks(4))
    ]  # `require_used` says that it says nothing
