"""The wheel against native builds, side by side: prompt processing and token generation of the same random models.

    python benchmarks/engine_vs_peers.py [--models qwen3:0.6b ...] [--types Q8_0 ...] [--depths 0 512 2048]
                                         [--builds wheel ID ...] [--repeats 3] [--out FILE]

All engines hold the model at once and are asked in turns, so that whatever else the machine does meets all of them.
Medians in tokens per second, and their ratio to the first engine. Of a real shape, with random weights: they say
nothing, and are as fast as the real ones. With `--out`, finished cells are kept in a file and not measured again, so
that a long run can be made in pieces (`--seconds N` ends after the cell that is being measured then).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from bendi.engines import LoadRequest, native_builds, open_engine
from bendi.engines.protocol import Engine
from bendi.engines.random_weights import write_random_model
from bendi.engines.timing import endless_words, take, timed
from bendi.formats.blueprints import blueprint_from_config
from bendi.hardware import detect_cpu
from bendi.planner.mixture import facts_of, quantized_types, shapes_of
from bendi.settings import Settings, load_settings
from bendi.store.known_models import known_models

MODELS = ("qwen3:0.6b", "llama3.2:1b")
TYPES = ("Q8_0", "Q4_0", "Q4_K_M")
DEPTHS_TOK = (0, 512, 2048)
_PROMPT_TOK = 512
_ANSWER_TOK = 24
_SHORT_TOK = 4

Cells = dict[str, dict[str, float]]


def interleaved(engines: dict[str, Engine], source: Iterator[int], depth_tok: int, repeats: int) -> Cells:
    """`{"pp": {engine: median}, "tg": ...}` after `depth_tok` tokens. PP is of 512 tokens from empty only."""
    seen: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in engines} for kind in ("pp", "tg")}
    past = take(source, depth_tok)
    for engine in engines.values():
        timed(engine, past + take(source, _SHORT_TOK), 2)
    for _ in range(repeats):
        for name, engine in engines.items():
            if not depth_tok:
                seen["pp"][name].append(timed(engine, take(source, _PROMPT_TOK), 1).pp_tok_s or 0.0)
            seen["tg"][name].append(timed(engine, past + take(source, _SHORT_TOK), _ANSWER_TOK + 1).tg_tok_s or 0.0)
    return {
        kind: {name: statistics.median(values) for name, values in rows.items()}
        for kind, rows in seen.items()
        if all(rows.values())
    }


def measure(model: str, file_type: str, options: argparse.Namespace, settings: Settings) -> Iterator[tuple[str, Cells]]:
    """Rates of one model, depth after depth."""
    known = known_models()[model]
    blueprint = blueprint_from_config(known.config, model.replace(":", "-"))
    header = blueprint.header()
    types = quantized_types(shapes_of(header), facts_of(header), file_type)
    with tempfile.TemporaryDirectory(dir=settings.cache_dir) as folder, ExitStack() as stack:
        path = write_random_model(Path(folder) / "model.gguf", blueprint, types)
        load = LoadRequest(path, context_tok=max(options.depths) + 1024, threads=detect_cpu().usable_cores)
        engines: dict[str, Engine] = {}
        for name in options.builds:
            engines[name] = stack.enter_context(closing(open_engine(load, replace(settings, engine=name))))
        source = endless_words(blueprint.vocab)
        for depth_tok in options.depths:
            yield f"{model} {file_type} {depth_tok}", interleaved(engines, source, depth_tok, options.repeats)


def show(key: str, cells: Cells) -> None:
    for kind, rates in cells.items():
        first = next(iter(rates.values()))
        text = "  ".join(f"{name} {rate:.1f} ({rate / first:.2f}x)" for name, rate in rates.items())
        print(f"{key:28s} {kind}  {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--types", nargs="+", default=list(TYPES))
    parser.add_argument("--depths", nargs="+", type=int, default=list(DEPTHS_TOK))
    parser.add_argument("--builds", nargs="+", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    settings, started_s = load_settings(), time.monotonic()
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    builds = native_builds.all_builds(settings)
    proven = [build.build_id for build in builds if native_builds.state_of(build) == "proven"]
    options.builds = options.builds or ["wheel", *proven]
    done: dict[str, Cells] = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    for model in options.models:
        for file_type in options.types:
            if all(f"{model} {file_type} {depth}" in done for depth in options.depths):
                continue
            for key, cells in measure(model, file_type, options, settings):
                done[key] = cells
                show(key, cells)
                if options.out:
                    options.out.write_text(json.dumps(done, indent=1))
                if time.monotonic() - started_s > options.seconds:
                    return


if __name__ == "__main__":
    main()
