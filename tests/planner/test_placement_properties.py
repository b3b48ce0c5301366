"""What must hold for every model on every machine."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st
from placement_cases import machine, subject

from bendi.hardware import Machine
from bendi.planner.calibration import Calibration
from bendi.planner.placement import Conditions, Subject, default_calibration, fit_placement, plan_subject
from bendi.planner.plan import WORKLOADS, Plan, Workload
from bendi.units import GIB

MODELS = ("Llama-3.1-8B", "Llama-3.1-70B", "Qwen3-0.6B", "Qwen3-30B-A3B", "gpt-oss-20b", "Gemma-3-12B",
          "DeepSeek-V2-Lite", "Granite-4.0-H-Tiny", "Mamba2-2.7B", "LFM2-8B-A1B", "Mixtral-8x7B",
          "GLM-4.5-Air")  # fmt: skip
FAMILY = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
RISING_GPUS = ("RTX 3060", "RTX 3090", "RTX 4090", "RTX 5090")
"""Each is at least as good as the one before it in every number."""
subjects = st.builds(subject, st.sampled_from(MODELS), st.sampled_from(("Q8_0", "Q4_K_M", "Q2_K")))
rams = st.floats(0.25, 300)
gpus = st.lists(st.tuples(st.sampled_from(RISING_GPUS), st.floats(1, 48)), max_size=3)
workloads = st.sampled_from([*WORKLOADS.values(), Workload("tiny", 0, 1, 1), Workload("write", 0, 20, 4000)])
many = settings(max_examples=60, deadline=None)


@cache
def calibration() -> Calibration:
    return default_calibration(machine(32))


def fixed(workload: Workload) -> Conditions:
    """Nothing is left to choose but the placement."""
    return replace(Conditions(workload=workload, context_tok=workload.context_tok), type_k="f16", type_v="f16")


def ranked(plan: Plan) -> float:
    return plan.request_s if plan.verdict != "does_not_fit" else float("inf")


@many
@given(subjects, rams, gpus, workloads, st.booleans())
def test_what_fits_stays_within_every_budget(
    model: Subject, ram: float, cards: list[tuple[str, float]], workload: Workload, no_spill: bool
) -> None:
    plan = plan_subject(model, machine(ram, *cards), None, Conditions(workload=workload, no_spill=no_spill))
    if plan.verdict == "does_not_fit":
        return
    assert all(share.used_bytes <= share.budget_bytes for share in plan.shares[1:])
    host = plan.shares[0]
    assert (host.used_bytes <= host.budget_bytes) == (plan.verdict == "fits")
    assert host.used_bytes - host.weights_bytes <= host.budget_bytes
    assert sum(share.layers for share in plan.shares) == model.work.layers
    assert plan.settings.context_tok <= max(model.facts.context_length, 512)
    assert not (no_spill and plan.verdict == "slow")


@many
@given(subjects, rams, gpus, workloads)
def test_never_slower_than_what_the_engine_would_choose(
    model: Subject, ram: float, cards: list[tuple[str, float]], workload: Workload
) -> None:
    place, conditions = machine(ram, *cards), Conditions(workload=workload)
    plan, fitted = plan_subject(model, place, None, conditions), fit_placement(model, place, None, conditions)
    assert ranked(plan) <= ranked(fitted) * (1 + 1e-9)


@many
@given(subjects, rams, st.floats(1, 4), gpus, workloads)
def test_more_main_memory_is_never_slower(
    model: Subject, ram: float, more: float, cards: list[tuple[str, float]], workload: Workload
) -> None:
    few, many_bytes = (
        plan_subject(model, machine(size, *cards), calibration(), fixed(workload)) for size in (ram, ram * more)
    )
    assert ranked(many_bytes) <= ranked(few) * (1 + 1e-9)


@many
@given(subjects, rams, st.sampled_from(RISING_GPUS), st.integers(0, 2), st.floats(1, 40), st.floats(1, 4), workloads)
def test_more_gpu_memory_is_never_slower(
    model: Subject, ram: float, name: str, count: int, size: float, more: float, workload: Workload
) -> None:
    few, much = (
        plan_subject(model, machine(ram, *[(name, gib)] * count), calibration(), fixed(workload))
        for gib in (size, size * more)
    )
    assert ranked(much) <= ranked(few) * (1 + 1e-9)


@many
@given(subjects, rams, st.floats(1, 48), workloads)
def test_a_better_gpu_is_never_slower(model: Subject, ram: float, size: float, workload: Workload) -> None:
    times = [
        ranked(plan_subject(model, machine(ram, (name, size)), calibration(), fixed(workload))) for name in RISING_GPUS
    ]
    without = ranked(plan_subject(model, machine(ram), calibration(), fixed(workload)))
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in zip([without, *times], times, strict=False))


@many
@given(subjects, rams, gpus, workloads, st.floats(1, 8), st.sampled_from(("read", "prompt", "disk")))
def test_higher_rates_are_never_slower(
    model: Subject, ram: float, cards: list[tuple[str, float]], workload: Workload, more: float, rate: str
) -> None:
    usual = calibration()
    types = {
        name: replace(
            rates,
            generation_bytes_s=rates.generation_bytes_s * (more if rate == "read" else 1),
            prompt_weights_s=rates.prompt_weights_s * (more if rate == "prompt" else 1),
        )
        for name, rates in usual.cpu.types.items()
    }
    disk = usual.disk_read_bytes_s * (more if rate == "disk" else 1)
    faster = replace(usual, cpu=replace(usual.cpu, types=types), disk_read_bytes_s=disk)
    slow, fast = (plan_subject(model, machine(ram, *cards), rates, fixed(workload)) for rates in (usual, faster))
    assert ranked(fast) <= ranked(slow) * (1 + 1e-9)


@many
@given(subjects, st.integers(1, 131072), st.integers(1, 131072), st.sampled_from(("f16", "q8_0", "q4_0")))
def test_more_context_never_needs_less(model: Subject, one: int, other: int, kind: str) -> None:
    short, long = sorted((one, other))
    needs = [
        plan_subject(model, machine(2000), None, Conditions(context_tok=tokens, type_k=kind, type_v=kind)).shares[0]
        for tokens in (short, long)
    ]
    assert needs[0].used_bytes <= needs[1].used_bytes


def test_fewer_bits_never_take_more_bytes() -> None:
    for name in MODELS:
        sizes = [subject(name, file_type).file_bytes for file_type in FAMILY]
        assert sizes == sorted(sizes, reverse=True), name


def test_sums_over_layers_are_the_whole() -> None:
    for name in MODELS:
        model = subject(name, "Q4_K_M")
        layers = model.layers
        parts = [*layers.layers, layers.head]
        embedding_bytes = layers.head.size_bytes - _norms(model) if layers.tied_head else 0
        total_bytes = sum(layer.size_bytes for layer in parts) + layers.kept_bytes - embedding_bytes
        assert abs(total_bytes - model.work.total_bytes) <= 64, name
        used = sum(group.bytes_per_token for layer in parts for group in layer.weights)
        assert abs(used - model.work.bytes_per_token) < 1, name
        assert sum(layer.expert_bytes for layer in layers.layers) == model.work.expert_bytes, name


def _norms(model: Subject) -> int:
    """Of what follows the last layer, all that is no matrix."""
    return model.layers.head.size_bytes - round(sum(group.total_bytes for group in model.layers.head.weights))


@many
@given(st.integers(0, 2**62), st.integers(0, 2**50), st.integers(1, 2**40), gpus)
def test_impossible_sizes_end(context_tok: int, vocab_size: int, scale: int, cards: list[tuple[str, float]]) -> None:
    model = subject("Qwen3-30B-A3B", "Q4_K_M")
    layers = replace(
        model.layers,
        layers=tuple(
            replace(layer, size_bytes=layer.size_bytes * scale, expert_bytes=layer.expert_bytes * scale)
            for layer in model.layers.layers
        ),
    )
    hostile = replace(
        model,
        facts=replace(
            model.facts,
            context_length=context_tok,
            vocab_size=vocab_size,
            weights_bytes=model.facts.weights_bytes * scale,
        ),
        layers=layers,
    )
    place: Machine = machine(64, *cards)
    assert plan_subject(hostile, place, None, Conditions()).verdict in ("fits", "slow", "does_not_fit")
    assert fit_placement(hostile, place, None, Conditions()).model == "Qwen3-30B-A3B"
    assert plan_subject(hostile, replace(place, memory=replace(place.memory, usable_bytes=GIB)), None, Conditions())
