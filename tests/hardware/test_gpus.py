from __future__ import annotations

from pathlib import Path

import pytest
from machines import GIB, MIB, PCI_IDS, Tree, card, laptop, small_vm, write

from bendi.hardware import Gpu, detect_gpus, nvidia_smi
from bendi.hardware.gpus import has_nvidia


def gpus_of(folder: Path, tree: Tree) -> tuple[Gpu, ...]:
    return detect_gpus(write(folder, tree))


def test_none(tmp_path: Path) -> None:
    assert gpus_of(tmp_path, small_vm()) == ()


def test_laptop_that_shares_memory(tmp_path: Path) -> None:
    (gpu,) = gpus_of(tmp_path, laptop())
    assert (gpu.name, gpu.vendor, gpu.driver) == ("Intel Iris Xe Graphics", "intel", "i915")
    assert gpu.unified and gpu.memory_total_bytes is None


def test_amd_card(tmp_path: Path) -> None:
    facts = {"mem_info_vram_total": 24 * GIB, "mem_info_vram_used": 2 * GIB, "mem_info_vram_vendor": "samsung"}
    facts |= {"mem_info_gtt_total": 32 * GIB, "unique_id": "ab12"}
    (gpu,) = gpus_of(tmp_path, card(1, "0x1002", "0x744c", "amdgpu", "0000:03:00.0", **facts) | pci_ids())
    assert gpu.name == "AMD Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M"
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes, gpu.unified) == (24 * GIB, 22 * GIB, False)
    assert (gpu.index, gpu.driver, gpu.uuid) == (0, "amdgpu", "ab12")


@pytest.mark.parametrize("maker", ["unknown", None])
def test_amd_processor_with_graphics(tmp_path: Path, maker: str | None) -> None:
    facts: dict[str, object] = {"mem_info_vram_total": 512 * MIB, "mem_info_vram_used": 100 * MIB}
    facts |= {"mem_info_gtt_total": 48 * GIB, "mem_info_gtt_used": 1 * GIB, "class": "0x030000"}
    facts |= {} if maker is None else {"mem_info_vram_vendor": maker}
    (gpu,) = gpus_of(tmp_path, card(0, "0x1002", "0x1586", "amdgpu", "0000:c5:00.0", **facts))
    assert gpu.unified
    assert gpu.memory_total_bytes == 48 * GIB + 512 * MIB
    assert gpu.memory_free_bytes == 47 * GIB + 412 * MIB
    assert gpu.name == "AMD 1002:1586"  # no list of names here


def test_amd_accelerator_whose_memory_has_no_maker(tmp_path: Path) -> None:
    facts = {"mem_info_vram_total": 192 * GIB, "mem_info_vram_vendor": "unknown", "class": "0x120000"}
    (gpu,) = gpus_of(tmp_path, card(0, "0x1002", "0x74a1", "amdgpu", "0000:05:00.0", **facts))
    assert (gpu.unified, gpu.memory_total_bytes) == (False, 192 * GIB)


def test_intel_card(tmp_path: Path) -> None:
    tree = card(0, "0x8086", "0xe20b", "xe", "0000:03:00.0") | pci_ids()
    tree["sys/class/drm/card0/device/tile0/physical_vram_size_bytes"] = "0x2f8000000"
    (gpu,) = gpus_of(tmp_path, tree)
    assert (gpu.name, gpu.memory_total_bytes, gpu.unified) == ("Intel Arc B580", 0x2F8000000, False)


def test_several(tmp_path: Path) -> None:
    tree = card(0, "0x1234", "0x1111", "bochs-drm", "0000:00:01.0")  # a virtual display
    tree |= card(2, "0x1002", "0x744c", "amdgpu", "0000:03:00.0", mem_info_vram_total=1, mem_info_vram_vendor="hynix")
    tree |= card(10, "0x1002", "0x744c", "amdgpu", "0000:13:00.0", mem_info_vram_total=2, mem_info_vram_vendor="hynix")
    tree |= card(1, "0x10de", "0x2684", "nouveau", "0000:01:00.0")
    found = [(gpu.vendor, gpu.index, gpu.memory_total_bytes) for gpu in gpus_of(tmp_path, tree)]
    assert found == [("nvidia", 0, None), ("amd", 0, 1), ("amd", 1, 2)]


def test_nvidia_server_without_displays(tmp_path: Path) -> None:
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.90.07  Fri May 31 09:35:42 UTC 2024\nGCC version: 12"
    tree = {"proc/driver/nvidia/version": version}
    for slot in ("0000:1b:00.0", "0000:43:00.0"):
        tree[f"proc/driver/nvidia/gpus/{slot}/information"] = (
            f"Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 18\nGPU UUID: \t GPU-{slot[5:7]}\nBus Location: \t {slot}"
        )
    first, second = gpus_of(tmp_path, tree)
    assert (first.name, first.driver, first.uuid, first.index) == ("NVIDIA H100 80GB HBM3", "550.90.07", "GPU-1b", 0)
    assert (second.uuid, second.index, second.memory_total_bytes) == ("GPU-43", 1, None)
    assert has_nvidia(tmp_path)


def test_no_nvidia(tmp_path: Path) -> None:
    assert not has_nvidia(tmp_path)


def test_nvidia_smi_output() -> None:
    first, second = nvidia_smi.parse(
        "0, NVIDIA GeForce RTX 4090, GPU-1f9c, 560.35.03, 24564, 23010, 8.9\n"
        "1, NVIDIA GB10, GPU-77aa, 580.95.05, [N/A], [N/A], 12.1\n"
        "No devices were found\n"
    )
    assert first == Gpu(
        name="NVIDIA GeForce RTX 4090",
        vendor="nvidia",
        index=0,
        memory_total_bytes=24564 * MIB,
        memory_free_bytes=23010 * MIB,
        driver="560.35.03",
        uuid="GPU-1f9c",
        compute_capability="8.9",
    )
    assert second.unified and second.memory_total_bytes is None and second.compute_capability == "12.1"


@pytest.mark.parametrize("answer", ["exit 9", "echo 0, A, B, C, 1, 1, 9.0"])
def test_nvidia_smi_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert len(nvidia_smi.read_gpus()) == ("echo" in answer)


def test_nvidia_smi_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_smi.read_gpus() == ()


def pci_ids() -> Tree:
    return {"usr/share/misc/pci.ids": PCI_IDS}
