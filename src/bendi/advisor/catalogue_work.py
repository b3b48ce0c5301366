"""What every model of the catalogue takes and does, in every quantization that is offered: computed beforehand.

Working it out from the dimensions takes a second for each model, reading it from `catalogue_work.json` milliseconds for
all. `tools/catalogue_work.py` writes that file; a test works a sample out again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from bendi.advisor.packing import Pool, Unpacked
from bendi.planner.layers import LayeredWeights, LayerWork
from bendi.planner.memory_facts import CacheLayer, MemoryFacts, StateLayer
from bendi.planner.subject import Subject
from bendi.planner.work import AttentionWork, ModelWork, Weights

FILE_NAME = "catalogue_work.json"
_TYPES: Mapping[str, type] = {
    made.__name__: made
    for made in (
        *(Subject, ModelWork, Weights, AttentionWork, MemoryFacts, CacheLayer, StateLayer),
        *(LayeredWeights, LayerWork),
    )
}


def catalogue_subjects(alias: str) -> Mapping[str, Subject]:
    """The model of that short name by quantization, the most exact first; empty where its shapes are not known."""
    group = _table()["models"].get(alias)
    if group is None:
        return {}
    return _Lazy(Unpacked(group["entries"], _table()["classes"], _TYPES), group["quantizations"])


def packed(groups: Iterable[tuple[str, list[Subject]]]) -> str:
    """The contents of the file for (short name, subjects)."""
    classes: dict[str, list[str]] = {}
    models = {}
    for alias, subjects in groups:
        pool = Pool(classes)
        numbers = {subject.quantization: pool.add(subject) for subject in subjects}
        models[alias] = {"quantizations": numbers, "entries": pool.entries}
    lines = [f'"classes":{_compact(classes)}', '"models":{\n' + ",\n".join(
        f"{_compact(alias)}:{_compact(group)}" for alias, group in models.items()
    ) + "\n}"]  # fmt: skip
    return "{" + ",\n".join(lines) + "}\n"


class _Lazy(Mapping[str, Subject]):
    def __init__(self, unpacked: Unpacked, numbers: Mapping[str, int]) -> None:
        self._unpacked, self._numbers = unpacked, numbers

    def __getitem__(self, quantization: str) -> Subject:
        subject = self._unpacked.value(self._numbers[quantization])
        assert isinstance(subject, Subject)
        return subject

    def __iter__(self) -> Any:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


@cache
def _table() -> Mapping[str, Any]:
    text = resources.files("bendi.advisor").joinpath(FILE_NAME).read_text("utf-8")
    table: Mapping[str, Any] = json.loads(text)
    return table


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
