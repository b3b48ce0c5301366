"""Machines and models are told apart by what decides their speed, and by nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bendi.formats import read_gguf_split
from bendi.hardware import Cpu, Gpu, Machine, Memory, detect_machine
from bendi.measured import machine_id, model_key
from bendi.units import GIB

CPU = Cpu("AMD EPYC", "amd", "x86_64", 8, 16, 8, 8, frozenset({"avx2", "fma"}))
GPU = Gpu("RTX 4090", "nvidia", 0, 24 * GIB, 20 * GIB, driver="1", uuid="u")
MACHINE = Machine("Linux", "6.1", CPU, Memory(32 * GIB, 20 * GIB, None, 20 * GIB), (GPU,))


def test_this_machine_keeps_its_name() -> None:
    assert machine_id(detect_machine()) == machine_id(detect_machine())


@pytest.mark.parametrize(
    "same",
    [
        replace(MACHINE, release="6.9", disks=()),
        replace(MACHINE, memory=Memory(32 * GIB - 5_000_000, 3, 4 * GIB, 5, 6, 7)),
        replace(MACHINE, gpus=(replace(GPU, memory_free_bytes=1, driver="2", uuid="v"),)),
        replace(MACHINE, cpu=replace(CPU, isa=frozenset(["fma", "avx2"]))),
    ],
)
def test_what_changes_from_day_to_day_does_not_matter(same: Machine) -> None:
    assert machine_id(same) == machine_id(MACHINE)


@pytest.mark.parametrize(
    "other",
    [
        replace(MACHINE, gpus=()),
        replace(MACHINE, gpus=(GPU, GPU)),
        replace(MACHINE, gpus=(replace(GPU, memory_total_bytes=None),)),
        replace(MACHINE, cpu=replace(CPU, usable_cores=4)),
        replace(MACHINE, cpu=replace(CPU, isa=frozenset({"avx2"}))),
        replace(MACHINE, cpu=replace(CPU, model="AMD Ryzen")),
        replace(MACHINE, memory=Memory(64 * GIB)),
        Machine(),
    ],
)
def test_another_machine_has_another_name(other: Machine) -> None:
    assert machine_id(other) != machine_id(MACHINE)


def test_models_with_the_same_tensors_are_the_same(demo_model: Path, stories_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other-name.gguf"
    copy.write_bytes(demo_model.read_bytes())
    parts = read_gguf_split(demo_model)
    assert model_key(parts) == model_key(read_gguf_split(copy))
    assert model_key(parts) != model_key(read_gguf_split(stories_model))
    types = [tensor.type.name for part in parts for tensor in part.tensors]
    assert model_key(parts, types) == model_key(parts)
    assert model_key(parts, ["Q4_0" if name == "Q8_0" else name for name in types]) != model_key(parts)
