"""Several calibrations of one machine make a better one: what disturbed one of them does not count.

What is kept of a machine is the last few runs, whole; what plans use is the middle of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from statistics import median, median_low, mode
from typing import Any

from bendi.errors import StoreError
from bendi.i18n import _
from bendi.planner.calibration import AttentionRates, Calibration, DeviceRates, FarRates, TypeRates
from bendi.planner.work import AttentionWork

SCHEMA = 4
MOST_RUNS = 5
_DISTURBED_SHARE = 0.2
"""Runs with more of it count only where there is no better one."""
_TYPICAL = AttentionWork(layers=1, heads=32, query_numbers=8192, cache_numbers=2048)


def to_json(runs: Sequence[Calibration]) -> str:
    """Calibrations of one machine and build, the oldest first, as text: the last `MOST_RUNS`."""
    return json.dumps({"schema": SCHEMA, "runs": [asdict(run) for run in runs[-MOST_RUNS:]]})


def runs_from_json(text: str) -> tuple[Calibration, ...]:
    """Raises StoreError when the text is not of this version of bendi."""
    try:
        table = json.loads(text)
        if table["schema"] != SCHEMA or not table["runs"]:
            raise ValueError("schema")
        return tuple(_calibration(run) for run in table["runs"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            _("The stored calibration cannot be used: {error}").format(error=error), hint="bendi calibrate"
        ) from error


def from_json(text: str) -> Calibration:
    """What the runs say together. Raises as `runs_from_json`."""
    return combined(runs_from_json(text))


def combined(runs: Sequence[Calibration]) -> Calibration:
    """The median of every number, over the runs that were least disturbed and have the usual number of threads."""
    last = runs[-1]
    quiet = [run for run in runs if run.disturbed_share < _DISTURBED_SHARE] or runs
    threads = mode(run.cpu.threads for run in reversed(quiet))
    quiet = [run for run in quiet if run.cpu.threads == threads]
    if len(quiet) == 1:
        cpu = replace(quiet[0].cpu, types=_with_experts(quiet))
        return replace(quiet[0], cpu=cpu, measured_at=last.measured_at, took_s=last.took_s)
    together = _calibration(_middle([asdict(run) for run in quiet]))
    attention = {
        kind: _attention([run.cpu.attention[kind] for run in quiet if kind in run.cpu.attention])
        for kind in together.cpu.attention
    }
    cpu = replace(together.cpu, attention=attention, types=_with_experts(quiet, together.cpu.types))
    return replace(together, cpu=cpu, measured_at=last.measured_at, took_s=last.took_s, runs=len(quiet))


def times_measured(runs: Sequence[Calibration], what: str, subject: str) -> int:
    """How many of the runs measured weights ("dense", "experts") or a KV cache ("cache") of type `subject`."""
    if what == "cache":
        return sum(subject in run.cpu.attention for run in runs)
    found = [run.cpu.types[subject] for run in runs if subject in run.cpu.types]
    return len([rates for rates in found if rates.prompt_expert_weights_s]) if what == "experts" else len(found)


def _with_experts(runs: Sequence[Calibration], types: Mapping[str, TypeRates] | None = None) -> Mapping[str, TypeRates]:
    """`types` (of the only run) with the rates of chosen experts: the middle of the runs that measured them; of other
    types, as much slower than whole matrices as theirs are."""
    types = runs[0].cpu.types if types is None else types
    measured = {}
    for name in types:
        found = [run.cpu.types[name].prompt_expert_weights_s for run in runs if name in run.cpu.types]
        if found := [weights_s for weights_s in found if weights_s]:
            measured[name] = median(found)
    share = median(measured[name] / types[name].prompt_weights_s for name in measured) if measured else 1.0
    return {
        name: replace(rates, prompt_expert_weights_s=measured.get(name, share * rates.prompt_weights_s))
        for name, rates in types.items()
    }


def _attention(found: Sequence[AttentionRates]) -> AttentionRates:
    """Rates that were solved together stay together: those of the run in the middle."""
    generation = _in_the_middle(found, lambda rates: rates.generation_s(_TYPICAL, 1.0))
    prompt = _in_the_middle(found, lambda rates: rates.prompt_s(_TYPICAL, 1.0))
    far = {rates.head_numbers for run in found for rates in run.far}
    return replace(
        generation,
        prompt_head_s=prompt.prompt_head_s,
        prompt_query_s=prompt.prompt_query_s,
        generation_again_s=median(rates.generation_again_s for rates in found),
        far=tuple(
            FarRates(length, median(rates.prompt for run in found for rates in run.far if rates.head_numbers == length))
            for length in sorted(far)
        ),
    )


def _in_the_middle(found: Sequence[AttentionRates], key: Callable[[AttentionRates], float]) -> AttentionRates:
    return sorted(found, key=key)[(len(found) - 1) // 2]


def _middle(values: Sequence[Any]) -> Any:
    """The median of numbers, also inside of tables (those that only some runs have, too); of all else the last."""
    last = values[-1]
    if isinstance(last, dict):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: _middle([value[key] for value in values if key in value]) for key in keys}
    if isinstance(last, float):
        return median(values)
    return median_low(values) if isinstance(last, int) else last


def _calibration(table: dict[str, Any]) -> Calibration:
    cpu = dict(table["cpu"])
    types = {name: TypeRates(**row) for name, row in cpu.pop("types").items()}
    attention = {name: _attention_rates(row) for name, row in cpu.pop("attention").items()}
    threads = {int(count): share for count, share in table["threads_tried"].items()}
    device = DeviceRates(types=types, attention=attention, **cpu)
    return Calibration(**{**table, "cpu": device, "threads_tried": threads})


def _attention_rates(row: dict[str, Any]) -> AttentionRates:
    return AttentionRates(**{**row, "far": tuple(FarRates(**rates) for rates in row["far"])})
