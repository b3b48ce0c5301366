"""Several calibrations together: kept as text, and the middle of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.errors import StoreError
from bendi.planner.calibration import AttentionRates, Calibration, DeviceRates, TypeRates
from bendi.planner.calibration_runs import MOST_RUNS, combined, from_json, runs_from_json, times_measured, to_json
from bendi.planner.work import AttentionWork

PART = AttentionWork(1, 32, 8192, 2048)


def run(
    speed: float = 1.0,
    *,
    threads: int = 4,
    disturbed: float = 0.0,
    types: tuple[str, ...] = ("Q8_0",),
    moment: str = "1",
) -> Calibration:
    """A run of a machine that seemed to be `speed` times as fast as it is."""
    cpu = DeviceRates(
        name="a processor",
        threads=threads,
        types={name: TypeRates(4e10 * speed, 1e11 * speed, 8e10 * speed, 1e9) for name in types},
        attention={
            "f16": AttentionRates(
                5e-9 / speed, 3e-11 / speed, 9e-11 / speed, 5e-10 / speed, 1e-11 / speed,
                near_numbers=1 << 19, prompt_far=1 + speed / 2,
            )
        },
        token_s=1e-4 / speed,
        layer_s=4e-5 / speed,
        vocabulary_s=1e-8 / speed,
        prompt_layer_s=4e-6 / speed,
    )  # fmt: skip
    return Calibration(
        "m", "b", moment, 50.0, cpu, 4e10 * speed, 1e9, 1.02, 0.05, {4: 1.0, 2: 0.7}, disturbed_share=disturbed
    )


def test_kept_as_text() -> None:
    runs = (run(), run(0.9, moment="2"))
    assert runs_from_json(to_json(runs)) == runs
    assert from_json(to_json(runs[:1])) == runs[0]
    assert len(runs_from_json(to_json([run()] * 9))) == MOST_RUNS


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 4, "runs": []}', to_json([run()]).replace('"noise"', '"x"')]
)
def test_text_of_another_version_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="calibration") as caught:
        from_json(text)
    assert caught.value.hint == "bendi calibrate"


def test_one_bad_run_of_three_does_not_count() -> None:
    good, bad = run(), run(0.5)
    for runs in permutations((good, run(1.01), bad)):
        together = combined(runs)
        assert together.runs == 3
        assert together.cpu.types == good.cpu.types
        found, expected = together.cpu.attention["f16"], good.cpu.attention["f16"]
        assert found.generation_s(PART, 1000) == expected.generation_s(PART, 1000)
        assert found.prompt_s(PART, 9000) == pytest.approx(expected.prompt_s(PART, 9000), rel=0.05)


def test_disturbed_runs_count_only_where_there_is_nothing_better() -> None:
    assert combined([run(0.5, disturbed=0.5), run(0.6, disturbed=0.3), run()]).cpu == run().cpu
    assert combined([run(), run(0.5, disturbed=0.5)]).cpu == run().cpu
    assert combined([run(0.5, disturbed=0.9)]).cpu == run(0.5).cpu


def test_runs_with_other_threads_than_usual_do_not_count() -> None:
    assert combined([run(), run(), run(0.5, threads=1)]).cpu == run().cpu
    assert combined([run(0.5, threads=1), run()]).cpu == run().cpu, "of two, the last one"


def test_types_that_only_one_run_reached_are_kept() -> None:
    together = combined([run(types=("Q8_0", "Q4_K")), run(), run()])
    assert set(together.cpu.types) == {"Q8_0", "Q4_K"}


@given(st.lists(st.floats(0.3, 3), min_size=1, max_size=5))
def test_the_middle_is_never_outside(speeds: list[float]) -> None:
    runs = [run(speed, moment=str(at)) for at, speed in enumerate(speeds)]
    together = combined(runs)
    rates = [each.cpu.types["Q8_0"].generation_bytes_s for each in runs]
    assert min(rates) <= together.cpu.types["Q8_0"].generation_bytes_s <= max(rates)
    slopes = [each.cpu.attention["f16"].generation_s(PART, 5000) for each in runs]
    assert min(slopes) <= together.cpu.attention["f16"].generation_s(PART, 5000) <= max(slopes)
    assert together.measured_at == str(len(speeds) - 1)
    assert from_json(to_json(runs)) == replace(together)


def with_experts(found: Calibration, **experts: float) -> Calibration:
    """The run with these rates of experts; the other types' were not measured."""
    types = {
        name: replace(rates, prompt_expert_weights_s=experts.get(name, 0.0)) for name, rates in found.cpu.types.items()
    }
    return replace(found, cpu=replace(found.cpu, types=types))


def test_experts_count_where_they_were_measured_and_are_guessed_from_the_others() -> None:
    types = ("Q8_0", "Q4_K", "Q4_0")
    runs = [
        with_experts(run(types=types), Q8_0=6e10),
        with_experts(run(types=types), Q8_0=7e10, Q4_K=5e10),
        with_experts(run(types=types), Q8_0=8e10),
    ]
    found = combined(runs).cpu.types
    assert [found[name].prompt_expert_weights_s for name in types] == pytest.approx([7e10, 5e10, 6e10])
    assert combined(runs[:1]).cpu.types["Q4_0"].prompt_expert_weights_s == pytest.approx(6e10)
    assert combined([with_experts(run())]).cpu.types["Q8_0"].prompt_expert_weights_s == 1e11, "none is known"


def test_how_often_something_was_measured() -> None:
    runs = [with_experts(run(types=("Q8_0", "Q4_K")), Q4_K=1e10), run(types=("Q8_0",))]
    assert times_measured(runs, "dense", "Q8_0") == 2
    assert times_measured(runs, "dense", "Q4_K") == 1
    assert times_measured(runs, "experts", "Q8_0") == 1
    assert times_measured(runs, "cache", "f16") == 2
    assert times_measured(runs, "cache", "q8_0") == times_measured([], "dense", "Q8_0") == 0


def test_a_type_that_only_a_disturbed_run_measured_is_kept() -> None:
    quiet, disturbed = run(types=("Q8_0",)), run(0.5, disturbed=0.5, types=("Q8_0", "Q4_K"))
    types = combined([disturbed, quiet]).cpu.types
    assert types["Q8_0"].generation_bytes_s == 4e10 and types["Q4_K"].generation_bytes_s == 2e10


def test_of_one_type_the_undisturbed_rates_count() -> None:
    def marked(found: Calibration) -> Calibration:
        types = {name: replace(rates, disturbed=True) for name, rates in found.cpu.types.items()}
        return replace(found, cpu=replace(found.cpu, types=types))

    assert combined([marked(run(0.1)), run(), marked(run(0.2))]).cpu.types["Q8_0"].generation_bytes_s == 4e10
    assert times_measured([marked(run()), run()], "dense", "Q8_0") == 1
