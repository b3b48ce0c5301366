"""How soon a cancelled answer ends: for the caller, and for the worker's CPU.

    python benchmarks/cancel.py [MODEL] [--repeats 20]

Cancels in the middle of token generation and in the middle of processing a long prompt. `returned`: until the caller
has the last chunk. `idle`: until the worker's CPU time stands still (the system counts it in steps of 10 ms).
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import bendi
from bendi.messages import Cancellation, Chunk


def cpu_s(pid: str) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def idle_after_s(pid: str, since_s: float) -> float:
    """Seconds from `since_s` until the worker has not computed for 50 ms."""
    last, still_since_s = cpu_s(pid), time.perf_counter()
    while time.perf_counter() - still_since_s < 0.05:
        time.sleep(0.005)
        now = cpu_s(pid)
        if now != last:
            last, still_since_s = now, time.perf_counter()
    return still_since_s - since_s


def measure(model: bendi.Model, prompt: str, when: Callable[[Chunk], bool]) -> tuple[float, float]:
    """Cancels at the first chunk that `when` accepts; returns (returned_s, idle_s)."""
    cancel, started_s = Cancellation(), 0.0
    for chunk in model.chat(prompt, cancel=cancel, max_tokens=1000):
        if not started_s and when(chunk):
            started_s = time.perf_counter()
            threading.Thread(target=cancel.cancel).start()
    returned_s = time.perf_counter() - started_s
    return returned_s, idle_after_s(model.info.details["pid"], started_s)


def summary(values_s: list[float]) -> str:
    return f"{statistics.median(values_s) * 1000:6.1f} ms (worst {max(values_s) * 1000:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    with bendi.load(options.model) as model:
        words = max(model.info.context_tok // 4, 200)
        cases: dict[str, tuple[str, Callable[[Chunk], bool]]] = {
            "token generation": ("List everything about memory.", lambda chunk: bool(chunk.text)),
            "prompt processing": ("", lambda chunk: chunk.progress is not None),
        }
        for name, (prompt, when) in cases.items():
            returned_s, idle_s = [], []
            for turn in range(options.repeats):
                # A new beginning each time: a prompt that is in the cache is not processed.
                text = prompt or f"{turn} " + "memory bandwidth " * words
                returned, idle = measure(model, text, when)
                returned_s.append(returned)
                idle_s.append(idle)
            print(f"{name:<18} returned {summary(returned_s)}, idle {summary(idle_s)}; bar 200 ms")


if __name__ == "__main__":
    main()
