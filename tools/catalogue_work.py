"""What every known model takes and does: `python tools/catalogue_work.py` writes
src/bendi/advisor/catalogue_work.json, `--check` fails when it differs from what the dimensions in
src/bendi/store/models.toml make."""

from __future__ import annotations

import sys
from pathlib import Path

from bendi.advisor.catalogue_work import FILE_NAME, packed
from bendi.advisor.shapes import worked_out
from bendi.errors import BendiError
from bendi.store.known_models import known_models

TARGET = Path(__file__).resolve().parent.parent / "src" / "bendi" / "advisor" / FILE_NAME


def main() -> int:
    groups = []
    for alias, model in known_models().items():
        try:
            groups.append((alias, worked_out(model)))
        except BendiError as error:
            print(f"{alias} is left out: {error.message}", file=sys.stderr)
    text = packed(groups)
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text, "utf-8")
    elif not TARGET.exists() or TARGET.read_text("utf-8") != text:
        print(f"{TARGET.name}: not up to date, run python tools/catalogue_work.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
