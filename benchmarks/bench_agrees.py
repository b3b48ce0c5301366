"""Whether `bendi bench` measures what others measure, in the same run.

    python benchmarks/bench_agrees.py [--shape qwen2.5:0.5b] [--type Q4_0] [--rounds 5] [--prompt 512] [--answer 64]
                                      [--aiperf VENV/bin/aiperf]

Against `llama-bench` of the same native build: PP of a prompt and TG after it, in turns. llama-bench leaves out the
network, sampling and the time of the first token, which a user waits for; so both of our figures are shown, by the
client's and by the engine's own clock. Each of theirs stands between two of ours, with our engine started anew each
time: on a virtual machine the speed of memory changes by a factor of two within seconds, and from process to process.
TG for each GB/s that memory gave right after the answer is shown beside it.

Against `aiperf` (NVIDIA's load tool, in an environment of its own: `python -m venv VENV; VENV/bin/pip install aiperf`):
TTFT and time per output token of the same server, asked in turns, with prompts of the same lengths that neither has
asked before; the server has one half of the cores, with one thread, the clients the other.

Aims: medians within 3 % of llama-bench, within 5 % of aiperf.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from bendi.bench.opening import Garage, Opened
from bendi.bench.prompts import Ruler
from bendi.bench.repeats import Place, Turn, measure
from bendi.bench.study import Care, EngineChoice
from bendi.bench.subjects import Files, Subject
from bendi.engines import native_builds
from bendi.engines.bandwidth import MemoryReader
from bendi.engines.peer_llama_bench import BenchAsk, bench_rates
from bendi.engines.peer_process import free_port
from bendi.engines.scheduling import run_promptly
from bendi.hardware import detect_cpu
from bendi.results import Cell, Repeat, Workload
from bendi.settings import Settings, load_settings
from bendi.stats.bootstrap import median_interval
from bendi.store.known_models import known_models
from bendi.units import MIB

_REQUESTS = 12
_CPUS = sorted(os.sched_getaffinity(0))
FIRST_CPUS = _CPUS[: len(_CPUS) // 2]
"""The server's beside aiperf: a dozen processes of its own would take the time of a server that uses all cores."""
_START_S = 120.0
_MEMORY_BYTES, _MEMORY_S = 64 * MIB, 0.25


@dataclass(frozen=True)
class Pair:
    """What both said in one round. `judged`: whether they should agree."""

    name: str
    ours: float
    theirs: float
    unit: str = "tok/s"
    judged: bool = True


def repeat(opened: Opened, cell: Cell, block: int, vocab_size: int | None, seed: int) -> Repeat:
    turn = Turn(cell, block, 0, vocab_size, opened.load_s)
    return measure(opened.engine, turn, Place(Care(warm_up_least=1, warm_up_most=1), seed, Path()), Ruler())


def beside_llama_bench(
    options: argparse.Namespace, garage: Garage, subject: Subject, build: native_builds.NativeBuild
) -> list[Pair]:
    """PP and TG, by the client's clock and by the engine's: each of theirs between two of ours."""
    threads = detect_cpu().usable_cores
    settings = {"threads": threads, "flash_attention": True}
    program, path = build.program("llama-bench"), garage.files.path(subject)
    work = Workload("w", options.prompt, options.answer + 1)
    cell = Cell(subject.model, subject.quantization, "bendi", work, settings)
    memory = MemoryReader(threads, _MEMORY_BYTES)
    found = []

    def ours(block: int) -> tuple[Repeat, float]:
        # Anew each time, as in a study: which pages of memory a process gets decides how fast they are read.
        opened = garage.open([cell], subject)
        with closing(opened.engine):
            return repeat(opened, cell, block, subject.vocab_size, 1), memory.mean_bytes_s(_MEMORY_S) / 1e9

    before = ours(0)
    for number in range(options.rounds):
        (prompt,) = bench_rates(program, path, settings, BenchAsk(options.prompt, 0, 0, 1))
        (answer,) = bench_rates(program, path, settings, BenchAsk(0, options.answer, options.prompt, 1))
        answer_gb_s = memory.mean_bytes_s(_MEMORY_S) / 1e9
        after = ours(number + 1)
        pp, tg = prompt.rates_tok_s[0], answer.rates_tok_s[0]
        for clock, server in (("client's", ""), ("engine's", "server_")):
            pp_s = [getattr(each, f"{server}pp_tok_s") for each, _gb_s in (before, after)]
            tg_s = [getattr(each, f"{server}tg_tok_s") for each, _gb_s in (before, after)]
            for_memory = [tg / gb_s for tg, (_each, gb_s) in zip(tg_s, (before, after), strict=True)]
            found.append(Pair(f"PP, {clock} clock", fmean(pp_s), pp))
            found.append(Pair(f"TG, {clock} clock", fmean(tg_s), tg))
            found.append(Pair(f"TG, {clock}, by memory", fmean(for_memory), tg / answer_gb_s, "tok/GB", False))
        before = after
    return found


@contextmanager
def server(program: Path, model: Path, context_tok: int) -> Iterator[int]:
    """llama-server by its port."""
    port = free_port()
    command = [program, "-m", model, "--alias", "model", "--port", port, "-c", context_tok, "-np", 1, "--no-ui"]
    command += ["--poll", 0, "-t", 1]
    if FIRST_CPUS:
        command = ["taskset", "-c", ",".join(map(str, FIRST_CPUS)), *command]
    process = subprocess.Popen(
        [str(each) for each in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        until_s = time.monotonic() + _START_S
        while not healthy(port):
            if process.poll() is not None or time.monotonic() > until_s:
                raise SystemExit("llama-server does not start")
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait()


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


def beside_aiperf(
    options: argparse.Namespace, garage: Garage, subject: Subject, build: native_builds.NativeBuild
) -> list[Pair]:
    """TTFT and time per output token of the same server."""
    path = garage.files.path(subject)
    found = []
    os.sched_setaffinity(0, _CPUS[len(FIRST_CPUS) :])  # of aiperf, too
    with server(build.server, path, options.prompt + options.answer + 512) as port:
        choice = EngineChoice("server", "openai", url=f"http://127.0.0.1:{port}/v1", model="model")
        mine = Garage({"server": choice}, garage.settings, garage.files)
        work = Workload("w", options.prompt, options.answer, requests=_REQUESTS)
        cell = Cell(subject.model, subject.quantization, "server", work)
        with closing(mine.open([cell], subject).engine) as engine:
            opened = Opened(engine, None, 0.0)  # type: ignore[arg-type]
            for number in range(options.rounds):
                before = repeat(opened, cell, number, None, 2)
                theirs = aiperf(options, port, number)
                after = repeat(opened, cell, options.rounds + number, None, 2)
                for name, metric, value in (
                    ("TTFT", "ttft_s", theirs["time_to_first_token"]),
                    ("TPOT", "tpot_s", theirs["inter_token_latency"]),
                ):
                    both = (getattr(before, metric) + getattr(after, metric)) / 2
                    found.append(Pair(name, 1000 * both, float(value["avg"]), "ms"))
    return found


def aiperf(options: argparse.Namespace, port: int, number: int) -> dict[str, Any]:
    """Its metrics, in milliseconds. Every byte is a token of a model with random weights."""
    source = random.Random(f"aiperf {number}")
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.jsonl"
        with prompts.open("w") as file:
            for _request in range(_REQUESTS + 2):
                # No blanks: each of them is three tokens here.
                text = f"{source.getrandbits(64):x}" + "".join(source.choices("abcdefgh", k=options.prompt))
                file.write(json.dumps({"text": text[: options.prompt]}) + "\n")
        command = [
            str(options.aiperf), "profile", "--model", "model", "--url", f"http://127.0.0.1:{port}",
            "--endpoint-type", "completions", "--streaming", "--tokenizer", str(tokenizer(folder)),
            "--use-server-token-count",
            "--input-file", str(prompts), "--custom-dataset-type", "single_turn", "--concurrency", "1",
            "--request-count", str(_REQUESTS), "--warmup-request-count", "2", "--ui", "none",
            "--no-gpu-telemetry", "--no-server-metrics", "--output-artifact-dir", folder,
        ]  # fmt: skip
        for extra in (f"max_tokens:{options.answer}", "ignore_eos:true", "temperature:0"):
            command += ["--extra-inputs", extra]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        results = sorted(Path(folder).rglob("profile_export_aiperf.json"))
        if done.returncode or not results:
            raise SystemExit(f"aiperf: {done.stderr[-2000:]}{done.stdout[-2000:]}")
        return dict(json.loads(results[0].read_text()))


def tokenizer(folder: str) -> Path:
    """It wants one, though the server counts; the one that comes with it is fetched over the network."""
    path = Path(folder) / "tokenizer"
    path.mkdir()
    model = {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}
    whole = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    whole |= dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    (path / "tokenizer.json").write_text(json.dumps(whole))
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "?"})
    )
    return path


def sureness(ratios: list[float]) -> str:
    interval = median_interval(ratios)
    return f" ({interval.low:.3f} to {interval.high:.3f}, 95 %)" if interval else ""


def show(title: str, pairs: list[Pair], aim: float) -> bool:
    print(f"\n{title}")
    held = True
    for name in dict.fromkeys(pair.name for pair in pairs):
        mine = [pair for pair in pairs if pair.name == name]
        ratios = [pair.ours / pair.theirs for pair in mine]
        middle = median(ratios)
        print(
            f"  {name:24} {median(pair.ours for pair in mine):10.2f} and {median(pair.theirs for pair in mine):10.2f}"
            f" {mine[0].unit}: {middle:.3f} of theirs{sureness(ratios)}, single ones from {min(ratios):.3f} to"
            f" {max(ratios):.3f}, n={len(mine)}"
        )
        held &= abs(middle - 1) <= aim or not mine[0].judged
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="qwen2.5:0.5b")
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--aiperf", type=Path)
    parser.add_argument("--only-aiperf", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers must not be left behind
    settings: Settings = load_settings()
    build = native_builds.chosen(settings).build
    if build is None:
        raise SystemExit("it needs a native build: bendi engine build")
    run_promptly()
    config = known_models()[options.shape].config
    vocab_size = int(str(config["vocab_size"]))
    subject = Subject(options.shape, options.type, None, vocab_size, True, config)
    held = True
    with tempfile.TemporaryDirectory(dir=settings.cache_dir) as folder:
        files = Files(Path(folder) / "models", lambda text: print(text, file=sys.stderr))
        garage = Garage({"bendi": EngineChoice("bendi")}, settings, files)
        try:
            if not options.only_aiperf:
                pairs = beside_llama_bench(options, garage, subject, build)
                held &= show("bendi bench and llama-bench", pairs, 0.03)
            if options.aiperf:
                held &= show("bendi bench and aiperf", beside_aiperf(options, garage, subject, build), 0.05)
        finally:
            files.close()
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
