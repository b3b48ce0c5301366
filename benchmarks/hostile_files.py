"""What the readers cost at worst: seconds, memory and outcome for files crafted to cost as much as possible.

    python benchmarks/hostile_files.py [WORDS]

WORDS: only the cases whose name contains them. Each file is read by a process of its own; the memory is what that
process grew by, as the system counts it. Cases called `remote` are read over HTTP from a server in this process, with
an empty cache; their seconds are those of the CPU, and their memory is without that of the libraries for HTTP. `sent
MiB` is what the server has sent. The bar: no reading takes more than 64 MiB or 2 s.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "formats"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "store"))

import hostile_remote
from hostile_limits import CASES, LIMIT_BYTES, LIMIT_S, Cost, measured


def _local(name: str, folder: Path) -> tuple[Cost, int]:
    path = folder / "x"
    CASES[name].write(path)
    return measured(name, path), 0


def _remote(name: str, folder: Path) -> tuple[Cost, int]:
    files = folder / "files"
    files.mkdir()
    hostile_remote.CASES[name].write(files)
    return hostile_remote.measured(name, files, folder / "cache")


def main() -> None:
    words = " ".join(sys.argv[1:])
    worst_s, worst_bytes, bad = 0.0, 0, 0
    print(f"{'case':60} {'size MiB':>12} {'sent MiB':>8} {'s':>6} {'MiB':>6}  outcome")
    cases: dict[str, Callable[[str, Path], tuple[Cost, int]]] = {
        **dict.fromkeys(CASES, _local),
        **dict.fromkeys(hostile_remote.CASES, _remote),
    }
    for name, read in cases.items():
        if words not in name:
            continue
        folder = Path(tempfile.mkdtemp(prefix="hostile-"))
        try:
            cost, sent_bytes = read(name, folder)
            files = [part for part in folder.rglob("*") if part.is_file() and "cache" not in part.parts]
            size_bytes = sum(part.stat().st_size for part in files)
        finally:
            shutil.rmtree(folder)
        over = cost.peak_bytes > LIMIT_BYTES or cost.seconds > LIMIT_S
        bad += over
        worst_s, worst_bytes = max(worst_s, cost.seconds), max(worst_bytes, cost.peak_bytes)
        print(
            f"{name:60} {size_bytes / 2**20:12.1f} {sent_bytes / 2**20:8.1f} {cost.seconds:6.2f} "
            f"{cost.peak_bytes / 2**20:6.1f}  {'OVER ' if over else ''}{cost.outcome[:90]}",
            flush=True,
        )
    print(f"worst: {worst_s:.2f} s of {LIMIT_S} s, {worst_bytes / 2**20:.1f} MiB of {LIMIT_BYTES / 2**20:.0f} MiB")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
