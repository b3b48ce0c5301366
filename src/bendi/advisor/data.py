"""Advice as what JSON can hold: names of fields are keys, what is not a number is null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from bendi.advisor.advice import Advice
from bendi.advisor.fit import FitRow
from bendi.advisor.plans import ModelPlans

SCHEMA = 1


def plain(value: Any) -> Any:
    """`value` with dataclasses as objects and sets as sorted lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def plans_record(plans: ModelPlans, advice: Advice) -> dict[str, Any]:
    """The plans of a model: what `bendi plan --json` prints. Keys stay what they are."""
    return {"schema": SCHEMA, **plain(plans), "machine": machine_record(advice)}


def fit_record(rows: Sequence[FitRow], advice: Advice) -> dict[str, Any]:
    """The ranked catalogue: what `bendi fit --json` prints."""
    return {"schema": SCHEMA, "machine": machine_record(advice), "models": plain(tuple(rows))}


def machine_record(advice: Advice) -> dict[str, Any]:
    """What plans were made for."""
    machine = advice.machine
    return {
        "here": advice.here,
        "cpu": machine.cpu.model or machine.cpu.architecture,
        "usable_cores": machine.cpu.usable_cores,
        "usable_bytes": machine.memory.usable_bytes,
        "gpus": [gpu.name for gpu in machine.gpus],
        "build": advice.build,
        "measured": advice.measured,
        "measured_at": advice.calibration.measured_at if advice.measured else None,
    }
