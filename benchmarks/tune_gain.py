"""What `bendi tune` gains, measured again after it has ended: the default against the tuned settings, in pairs.

    python benchmarks/tune_gain.py [--models qwen2.5:0.5b,llama3.2:1b] [--types Q8_0,Q4_K_M] [--for chat]
                                   [--seconds N] [--check-seconds 60] [--out rows.jsonl]

Models of real shapes with random weights. For each: a search as `bendi tune` makes it; then a fresh bench, whose
processes and prompts the search has not seen, times whole requests with both settings alternately. Printed are the gain
that the search reported, the gain that was measured afterwards, and their intervals (95 %). The bar: nothing that was
tuned is slower than the default beyond chance. Where the default was kept there is nothing to compare: a gain of 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from bendi.cli.tune_text import settings_text
from bendi.engines.paired import Speedup
from bendi.engines.random_weights import write_random_model
from bendi.engines.tuning import TuneRequest, subject_of, tune
from bendi.engines.tuning_bench import EngineBench
from bendi.engines.tuning_report import Trial, TuningReport
from bendi.engines.tuning_search import Search
from bendi.formats.blueprints import blueprint_from_config
from bendi.planner.mixture import facts_of, quantized_types, shapes_of
from bendi.planner.plan import WORKLOADS
from bendi.settings import Settings, load_settings
from bendi.store.known_models import known_models


def measured_again(report: TuningReport, request: TuneRequest, settings: Settings, check_s: float) -> Trial | None:
    """The tuned settings against the default, with a bench of their own; None where they are the same."""
    if not report.gained:
        return None
    subject = subject_of(request, settings)
    with (
        tempfile.TemporaryDirectory(dir=settings.cache_dir) as states,
        closing(EngineBench(subject, settings, Path(states), check_s)) as bench,
    ):
        bench.settle(report.default)
        search = Search(bench, WORKLOADS[report.workload], lambda _setting, _value: None)
        return search.confirm(report.default, report.chosen)


def measure(alias: str, file_type: str, options: argparse.Namespace, settings: Settings) -> bool:
    """Whether it was not slower than the default."""
    blueprint = blueprint_from_config(known_models()[alias].config, "model")
    header = blueprint.header()
    types = quantized_types(shapes_of(header), facts_of(header), file_type)
    with tempfile.TemporaryDirectory(dir=settings.cache_dir) as folder:
        path = write_random_model(Path(folder) / "model.gguf", blueprint, types)
        os.sync()
        request = TuneRequest(path, alias, options.use, budget_s=options.seconds)
        report = tune(request, settings, lambda _done, label: print(f"  {label}", file=sys.stderr, flush=True))
        again = measured_again(report, request, settings, options.check_seconds)
    found = report.final.speed if report.final else None
    checked = again.speed if again else None
    print(
        f"{alias} {file_type} for {report.workload} ({report.build}, {report.took_s:.0f} s):"
        f" {settings_text(report.chosen, report.default) or 'the default'}; reported {text(found)},"
        f" measured again {text(checked)}; {report.disturbed_share:.0%} of the pairs disturbed",
        flush=True,
    )
    for trial in report.trials:
        rates = (
            f"PP {trial.pp_tok_s:.1f} TG {trial.tg_tok_s:.2f}" if trial.pp_tok_s and trial.tg_tok_s else trial.reason
        )
        print(f"    {trial.setting} {trial.value}: {trial.verdict}, {text(trial.speed)}, {rates}", flush=True)
    if options.out:
        with Path(options.out).open("a") as out:
            out.write(json.dumps({"report": asdict(report), "again": asdict(again) if again else None}) + "\n")
    return checked is None or checked.high is None or checked.high >= 1


def text(speed: Speedup | None) -> str:
    if speed is None:
        return "-"
    interval = "" if speed.low is None else f" ({speed.low:.3f} to {speed.high:.3f})"
    return f"{speed.middle:.3f}{interval}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="qwen2.5:0.5b,llama3.2:1b")
    parser.add_argument("--types", default="Q8_0,Q4_K_M")
    parser.add_argument("--for", dest="use", choices=tuple(WORKLOADS), default="chat")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--check-seconds", type=float, default=60.0)
    parser.add_argument("--out")
    options = parser.parse_args()
    settings = load_settings()
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    held = [
        measure(alias, file_type, options, settings)
        for alias in options.models.split(",")
        for file_type in options.types.split(",")
    ]
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
