from __future__ import annotations

import pytest

from bendi.hardware import Gpu, Machine, Memory
from bendi.planner.devices import devices_of
from bendi.planner.gpu_specs import gpu_named, gpu_specs, rates_by_specification, spec_of
from bendi.units import GIB


@pytest.mark.parametrize(
    ("vendor", "name", "row"),
    [
        ("nvidia", "NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti"),
        ("nvidia", "NVIDIA GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti Super"),
        ("nvidia", "NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop"),
        ("nvidia", "NVIDIA GeForce GTX 1080 Ti", "GTX 1080 Ti"),
        ("nvidia", "NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("nvidia", "NVIDIA A100-SXM4-40GB", "A100"),
        ("nvidia", "NVIDIA H100 80GB HBM3", "H100"),
        ("nvidia", "NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("nvidia", "Quadro RTX 6000", "Quadro RTX 6000"),
        ("nvidia", "NVIDIA RTX A2000 12GB", "RTX A2000"),
        ("nvidia", "RTX3060", "RTX 3060"),
        ("amd", "AMD Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("amd", "AMD Instinct MI300X", "Instinct MI300X"),
        ("intel", "Intel(R) Arc(TM) A770 Graphics", "Arc A770"),
        ("apple", "Apple M3 Max", "M3 Max"),
        ("apple", "Apple M1", "M1"),
    ],
)
def test_names_as_drivers_write_them(vendor: str, name: str, row: str) -> None:
    spec = spec_of(Gpu(name, vendor, 0))  # type: ignore[arg-type]
    assert spec.known and spec.name == row


def test_of_several_names_the_one_with_that_memory() -> None:
    listed = "AMD Radeon RX 7900 XT/7900 XTX/7900 GRE"
    assert spec_of(Gpu(listed, "amd", 0, 20 * GIB)).name == "RX 7900 XT"
    assert spec_of(Gpu(listed, "amd", 0, 24 * GIB)).name == "RX 7900 XTX"


def test_a_laptop_version_without_a_row_is_slower() -> None:
    laptop = spec_of(Gpu("NVIDIA GeForce RTX 2070 with Max-Q Design", "nvidia", 0))
    assert laptop.bandwidth_bytes_s < spec_of(Gpu("NVIDIA GeForce RTX 2070", "nvidia", 0)).bandwidth_bytes_s


@pytest.mark.parametrize("name", ["NVIDIA RTX A1000", "Radeon 9999", "", "\x00" * 500, "rtx " * 1000])
def test_unknown_gpus_get_a_careful_guess(name: str) -> None:
    small, large = (spec_of(Gpu(name, "nvidia", 0, size * GIB, compute_capability="8.6")) for size in (8, 24))
    assert not small.known and 0 < small.bandwidth_bytes_s < large.bandwidth_bytes_s
    assert small.bandwidth_bytes_s < gpu_specs()["nvidia", "RTX 3050"].bandwidth_bytes_s * 1.01


def test_every_row_is_sound() -> None:
    specs = gpu_specs()
    assert len(specs) >= 150
    for (vendor, name), spec in specs.items():
        assert vendor in ("nvidia", "amd", "intel", "apple")
        assert 60e9 <= spec.bandwidth_bytes_s <= 8e12 and 2e12 <= spec.flops <= 2.5e15, name
        assert GIB <= spec.memory_bytes <= 512 * GIB and 1e9 < spec.link_bytes_s < 300e9, name
        assert 0.2 < spec.generation_share < 0.85 and 0.05 < spec.prompt_share <= 1, name
        assert spec_of(Gpu(name, vendor, 0, spec.memory_bytes)).name == name  # type: ignore[arg-type]
        rates = rates_by_specification(spec)
        assert rates.source == "specification"
        assert all(rate.generation_bytes_s <= spec.bandwidth_bytes_s for rate in rates.types.values())


def test_public_numbers() -> None:
    """From the makers' pages: GB/s."""
    for vendor, name, gb_s in (
        ("nvidia", "RTX 3090", 936), ("nvidia", "RTX 4090", 1008), ("nvidia", "RTX 5090", 1792),
        ("nvidia", "H200", 4800), ("amd", "RX 7900 XTX", 960), ("apple", "M2 Ultra", 800), ("intel", "Arc B580", 456),
    ):  # fmt: skip
        assert gpu_specs()[vendor, name].bandwidth_bytes_s == gb_s * 1e9


def test_names_as_people_type_them() -> None:
    assert [found and found[1].name for found in map(gpu_named, ("4090", "rtx3060ti", "7900 XTX", "M2 Ultra"))] == [
        "RTX 4090", "RTX 3060 Ti", "RX 7900 XTX", "M2 Ultra",
    ]  # fmt: skip
    assert gpu_named("toaster") is gpu_named("") is None


def test_budgets_leave_room_for_others() -> None:
    machine = Machine(
        memory=Memory(32 * GIB, 28 * GIB, None, 28 * GIB),
        gpus=(
            Gpu("RTX 3060", "nvidia", 0, 12 * GIB, 11 * GIB),
            Gpu("RTX 3060", "nvidia", 1),  # its memory is not known: the row says it
            Gpu("Intel UHD", "intel", 0, unified=True),
            Gpu("RTX 3060", "nvidia", 2, 12 * GIB, 0),
        ),
    )
    devices = devices_of(machine)
    assert [gpu.index for gpu in devices.gpus] == [0, 1]
    assert all(10 * GIB < gpu.budget_bytes < 11.5 * GIB for gpu in devices.gpus)
    assert 27 * GIB < devices.host_budget_bytes < 28 * GIB
