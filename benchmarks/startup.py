"""Start-up cost: `bendi --help` against an empty Python, and the time from Enter to the first token of a warm run.

    python benchmarks/startup.py [--repeats 15]

Prints medians with the spread (10th to 90th percentile) of interleaved runs; the ratio is what matters.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time


def timed_s(command: list[str]) -> float:
    started_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return time.perf_counter() - started_s


def first_token_s(command: list[str]) -> float:
    """Seconds until the first byte of the answer is on stdout."""
    started_s = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as run:
        assert run.stdout
        os.read(run.stdout.fileno(), 1)
        elapsed_s = time.perf_counter() - started_s
        run.stdout.read()
    if run.returncode:
        raise SystemExit(f"{command} failed with {run.returncode}")
    return elapsed_s


def spread(values_s: list[float]) -> str:
    tenths = statistics.quantiles(values_s, n=10)
    return f"{statistics.median(values_s) * 1000:7.1f} ms  ({tenths[0] * 1000:.1f} to {tenths[-1] * 1000:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    python = sys.executable
    bendi = os.path.join(os.path.dirname(python), "bendi")
    ask = [bendi, "run", "demo", "What is quantization?", "--no-save"]
    empty_s, help_s, first_s = [], [], []
    first_token_s(ask)
    for _ in range(repeats):
        empty_s.append(timed_s([python, "-c", "pass"]))
        help_s.append(timed_s([bendi, "--help"]))
        first_s.append(first_token_s(ask))
    print(f"python -c pass             {spread(empty_s)}")
    print(f"bendi --help               {spread(help_s)}")
    print(f"bendi run demo, 1st token  {spread(first_s)}")
    ratios = [help_ / empty for help_, empty in zip(help_s, empty_s, strict=True)]
    print(f"ratio help / empty: {statistics.median(ratios):.2f} (bar: at most 3)")
    print(f"first token: {statistics.median(first_s):.2f} s (bar: at most 1.5 s)")


if __name__ == "__main__":
    main()
