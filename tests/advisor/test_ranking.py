"""What a plan is worth: fast enough first, then good."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from bendi.advisor.catalogue_work import catalogue_subjects
from bendi.advisor.ranking import speed_for, standing
from bendi.hardware import parse_machine
from bendi.planner.placement import plan_subject
from bendi.planner.plan import Plan
from bendi.planner.subject import Conditions

MACHINE = parse_machine("ram=32GiB,cores=8")
SUBJECT = catalogue_subjects("qwen3:4b")["Q4_K_M"]
PLAN = plan_subject(SUBJECT, MACHINE, None, Conditions())


def at_speed(tok_s: float, ttft_s: float = 1.0) -> Plan:
    speeds = tuple(replace(speed, tg=replace(speed.tg, tok_s=tok_s)) for speed in PLAN.speeds)
    return replace(PLAN, speeds=speeds, ttft_s=ttft_s)


@given(st.floats(0.01, 1000), st.floats(0.01, 1000))
def test_faster_is_never_worse(one: float, other: float) -> None:
    slow, fast = sorted((one, other))
    assert standing(at_speed(fast), 3, 0.2).score >= standing(at_speed(slow), 3, 0.2).score


@given(st.floats(0.01, 1000), st.floats(0.01, 1000))
def test_waiting_is_never_better(one: float, other: float) -> None:
    short, long = sorted((one, other))
    assert standing(at_speed(10, short), 3, 0.2).score >= standing(at_speed(10, long), 3, 0.2).score


def test_quality_decides_between_comfortable_plans() -> None:
    assert standing(at_speed(12), 4, 0).score > standing(at_speed(24), 3.5, 0).score
    assert standing(at_speed(1), 4, 0).score < standing(at_speed(12), 3, 0).score


def test_thinking_needs_more_speed() -> None:
    assert standing(at_speed(9), 3, 0, thinking=True).score < standing(at_speed(9), 3, 0).score


def test_what_does_not_fit_is_last() -> None:
    full = parse_machine("ram=1GiB")
    plan = plan_subject(catalogue_subjects("qwen3:32b")["Q8_0"], full, None, Conditions(no_spill=True))
    assert plan.verdict == "does_not_fit"
    assert standing(plan, 10, 0).score == -inf
    assert speed_for(plan).tg.tok_s == 0
