from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.errors import ConfigError
from bendi.hardware import Cpu, Disk, Gpu, Machine, Memory, machine_from_json, machine_to_json, parse_machine
from bendi.units import GIB

numbers = st.integers(0, 1 << 60)
counts = st.integers(1, 512)
texts = st.text(st.characters(categories=("L", "N", "P")), max_size=20)
machines = st.builds(
    Machine,
    system=texts,
    release=texts,
    cpu=st.builds(
        Cpu, texts, texts, texts, counts, counts, counts, counts, st.frozensets(texts, max_size=5), numbers, numbers,
        counts,
    ),
    memory=st.builds(Memory, numbers, numbers, st.none() | numbers, st.integers(1, 1 << 60), numbers, numbers),
    gpus=st.lists(
        st.builds(
            Gpu, texts, st.sampled_from(("nvidia", "amd", "intel", "apple")), st.integers(0, 9), st.none() | numbers,
            st.none() | numbers, texts, texts, texts, st.booleans(),
        ),
        max_size=3,
    ).map(tuple),
    disks=st.lists(
        st.builds(Disk, texts.map(Path), numbers, numbers, st.sampled_from(("ssd", "hdd", "unknown"))), max_size=2
    ).map(tuple),
)  # fmt: skip


@given(machines)
def test_what_was_written_is_read(machine: Machine) -> None:
    assert machine_from_json(json.dumps(machine_to_json(machine))) == machine


def test_what_is_absent_is_unknown() -> None:
    machine = machine_from_json('{"memory": {"total_bytes": 17179869184}, "gpus": [], "invented": 1}')
    assert machine.cpu == Cpu() and machine.disks == ()
    assert 0.8 * 16 * GIB < machine.memory.usable_bytes < 16 * GIB


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "null", '{"cpu": 5}', '{"cpu": {"usable_cores": "many"}}', '{"cpu": {"usable_cores": 0}}',
        '{"memory": {"total_bytes": -1}}', '{"memory": {"total_bytes": 1e30}}', '{"memory": {"total_bytes": true}}',
        '{"gpus": [{}]}', '{"gpus": [{"name": "x", "vendor": "toaster", "index": 0}]}', '{"gpus": {}}',
        '{"gpus": [{"name": "x\\u001b[2J", "vendor": "amd", "index": 0}]}', '{"cpu": {"isa": "avx"}}',
        '{"cpu": {}, "disks": [{"path": 3}]}', "[" * 100_000, " " * 2_000_000,
        '{"memory": {"total_bytes": ' + "9" * 5000 + "}}",
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        machine_from_json(text)
    assert error.value.hint


def test_short_descriptions() -> None:
    machine = parse_machine("ram=32GiB,cores=8,gpu=RTX 4090")
    assert machine.memory.total_bytes == 32 * GIB
    assert machine.cpu.usable_cores == machine.cpu.performance_cores == 8
    assert [(gpu.name, gpu.vendor, gpu.memory_total_bytes) for gpu in machine.gpus] == [("RTX 4090", "nvidia", None)]
    two = parse_machine("ram=64GiB, gpu=2xRTX 3090:24GiB, gpu=RX 7900 XTX, disk=hdd, free=60GiB")
    assert [(gpu.vendor, gpu.index) for gpu in two.gpus] == [("nvidia", 0), ("nvidia", 1), ("amd", 2)]
    assert two.gpus[0].memory_free_bytes == 24 * GIB and two.disks[0].kind == "hdd"
    assert two.memory.usable_bytes == 60 * GIB


def test_a_described_mac_shares_its_memory() -> None:
    machine = parse_machine("ram=64GiB,gpu=M3 Max")
    gpu = machine.gpus[0]
    assert (gpu.vendor, gpu.unified, machine.system, machine.cpu.vendor) == ("apple", True, "Darwin", "Apple")
    assert gpu.memory_total_bytes == 48 * GIB
    assert parse_machine("ram=128GiB,gpu=Radeon 8060S").gpus[0].unified


@pytest.mark.parametrize(
    "text",
    ["", "ram", "ram=", "ram=lots", "ram=0", "cores=8", "ram=8GiB,cores=0", "ram=8GiB,cores=9999999",
     "ram=8GiB,ram=4GiB",
     "ram=8GiB,colour=red", "ram=8GiB,disk=tape", "ram=8GiB,free=9GiB", "ram=8GiB,gpu=0xRTX", "ram=8GiB,gpu=a:b:c",
     "ram=8GiB,gpu=99xRTX 3090", "ram=" + "9" * 400 + "TiB", "ram=8GiB,gpu=x:1QiB", "," * 100],
)  # fmt: skip
def test_short_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_machine(text)


@given(st.text(max_size=60))
def test_any_text_is_a_machine_or_an_error(text: str) -> None:
    for read in (machine_from_json, parse_machine):
        with suppress(ConfigError):
            assert isinstance(read(text), Machine)
