"""Known cases, with numbers worked out by hand from the published dimensions."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from placement_cases import machine, subject

from bendi.hardware import parse_machine
from bendi.planner.placement import Conditions, default_calibration, fit_placement, plan_subject, worker_arguments
from bendi.planner.plan import WORKLOADS, Plan
from bendi.units import GIB, MIB

CHAT = Conditions()


def option(plan: Plan, name: str) -> str:
    arguments = worker_arguments(plan)
    return arguments[arguments.index(name) + 1]


def test_8b_lies_on_an_8_gb_gpu() -> None:
    plan = plan_subject(subject("Llama-3.1-8B", "Q4_K_M"), machine(32, ("RTX 4060", 8)), None, CHAT)
    host, gpu = plan.shares
    embedding_bytes = 128256 * 4096 * 144 // 256  # Q4_K
    assert (host.layers, gpu.layers, host.weights_bytes) == (0, 32, embedding_bytes)
    # File of the same model and quantization as published: 4,920,739,232 bytes.
    assert abs(plan.file_bytes / 4_920_739_232 - 1) < 0.002
    assert gpu.weights_bytes == pytest.approx(plan.file_bytes - embedding_bytes, rel=0.003)
    assert gpu.kv_bytes == 32 * 2 * 8 * 128 * 2 * plan.settings.context_tok
    assert host.kv_bytes == 0
    assert plan.verdict == "fits" and plan.settings.context_tok >= 16384
    assert option(plan, "-ngl") == "999" and option(plan, "--fit") == "off"


def test_70b_is_split_by_layers_between_24_gb_and_main_memory() -> None:
    plan = plan_subject(subject("Llama-3.1-70B", "Q4_K_M"), machine(64, ("RTX 4090", 24)), None, CHAT)
    host, gpu = plan.shares
    assert plan.verdict == "fits"
    assert host.layers + gpu.layers == 80 and 36 <= gpu.layers <= 46  # 39.6 GiB of weights, some 22 GiB of room
    assert gpu.used_bytes <= gpu.budget_bytes
    assert gpu.kv_bytes == gpu.layers * 2 * 8 * 128 * 2 * plan.settings.context_tok
    assert host.kv_bytes == host.layers * 2 * 8 * 128 * 2 * plan.settings.context_tok
    assert option(plan, "-ngl") == str(gpu.layers + 1)  # the head is counted as a layer


@pytest.mark.parametrize(
    ("name", "file_type", "ram_gib", "gpu"),
    [
        ("Qwen3-30B-A3B", "Q4_K_M", 32, ("RTX 3060", 12)),
        ("gpt-oss-120b", "MXFP4_MOE", 64, ("RTX 4090", 24)),
    ],
)
def test_experts_go_to_main_memory_before_anything_else(
    name: str, file_type: str, ram_gib: float, gpu: tuple[str, float]
) -> None:
    plan = plan_subject(subject(name, file_type), machine(ram_gib, gpu), None, CHAT)
    host, on_gpu = plan.shares
    assert (host.layers, host.kv_bytes) == (0, 0)
    assert on_gpu.layers == subject(name, file_type).work.layers
    assert 0 < on_gpu.expert_layers < on_gpu.layers
    assert option(plan, "-ncmoe") == str(on_gpu.expert_layers)
    assert any("experts" in reason for reason in plan.reasons)


def test_long_prompts_want_larger_batches_when_experts_are_copied() -> None:
    """Each batch copies nearly all experts over PCIe, so fewer batches are worth their larger buffers."""
    conditions = Conditions(workload=WORKLOADS["summarise"])
    place = machine(64, ("RTX 4090", 24))
    plan = plan_subject(subject("gpt-oss-120b", "MXFP4_MOE"), place, None, conditions)
    fitted = fit_placement(subject("gpt-oss-120b", "MXFP4_MOE"), place, None, conditions)
    assert plan.settings.n_ubatch == 2048
    assert plan.request_s < 0.8 * fitted.request_s


def test_two_gpus_share_the_layers() -> None:
    plan = plan_subject(subject("Llama-3.1-70B", "Q4_K_M"), machine(64, ("RTX 3090", 24), ("RTX 3090", 24)), None, CHAT)
    host, first, second = plan.shares
    assert host.layers == 0 and first.layers + second.layers == 80
    assert abs(first.layers - second.layers) <= 2
    assert plan.settings.tensor_split == (float(first.layers), float(second.layers + 1))
    assert option(plan, "-ts") == f"{first.layers},{second.layers + 1}"


def test_experts_are_balanced_over_two_gpus() -> None:
    """-ncmoe takes experts from the first layers only, so equal numbers of layers would overflow the last GPU."""
    place = machine(64, ("RTX 3090", 24), ("RTX 3090", 24))
    plan = plan_subject(subject("gpt-oss-120b", "MXFP4_MOE"), place, None, CHAT)
    _host, first, second = plan.shares
    assert first.layers > second.layers and first.expert_layers > 0 == second.expert_layers
    assert all(share.used_bytes <= share.budget_bytes for share in (first, second))


def test_weights_larger_than_memory_are_slow_or_refused() -> None:
    model, place = subject("Llama-3.1-70B", "Q4_K_M"), machine(16)
    slow = plan_subject(model, place, None, CHAT)
    refused = plan_subject(model, place, None, Conditions(no_spill=True))
    assert (slow.verdict, refused.verdict) == ("slow", "does_not_fit")
    assert slow.speeds[0].tg.tok_s < 0.5 and refused.speeds == ()
    assert any("disk" in reason for reason in slow.reasons)


def test_experts_make_reading_from_the_disk_bearable() -> None:
    """Only the chosen experts are read: per byte of the file, a model of experts is many times faster."""
    place = machine(48)
    experts = plan_subject(subject("Qwen3-235B-A22B", "Q4_K_M"), place, None, CHAT)
    dense = plan_subject(subject("Llama-3.1-70B", "Q8_0"), place, None, CHAT)
    assert experts.verdict == dense.verdict == "slow"
    assert experts.speeds[0].tg.tok_s * experts.file_bytes > 2 * dense.speeds[0].tg.tok_s * dense.file_bytes


def test_no_room_for_the_cache_does_not_fit() -> None:
    plan = plan_subject(subject("Llama-3.1-8B", "Q4_K_M"), machine(0.5), None, Conditions(context_tok=65536))
    assert plan.verdict == "does_not_fit"
    assert (plan.speeds, plan.request_s) == ((), 0.0)
    json.dumps(asdict(plan), allow_nan=False)


def test_a_context_is_as_long_as_costs_nothing() -> None:
    model = subject("Llama-3.1-8B", "Q4_K_M")
    roomy, tight = (plan_subject(model, machine(ram), None, CHAT) for ram in (32, 6))
    assert roomy.settings.context_tok == 32768
    assert 2048 <= tight.settings.context_tok < 32768 and tight.verdict == "fits"
    assert plan_subject(model, machine(32), None, Conditions(context_tok=4096)).settings.context_tok == 4096


def test_a_short_context_is_said() -> None:
    conditions = Conditions(min_context_tok=100_000)
    plan = plan_subject(subject("Qwen3-8B", "Q4_K_M"), machine(32), None, conditions)
    assert plan.settings.context_tok == 40960  # what it was trained for
    assert any("40960" in reason for reason in plan.reasons)


def test_q8_cache_only_where_f16_has_no_room() -> None:
    model = subject("Llama-2-7B", "Q4_K_M")  # 512 KiB of F16 cache a token
    conditions = Conditions(context_tok=4096)
    wide = plan_subject(model, machine(32, ("RTX 4060", 8)), None, conditions)
    narrow = plan_subject(model, machine(32, ("RTX 3060", 6)), None, conditions)
    assert (wide.settings.type_k, narrow.settings.type_k) == ("f16", "q8_0")
    assert narrow.settings.gpu_layers == 32
    wanted = Conditions(context_tok=4096, type_k="f16", type_v="f16")
    fixed = plan_subject(model, machine(32, ("RTX 3060", 6)), None, wanted)
    assert fixed.settings.type_k == fixed.settings.type_v == "f16" and fixed.request_s >= narrow.request_s


def test_speeds_fall_with_depth_and_stay_within_the_context() -> None:
    plan = plan_subject(subject("Llama-3.1-8B", "Q4_K_M"), machine(32, ("RTX 3090", 24)), None, CHAT)
    assert [speed.depth_tok for speed in plan.speeds] == [0, 2048, 8192]
    rates = [(speed.pp.tok_s, speed.tg.tok_s) for speed in plan.speeds]
    assert rates == sorted(rates, reverse=True)
    assert all(0 < speed.tg.error < 1 for speed in plan.speeds)


def test_a_processor_plan_without_gpu() -> None:
    place = machine(16)
    calibration = default_calibration(place)
    plan = plan_subject(subject("Qwen3-8B", "Q4_K_M"), place, calibration, Conditions(threads=6, parallel=2))
    assert len(plan.shares) == 1 and not plan.calibrated
    assert plan.shares[0].kv_bytes == 36 * 2 * 8 * 128 * 2 * plan.settings.context_tok * 2
    assert option(plan, "-t") == "6" and option(plan, "-np") == "2"
    assert option(plan, "-c") == str(2 * plan.settings.context_tok)
    assert any("bendi calibrate" in reason for reason in plan.reasons)
    assert plan.load_cold_s > plan.load_warm_s > 0


def test_shared_memory_is_counted_once() -> None:
    mac = parse_machine("ram=24GiB,free=20GiB,gpu=M4 Pro")
    plan = plan_subject(subject("Qwen3-32B", "Q4_K_M"), mac, None, CHAT)
    assert sum(share.used_bytes for share in plan.shares) <= 20 * GIB or plan.verdict == "slow"
    small = plan_subject(subject("Qwen3-8B", "Q4_K_M"), mac, None, CHAT)
    host, gpu = small.shares
    assert host.budget_bytes + gpu.used_bytes <= 20 * GIB - 256 * MIB
    assert small.verdict == "fits" and gpu.layers == 36


def test_a_tied_head_takes_room_on_the_gpu_again() -> None:
    plan = plan_subject(subject("Qwen3-4B", "Q4_K_M"), machine(16, ("RTX 3060", 12)), None, CHAT)
    host, gpu = plan.shares
    embedding_bytes = 151936 * 2560 * 210 // 256  # Q6_K, as it is the head too
    assert host.weights_bytes == embedding_bytes
    total_bytes = subject("Qwen3-4B", "Q4_K_M").work.total_bytes
    assert host.weights_bytes + gpu.weights_bytes == total_bytes + embedding_bytes


PUBLISHED = (  # llama.cpp, Llama 3 8B Q4_K_M, 1024 tokens (XiongjieDai/GPU-Benchmarks-on-LLM-Inference, May 2024)
    ("RTX 3070", 8, 70.94, 2283.62),
    ("RTX 3080", 10, 106.40, 3557.02),
    ("RTX 4070 Ti", 12, 82.21, 3653.07),
    ("RTX 4080", 16, 106.22, 5064.99),
    ("RTX 4000 Ada", 20, 58.59, 2310.53),
    ("RTX 3090", 24, 111.74, 3865.39),
    ("RTX 4090", 24, 127.74, 6898.71),
    ("RTX A6000", 48, 102.22, 3621.81),
    ("RTX 6000 Ada", 48, 130.99, 5560.94),
    ("L40S", 48, 113.60, 5908.52),
    ("A100-PCIE-80GB", 80, 138.31, 5800.48),
    ("H100 PCIe", 80, 144.49, 7760.16),
)


@pytest.mark.parametrize(("name", "gib", "tg_tok_s", "pp_tok_s"), PUBLISHED)
def test_published_runs_lie_within_the_error(name: str, gib: float, tg_tok_s: float, pp_tok_s: float) -> None:
    """The shares of the peak were chosen by these runs: this holds them to it, it does not prove them elsewhere."""
    plan = plan_subject(subject("Llama-3.1-8B", "Q4_K_M"), machine(64, (name, gib)), None, CHAT)
    speed = plan.speeds[0]
    assert abs(tg_tok_s / speed.tg.tok_s - 1) < speed.tg.error
    assert abs(pp_tok_s / speed.pp.tok_s - 1) < speed.pp.error


@pytest.mark.parametrize(("name", "tg_tok_s"), [("RTX 3090", 16.29), ("RTX 4090", 19.06)])
def test_published_runs_on_two_gpus(name: str, tg_tok_s: float) -> None:
    """Llama 3 70B Q4_K_M; the same source."""
    plan = plan_subject(subject("Llama-3.1-70B", "Q4_K_M"), machine(64, (name, 24), (name, 24)), None, CHAT)
    assert abs(tg_tok_s / plan.speeds[0].tg.tok_s - 1) < plan.speeds[0].tg.error
