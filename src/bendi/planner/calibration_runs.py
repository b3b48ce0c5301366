"""Several calibrations of one machine make a better one: what disturbed one of them does not count.

What is kept of a machine is the last few runs, whole; what plans use is the middle of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from statistics import median, median_low, mode
from typing import Any

from bendi.errors import StoreError
from bendi.i18n import _
from bendi.planner.calibration import AttentionRates, Calibration, DeviceRates, TypeRates
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
    """The median of every number, over the runs that were least disturbed and have the usual number of threads; of
    types of weights, over the runs that measured them undisturbed, if there are any."""
    last = runs[-1]
    quiet = [run for run in runs if run.disturbed_share < _DISTURBED_SHARE] or runs
    threads = mode(run.cpu.threads for run in reversed(quiet))
    runs = [run for run in runs if run.cpu.threads == threads]
    quiet = [run for run in quiet if run.cpu.threads == threads]
    together = _calibration(_middle([asdict(run) for run in quiet]))
    attention = {
        kind: _attention([run.cpu.attention[kind] for run in quiet if kind in run.cpu.attention])
        for kind in together.cpu.attention
    }
    cpu = replace(together.cpu, attention=attention, types=_types(runs))
    return replace(together, cpu=cpu, measured_at=last.measured_at, took_s=last.took_s, runs=len(quiet))


def times_measured(runs: Sequence[Calibration], what: str, subject: str) -> int:
    """How many of the runs measured weights ("dense", "experts") or a KV cache ("cache") of type `subject`."""
    if what == "cache":
        return sum(subject in run.cpu.attention for run in runs)
    found = [run.cpu.types[subject] for run in runs if subject in run.cpu.types]
    quiet = [rates for rates in found if not rates.disturbed]
    return len([rates for rates in quiet if rates.prompt_expert_weights_s]) if what == "experts" else len(quiet)


def _types(runs: Sequence[Calibration]) -> dict[str, TypeRates]:
    """The middle of the rates of each type. Rates of chosen experts that no run measured are guessed: as much slower
    than those of whole matrices as with the other types."""
    types = {}
    for name in dict.fromkeys(name for run in runs for name in run.cpu.types):
        found = _least_disturbed(runs, name)
        experts = [rates.prompt_expert_weights_s for rates in found if rates.prompt_expert_weights_s]
        middle = TypeRates(**_middle([asdict(rates) for rates in found]))
        types[name] = replace(middle, prompt_expert_weights_s=median(experts) if experts else 0.0)
    shares = [
        rates.prompt_expert_weights_s / rates.prompt_weights_s
        for rates in types.values()
        if rates.prompt_expert_weights_s
    ]
    share = median(shares) if shares else 1.0
    return {
        name: replace(rates, prompt_expert_weights_s=rates.prompt_expert_weights_s or share * rates.prompt_weights_s)
        for name, rates in types.items()
    }


def _least_disturbed(runs: Sequence[Calibration], type_name: str) -> list[TypeRates]:
    """Rates of a type: the undisturbed ones of quiet runs, else of others, else all."""
    found = [(run.disturbed_share < _DISTURBED_SHARE, run.cpu.types.get(type_name)) for run in runs]
    rows = [(quiet, rates) for quiet, rates in found if rates is not None]
    return (
        [rates for quiet, rates in rows if quiet and not rates.disturbed]
        or [rates for _quiet, rates in rows if not rates.disturbed]
        or [rates for _quiet, rates in rows]
    )


def _attention(found: Sequence[AttentionRates]) -> AttentionRates:
    """Rates that were solved together stay together: those of the run in the middle."""
    generation = _in_the_middle(found, lambda rates: rates.generation_s(_TYPICAL, 1.0))
    prompt = _in_the_middle(found, lambda rates: rates.prompt_s(_TYPICAL, 1.0))
    return replace(
        generation,
        prompt_head_s=prompt.prompt_head_s,
        prompt_query_s=prompt.prompt_query_s,
        generation_again_s=median(rates.generation_again_s for rates in found),
        prompt_far=median(rates.prompt_far for rates in found),
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
    if isinstance(last, bool):
        return last
    return median_low(values) if isinstance(last, int) else last


def _calibration(table: dict[str, Any]) -> Calibration:
    cpu = dict(table["cpu"])
    types = {name: TypeRates(**row) for name, row in cpu.pop("types").items()}
    attention = {name: AttentionRates(**row) for name, row in cpu.pop("attention").items()}
    threads = {int(count): share for count, share in table["threads_tried"].items()}
    device = DeviceRates(types=types, attention=attention, **cpu)
    return Calibration(**{**table, "cpu": device, "threads_tried": threads})
