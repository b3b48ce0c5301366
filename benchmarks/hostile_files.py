"""What the readers cost at worst: seconds, memory and outcome for files crafted to cost as much as possible.

    python benchmarks/hostile_files.py [WORDS]

WORDS: only the cases whose name contains them. Each file is read by a process of its own; the memory is what that
process grew by, as the system counts it. The bar: no reading takes more than 64 MiB or 2 s.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "formats"))

from hostile_limits import CASES, LIMIT_BYTES, LIMIT_S, measured


def main() -> None:
    words = " ".join(sys.argv[1:])
    worst_s, worst_bytes, bad = 0.0, 0, 0
    print(f"{'case':48} {'size MiB':>8} {'s':>6} {'MiB':>6}  outcome")
    for name, case in CASES.items():
        if words not in name:
            continue
        folder = Path(tempfile.mkdtemp(prefix="hostile-"))
        try:
            path = folder / "x"
            case.write(path)
            size_bytes = sum(part.stat().st_size for part in folder.rglob("*") if part.is_file())
            cost = measured(name, path)
        finally:
            shutil.rmtree(folder)
        over = cost.peak_bytes > LIMIT_BYTES or cost.seconds > LIMIT_S
        bad += over
        worst_s, worst_bytes = max(worst_s, cost.seconds), max(worst_bytes, cost.peak_bytes)
        print(
            f"{name:48} {size_bytes / 2**20:8.1f} {cost.seconds:6.2f} {cost.peak_bytes / 2**20:6.1f}  "
            f"{'OVER ' if over else ''}{cost.outcome[:90]}",
            flush=True,
        )
    print(f"worst: {worst_s:.2f} s of {LIMIT_S} s, {worst_bytes / 2**20:.1f} MiB of {LIMIT_BYTES / 2**20:.0f} MiB")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
