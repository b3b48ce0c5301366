"""Results of studies that nobody measured: drawn with a fixed seed from what machines are known to do."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bendi.energy.cost import CloudPrice, CostOptions, Hardware, Tariff
from bendi.report import Estimate, QualityRow, ReportOptions
from bendi.results import (
    Answer,
    Cell,
    Check,
    Energy,
    Failure,
    LoadedEngine,
    Prediction,
    Repeat,
    Results,
    StudyFacts,
    Workload,
)
from bendi.units import GIB

BEGAN_S = 1_795_900_000.0
# Quantization: (TG tok/s, PP tok/s, GiB, tokens as the reference).
QUANTIZATIONS = {
    "Q8_0": (18.4, 212.0, 8.1, 0.992),
    "Q6_K": (21.9, 158.0, 6.3, 0.981),
    "Q5_K_M": (25.0, 149.0, 5.5, 0.965),
    "Q4_K_M": (30.6, 187.0, 4.7, 0.943),
    "Q3_K_M": (33.1, 121.0, 3.9, 0.874),
    "IQ2_XS": (36.8, 96.0, 2.6, 0.71),
}
ENGINES = {"wheel": 1.0, "bendi": 1.36}
CHAT = Workload("chat", 512, 128, requests=2)
PROMPT = Workload("long prompt", 2048, 1)
MACHINE: Mapping[str, Any] = {
    "system": "Linux",
    "cpu": {"model": "AMD Ryzen 9 7950X", "usable_cores": 16},
    "memory": {"total_bytes": 64 * GIB},
    "gpus": [{"name": "NVIDIA GeForce RTX 4090"}, {"name": "NVIDIA GeForce RTX 4090"}],
}
COUNTER = ("cpu package", "dram")


@dataclass(frozen=True)
class Study:
    """What to make. `noise`: standard deviation of the logarithm of a speed. `meters`: (name, tier, covers, share of
    the true power that it sees)."""

    quantizations: Sequence[str] = tuple(QUANTIZATIONS)
    engines: Sequence[str] = tuple(ENGINES)
    workloads: Sequence[Workload] = (CHAT,)
    concurrencies: Sequence[int] = (1,)
    models: Sequence[str] = ("Llama-3.1-8B-Instruct",)
    settings: Sequence[Mapping[str, Any]] = ({"context_tok": 8192},)
    blocks: int = 10
    noise: float = 0.015
    meters: Sequence[tuple[str, str, tuple[str, ...], float]] = (("rapl", "counter", COUNTER, 1.0),)
    garbage: Sequence[str] = ()
    seed: int = 1
    title: str = "Llama 3.1 8B on this machine"
    machine: Mapping[str, Any] = field(default_factory=lambda: MACHINE)

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(
            Cell(model, quantization, engine, workload, settings, concurrency)
            for model in self.models
            for workload in self.workloads
            for concurrency in self.concurrencies
            for quantization in self.quantizations
            for engine in self.engines
            for settings in self.settings
        )


def made(study: Study | None = None) -> Results:
    """All repeats of all cells."""
    study = study or Study()
    generator = random.Random(study.seed)
    cells = study.cells
    repeats = []
    for block in range(study.blocks):
        slow = generator.lognormvariate(0, 0.03)
        for order, cell in enumerate(generator.sample(cells, len(cells))):
            repeats.append(
                _repeat(study, cell, block, order, slow * generator.lognormvariate(0, study.noise), generator)
            )
    first = {cell.configuration: cell for cell in cells}
    return Results(
        facts=StudyFacts(
            "study-1", study.title, 'title = "a study"\nblocks = 10\n', BEGAN_S, study.blocks, 7, "0.2.0",
            study.machine, cells,
        ),
        repeats=tuple(repeats),
        checks=tuple(_check(study, cell) for cell in first.values()),
        engines=tuple(_engine(cell) for cell in first.values()),
        predictions=tuple(_prediction(cell, generator) for cell in cells),
    )  # fmt: skip


def options(results: Results) -> ReportOptions:
    """Prices and qualities as a user would give them."""
    quality = tuple(
        QualityRow(
            cell.configuration, "Same top token", Estimate(100 * share, 100 * share - 0.6, 100 * share + 0.6), "%"
        )
        for cell in {cell.configuration: cell for cell in results.facts.cells}.values()
        if (share := QUANTIZATIONS.get(cell.quantization, (0, 0, 0, None))[3]) is not None
    )
    return ReportOptions(
        baseline="wheel",
        cost=CostOptions(Tariff("USD", 0.14), Hardware(2600, idle_w=60), utilisation=0.1),
        cloud=(
            CloudPrice("some-model-8b", 0.05, 0.08, "example.org/prices", "2026-11-20"),
            CloudPrice("large-model", 0.6, 2.4, "example.org/prices", "2026-11-20"),
            CloudPrice("undated", 0.01, 0.01, "", ""),
        ),
        quality=quality,
    )


def rich() -> Results:
    """A study with everything that can happen in it."""
    depths = [replace(CHAT, name=f"depth {depth}", depth_tok=depth) for depth in (4096, 16384)]
    study = Study(
        quantizations=("Q8_0", "Q5_K_M", "Q4_K_M", "IQ2_XS"),
        workloads=(CHAT, PROMPT, *depths),
        meters=(
            ("rapl", "counter", COUNTER, 1.0),
            ("plug", "wall", ("wall",), 1.45),
            ("power limit", "bound", ("gpu board",), 3.0),
        ),
        garbage=("IQ2_XS",),
    )
    many = replace(study, workloads=(CHAT,), concurrencies=(2, 4, 8), seed=2)
    one, other = made(study), made(many)
    cells = one.facts.cells + other.facts.cells
    lost = one.repeats[3]
    return replace(
        one,
        facts=replace(one.facts, cells=cells),
        repeats=_spoiled(one.repeats + other.repeats),
        predictions=one.predictions,
        engines=tuple(
            replace(each, differing=("flash_attention",)) if index == 2 else each
            for index, each in enumerate(one.engines)
        ),
        failures=(Failure(lost.cell, 10, "the engine did not answer in 60 s"),),
    )


def _spoiled(repeats: tuple[Repeat, ...]) -> tuple[Repeat, ...]:
    """Some of them disturbed, unsteady, or without energy."""
    found = []
    for index, each in enumerate(repeats):
        if index % 37 == 5:
            each = replace(each, slowness=1.4)
        if index % 41 == 7:
            each = replace(each, steady=False)
        if index % 29 == 3:
            lost = tuple(replace(energy, gross_j=None, reason="counter_reset") for energy in each.energy[:1])
            each = replace(each, energy=lost + each.energy[1:])
        if index % 31 == 4:
            each = replace(
                each, energy=(*each.energy[:1], *(replace(e, flags=("idle_drift",)) for e in each.energy[1:]))
            )
        found.append(each)
    return tuple(found)


def _speeds(cell: Cell) -> tuple[float, float]:
    """TG of one answer and PP, without noise."""
    tg, pp, _gib, _share = QUANTIZATIONS.get(cell.quantization, (20.0, 150.0, 5.0, 0.9))
    factor = ENGINES.get(cell.engine, 1.1)
    deeper = 1 + cell.workload.depth_tok / 12_000
    alone = tg * factor**0.3 / deeper
    return alone / (1 + 0.35 * (cell.concurrency - 1)), pp * factor / deeper


def _repeat(study: Study, cell: Cell, block: int, order: int, slow: float, generator: random.Random) -> Repeat:
    tg, pp = _speeds(cell)
    tg, pp = tg / slow, pp / slow
    load = cell.workload
    answers = []
    started_s = 0.0
    for _turn in range(max(load.requests, 1)):
        ttft_s = load.prompt_tok / pp
        between_s = 1 / tg
        arrivals = tuple(ttft_s + between_s * index for index in range(load.answer_tok))
        for _other in range(cell.concurrency):
            answers.append(
                Answer(started_s, started_s + arrivals[-1] + 0.01, arrivals, load.prompt_tok + load.depth_tok,
                       load.answer_tok, "length", cached_tok=load.depth_tok, server_tg_tok_s=tg * 1.01)
            )  # fmt: skip
        started_s += arrivals[-1] + 0.02
    watts = 60 + 45 * generator.lognormvariate(0, 0.02) + 3 * cell.concurrency
    energy = tuple(
        Energy(name, tier, covers, started_s, watts * seen * started_s, 38.0 * seen)  # type: ignore[arg-type]
        for name, tier, covers, seen in study.meters
    )
    size = QUANTIZATIONS.get(cell.quantization, (0.0, 0.0, 5.0, 0.0))[2]
    return Repeat(
        cell.key, block, order, BEGAN_S + 60 * block, started_s, tuple(answers), energy, 2,
        load_s=3 + generator.random(), peak_memory_bytes=int((size + 1.2) * GIB),
    )  # fmt: skip


def _check(study: Study, cell: Cell) -> Check:
    if cell.quantization in study.garbage and cell.engine == study.engines[-1]:
        return Check(cell.configuration, "garbage", "repeats one word for ever", 0.03, "Q8_0")
    share = QUANTIZATIONS.get(cell.quantization, (0.0, 0.0, 0.0, 0.9))[3]
    return Check(cell.configuration, "ok", "", share, "Q8_0")


def _engine(cell: Cell) -> LoadedEngine:
    size = QUANTIZATIONS.get(cell.quantization, (0.0, 0.0, 5.0, 0.0))[2]
    build = {"wheel": "xllamacpp 2026.10", "bendi": "native b6871 zen4"}.get(cell.engine, cell.engine)
    return LoadedEngine(
        cell.configuration, cell.engine, "b6871", build, "3f1c9a" + cell.configuration * 3, int(size * GIB),
        dict(cell.settings), dict(cell.settings),
    )  # fmt: skip


def _prediction(cell: Cell, generator: random.Random) -> Prediction:
    tg, pp = _speeds(cell)
    return Prediction(
        cell.key, pp * generator.lognormvariate(0, 0.08), tg * generator.lognormvariate(0, 0.05), 6 * GIB, 0.15
    )
