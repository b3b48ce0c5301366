"""What was measured to be the fastest way to load a model here, for loads that leave it open.

The user's own settings always win. What was measured with another engine build, on another machine or with another KV
type is not used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from bendi.engines.protocol import Engine, LoadRequest
from bendi.engines.registry import engine_build, open_engine, wheel_build
from bendi.engines.tuning_report import TuningReport, from_json
from bendi.errors import ConfigError, EngineError, ModelFileError, StoreError
from bendi.formats import read_gguf_split
from bendi.hardware import detect_cpu
from bendi.i18n import _
from bendi.measured import MeasuredStore, TuningStore, model_key
from bendi.planner.calibration_runs import from_json as calibration_from_json
from bendi.settings import Settings

MachineId = Callable[[], str | None]
"""None where the machine cannot be told in time."""


@dataclass(frozen=True)
class Opening:
    """How a model was opened. `load_s`: how long that took. `notice`: a sentence when what was measured could not be
    used."""

    load: LoadRequest
    engine: Engine
    load_s: float
    notice: str = ""


def open_tuned(
    load: LoadRequest,
    settings: Settings,
    machine_id: MachineId,
    on_progress: Callable[[float], None] | None = None,
    on_notice: Callable[[str], None] | None = None,
) -> Opening:
    """Opens the model with the settings that were tuned for it, else with the number of threads that calibration found
    to be the fastest. Raises as `engines.open_engine`."""
    notice = ""
    report = _report_for(load, settings, machine_id)
    if report is not None and report.gained and not (report.chosen.engine and settings.engine):
        chosen = report.chosen
        faster = chosen.applied(load)
        build = replace(settings, engine=chosen.engine) if chosen.engine else settings
        try:
            started_s = time.perf_counter()
            engine = open_engine(faster, build, on_progress, on_notice)
            return Opening(faster, engine, time.perf_counter() - started_s)
        except (EngineError, ConfigError) as error:
            # With less memory than there was then, or a build that is gone.
            notice = _(
                "The settings tuned for this model cannot be used now ({reason}); it is loaded with the usual ones. To "
                "forget them: {command}"
            ).format(reason=error.message, command=f"bendi tune --forget {report.model}")
    if load.threads is None:
        load = replace(load, threads=best_threads(settings))
    started_s = time.perf_counter()
    engine = open_engine(load, settings, on_progress, on_notice)
    return Opening(load, engine, time.perf_counter() - started_s, notice)


def best_threads(settings: Settings) -> int | None:
    """The number that calibration found to be the fastest with as many cores as there are now; None without one."""
    if not settings.measured_file.exists():
        return None
    cores = detect_cpu().usable_cores
    with closing(MeasuredStore(settings.measured_file)) as store:
        for row in store.calibrations():
            try:
                calibration = calibration_from_json(row.text)
            except StoreError:
                continue
            if max(calibration.threads_tried, default=calibration.cpu.threads) == cores:
                return calibration.cpu.threads
    return None


def _report_for(load: LoadRequest, settings: Settings, machine_id: MachineId) -> TuningReport | None:
    """What was found for this load. Little is looked at where nothing was ever tuned."""
    if settings.engine == "fake" or load.type_k != load.type_v or not settings.measured_file.exists():
        return None
    with closing(TuningStore(settings.measured_file)) as store:
        rows = store.tunings()
    build = (engine_build(settings) or wheel_build()) if rows else ""
    rows = [row for row in rows if (row.build, row.kv_type) == (build, load.type_k)]
    if not rows:
        return None
    try:
        key = model_key(read_gguf_split(load.model_path))
    except (ModelFileError, OSError):
        return None  # opening it will say what is wrong
    machine = machine_id()
    for row in rows:
        if (row.model_key, row.machine_id) == (key, machine):
            try:
                return from_json(row.text)
            except StoreError:
                return None
    return None
