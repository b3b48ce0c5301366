"""`bendi calibrate`: measures how fast this machine is, so that plans can say how fast models will be."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import asdict

from bendi.cli import output
from bendi.engines.calibrate import BUDGET_S, calibrate
from bendi.errors import StoreError, UsageError
from bendi.hardware import detect_machine
from bendi.i18n import _
from bendi.measured import MeasuredStore, machine_id
from bendi.planner.calibration import Calibration
from bendi.planner.calibration_runs import combined, from_json, runs_from_json, to_json
from bendi.settings import Settings, load_settings

_LEAST_BUDGET_S = 20.0
_GIGA = 1e9


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--show", action="store_true", help=_("show what was measured last, and measure nothing"))
    parser.add_argument(
        "--seconds", type=float, default=BUDGET_S, metavar="N",
        help=_("how long to measure; more seconds measure more types of weights (default {seconds:.0f})").format(
            seconds=BUDGET_S
        ),
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help=_("forget earlier calibrations of this engine build"))
    parser.add_argument("--json", action="store_true", help=_("as JSON"))


def run(args: argparse.Namespace) -> int:
    settings = load_settings()
    if not args.seconds >= _LEAST_BUDGET_S:
        raise UsageError(
            _("{seconds:g} seconds are too short to measure anything.").format(seconds=args.seconds),
            hint=f"bendi calibrate --seconds {_LEAST_BUDGET_S:.0f}",
        )
    calibration = _last(settings) if args.show else measure(settings, args.seconds, fresh=args.fresh)
    if args.json:
        output.json_data(asdict(calibration))
    else:
        _print(calibration)
    return 0


def measure(settings: Settings, budget_s: float = BUDGET_S, *, fresh: bool = False) -> Calibration:
    """Measures this machine with the engine that `settings` choose, says so, and keeps what was measured. Returns it
    together with earlier runs, unless all is to begin afresh."""
    machine = machine_id(detect_machine())
    with closing(MeasuredStore(settings.measured_file)) as store:
        output.say(_("Measuring with small models; other programs that are busy now make it less exact."))
        with output.progress(_("calibrating"), unit="percent") as bar:

            def earlier(build: str) -> tuple[Calibration, ...]:
                return () if fresh else _runs(store.calibration(machine, build))

            run = calibrate(
                settings, machine, lambda done, label: bar.update(100 * done, 100, label), budget_s, earlier
            )
        text = to_json([*earlier(run.build), run])
        store.save_calibration(machine, run.build, text)
        for notice in store.notices:
            output.say(notice)
    return combined(runs_from_json(text))


def _runs(text: str | None) -> tuple[Calibration, ...]:
    """Those of another version of bendi are worth nothing."""
    try:
        return runs_from_json(text) if text else ()
    except StoreError:
        return ()


def _last(settings: Settings) -> Calibration:
    machine = machine_id(detect_machine())
    with closing(MeasuredStore(settings.measured_file)) as store:
        rows = [row for row in store.calibrations() if row.machine_id == machine]
        for notice in store.notices:
            output.say(notice)
    if not rows:
        raise UsageError(_("This machine was not measured yet."), hint="bendi calibrate")
    return from_json(rows[0].text)


def _print(calibration: Calibration) -> None:
    cpu = calibration.cpu
    rows = [
        [
            name,
            f"{rates.generation_bytes_s / _GIGA:.1f}",
            f"{rates.generation_bytes_s / calibration.memory_read_bytes_s:.0%}",
            f"{2 * rates.prompt_weights_s / _GIGA:.0f}",
            f"{2 * rates.prompt_expert_weights_s / _GIGA:.0f}",
        ]
        for name, rates in sorted(cpu.types.items(), key=lambda item: -item[1].generation_bytes_s)
    ]
    headings = [_("type"), _("TG GB/s"), _("of memory"), _("PP GFLOP/s"), _("PP GFLOP/s, experts")]
    output.table(headings, rows, right=frozenset({1, 2, 3, 4}))
    output.data("")
    measured_at = calibration.measured_at
    lines = [
        (_("processor"), _("{name}, {count} threads").format(name=cpu.name, count=cpu.threads)),
        (_("engine build"), calibration.build),
        (_("memory read"), f"{calibration.memory_read_bytes_s / _GIGA:.1f} GB/s"),
        (_("disk read"), _rate(calibration.disk_read_bytes_s)),
        (_("each layer"), f"{cpu.layer_s * 1e6:.0f} µs"),
        (_("repeats differ by"), f"±{calibration.spread:.0%}"),
        (_("measured"), _("{when}, in {seconds:.0f} s").format(when=measured_at, seconds=calibration.took_s)),
        (_("runs, of which the middle counts"), str(calibration.runs)),
    ]
    if calibration.disturbed_share:
        lines.append(
            (
                _("disturbed"),
                _("{share:.0%} of the measurements, by other programs: calibrate again when it is quiet").format(
                    share=calibration.disturbed_share
                ),
            )
        )
    output.facts(lines)


def _rate(bytes_s: float) -> str:
    return f"{bytes_s / _GIGA:.2f} GB/s" if bytes_s else _("unknown")
