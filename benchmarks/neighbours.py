"""What becomes of an engine's speed when somebody else computes on the same cores.

    python benchmarks/neighbours.py [--shape qwen2.5:0.5b --type Q4_0] [--builds NAME,wheel] [--repeats 3]
        [--seconds 10]

The same model is loaded twice. Printed are, by build, tokens per second of answers of one of them alone; of both at
once, each; and of one beside a program that does nothing but compute, on one core: the median of the repeats, the
lowest and the highest, and the share of what it has alone. Fair would be a half for each of two, and no less beside the
program. Who has not answered after `--seconds` is stopped: what there is then counts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from gateway import QUESTIONS, random_model

from bendi.engines import Engine, LoadRequest, open_engine
from bendi.messages import Cancellation, GenerateRequest, Sampling
from bendi.settings import load_settings

_ANSWER_TOK = 64
_CONTEXT_TOK = 512
_BUSY = "while True: pass"


def tok_s(engine: Engine, most_s: float) -> float:
    """Tokens a second of one answer, from the question on."""
    cancel = Cancellation()
    timer = threading.Timer(most_s, cancel.cancel)
    timer.start()
    request = GenerateRequest(prompt=QUESTIONS[0], max_tokens=_ANSWER_TOK, ignore_end=True, sampling=Sampling(seed=1))
    started_s = time.perf_counter()
    *_texts, last = engine.generate(request, cancel)
    took_s = time.perf_counter() - started_s
    timer.cancel()
    assert last.usage
    return last.usage.completion_tok / took_s


def at_once(engines: Sequence[Engine], most_s: float) -> list[float]:
    found: list[float] = []
    threads = [threading.Thread(target=lambda one=one: found.append(tok_s(one, most_s))) for one in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@contextmanager
def busy_neighbour() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", _BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def show(name: str, values: Sequence[float], alone: float) -> None:
    middle = statistics.median(values)
    print(f"  {name:24} {middle:8.2f} tok/s ({min(values):.2f} to {max(values):.2f}), {middle / alone:.3f}", flush=True)


def measure(engines: Sequence[Engine], repeats: int, most_s: float) -> None:
    alone: list[float] = []
    both: list[float] = []
    beside: list[float] = []
    at_once(engines, most_s)
    for _repeat in range(repeats):
        alone += at_once(engines[:1], most_s)
        both += at_once(engines, most_s)
        with busy_neighbour():
            beside += at_once(engines[:1], most_s)
    middle = statistics.median(alone)
    show("alone", alone, middle)
    show("two at once, each", both, middle)
    show("beside a busy program", beside, middle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="qwen2.5:0.5b")
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--builds", default="wheel", help="names or beginnings of names, as `bendi engine list`")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    settings = load_settings()
    with tempfile.TemporaryDirectory() as folder:
        load = LoadRequest(random_model(Path(folder) / "model.gguf", options.shape, options.type), _CONTEXT_TOK)
        for name in options.builds.split(","):
            with ExitStack() as stack:
                engines = [
                    stack.enter_context(closing(open_engine(load, replace(settings, engine=name)))) for _two in range(2)
                ]
                print(f"{options.shape} {options.type}, {engines[0].info.build}")
                measure(engines, options.repeats, options.seconds)


if __name__ == "__main__":
    main()
