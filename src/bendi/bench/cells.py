"""The cells of a study, and the order in which a block measures them.

Within a block, configurations come in an order of chance, and the cells of one configuration stand together: an engine
is started once for all of them. Each block has an order of its own, so that whatever drifts (heat, neighbours of a
virtual machine) meets all of them alike.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bendi.bench.study import EngineChoice, Study
from bendi.results import Cell


@dataclass(frozen=True)
class Group:
    """The cells of one configuration in one block, in the order in which they are measured."""

    block: int
    order: int
    cells: tuple[Cell, ...]

    @property
    def configuration(self) -> str:
        return self.cells[0].configuration


def cells_of(study: Study, quantizations: Mapping[str, Sequence[str]]) -> tuple[Cell, ...]:
    """Every combination, without repetition. `quantizations`: of each model by name."""
    found: dict[str, Cell] = {}
    for model in study.models:
        for quantization, engine in itertools.product(quantizations[model.name], study.engines):
            for settings in settings_of(study, engine):
                for workload, concurrency, cache in itertools.product(
                    study.workloads, study.concurrency, study.cache
                ):  # fmt: skip
                    if workload.turns > 1:
                        cache = "fresh"  # each turn finds the turns before it in the cache, and nothing else
                    cell = Cell(model.name, quantization, engine.label, workload, settings, concurrency, cache)
                    found.setdefault(cell.key, cell)
    return tuple(found.values())


def settings_of(study: Study, engine: EngineChoice) -> list[dict[str, Any]]:
    """The combinations of settings for an engine: what it fixes is not varied."""
    swept = {name: values for name, values in study.settings.items() if name not in engine.settings}
    names = list(swept)
    return [
        {**dict(zip(names, values, strict=True)), **engine.settings} for values in itertools.product(*swept.values())
    ]


def groups_of(cells: Sequence[Cell], blocks: int, seed: int) -> list[Group]:
    """All blocks in their order; the same seed gives the same one."""
    by_configuration: dict[str, list[Cell]] = {}
    for cell in cells:
        by_configuration.setdefault(cell.configuration, []).append(cell)
    found = []
    for block in range(blocks):
        source = random.Random(f"{seed}/{block}")
        names = list(by_configuration)
        source.shuffle(names)
        for order, name in enumerate(names):
            members = list(by_configuration[name])
            source.shuffle(members)
            # What is in the cache of an engine must not serve a later cell: deep contexts come last.
            members.sort(key=lambda cell: cell.workload.depth_tok)
            found.append(Group(block, order, tuple(members)))
    return found


def left_of(groups: Iterable[Group], done: set[tuple[str, int]]) -> list[Group]:
    """What remains when the pairs of cell and block in `done` are there."""
    rest = []
    for group in groups:
        cells = tuple(cell for cell in group.cells if (cell.key, group.block) not in done)
        if cells:
            rest.append(Group(group.block, group.order, cells))
    return rest
