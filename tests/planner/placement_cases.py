"""Machines and models for the tests of placement."""

from __future__ import annotations

from functools import cache

import published_configs
from bendi.formats.blueprints import blueprint_from_config
from bendi.hardware import Cpu, Gpu, Machine, Memory
from bendi.planner.placement import Subject, subjects_of
from bendi.units import GIB

_CONFIGS = {
    item.name: item.config
    for value in vars(published_configs).values()
    if isinstance(value, tuple)
    for item in value
    if isinstance(item, published_configs.Published)
}


@cache
def subject(name: str, file_type: str) -> Subject:
    blueprint = blueprint_from_config(_CONFIGS[name], name)
    return subjects_of(name, [blueprint.header()], [file_type])[0]


def machine(ram_gib: float, *gpus: tuple[str, float], cores: int = 8) -> Machine:
    """All of `ram_gib` can be used, and all of each GPU's memory is free."""
    ram_bytes = int(ram_gib * GIB)
    return Machine(
        system="Linux",
        cpu=Cpu(
            model="test",
            architecture="x86_64",
            physical_cores=cores,
            usable_cores=cores,
            performance_cores=cores,
            isa=frozenset({"avx2", "avx_vnni"}),
        ),
        memory=Memory(ram_bytes, ram_bytes, None, ram_bytes),
        gpus=tuple(
            Gpu(name, "nvidia", index, int(gib * GIB), int(gib * GIB)) for index, (name, gib) in enumerate(gpus)
        ),
    )
