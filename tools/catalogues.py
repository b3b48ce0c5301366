"""Message catalogues: `python tools/catalogues.py` brings them up to date, `--check` fails when they are not.

The texts marked with `_`, `N_` and `ngettext` in `src/bendi` are collected into `bendi.po`; translations that exist
are kept, texts that are gone are dropped, and `bendi.mo` is compiled from it. Untranslated texts are listed.
"""

from __future__ import annotations

import io
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

SOURCE = Path(__file__).resolve().parent.parent / "src" / "bendi"
FOLDER = SOURCE / "locale" / "zh" / "LC_MESSAGES"
KEYWORDS = {"_": None, "N_": None, "ngettext": (1, 2)}
_NO_DATE = datetime(2026, 1, 1, tzinfo=UTC)
PLACEHOLDER = re.compile(r"\{[^{}]*\}")


def collected() -> Catalog:
    """The texts of the source, without translations."""
    catalogue = Catalog(locale="zh", project="bendi", fuzzy=False)
    for file, _line, message, _comments, _context in extract_from_dir(str(SOURCE), keywords=KEYWORDS):
        # Places without line numbers: the catalogue changes only when a text does.
        catalogue.add(message, locations=[(Path(file).as_posix(), 0)])
    return catalogue


def updated(existing: Catalog) -> Catalog:
    """`existing` translations for the texts of today."""
    fresh = collected()
    for message in fresh:
        known = existing.get(message.id) if message.id else None
        if known and known.string:
            message.string = known.string
    return fresh


def defects(catalogue: Catalog) -> list[str]:
    """What a user would notice: texts without a translation, or with other placeholders than the original."""
    found = []
    for message in catalogue:
        if not message.id:
            continue
        sources = message.id if isinstance(message.id, tuple | list) else (message.id,)
        strings = message.string if isinstance(message.string, tuple | list) else (message.string,)
        if not all(strings):
            found.append(f"untranslated: {sources[0]!r}")
            continue
        wanted = sorted(PLACEHOLDER.findall(sources[-1]))
        found += [f"placeholders differ: {text!r}" for text in strings if sorted(PLACEHOLDER.findall(text)) != wanted]
    return found


def as_bytes(catalogue: Catalog) -> tuple[bytes, bytes]:
    """The catalogue as (.po, .mo), without dates, so that equal catalogues are equal files."""
    po, mo = io.BytesIO(), io.BytesIO()
    write_po(po, catalogue, omit_header=False, sort_by_file=False, include_lineno=False, width=120)
    text = re.sub(r'"(POT-Creation-Date|PO-Revision-Date|Generated-By|Last-Translator|Language-Team|'
                  r'Report-Msgid-Bugs-To): .*\n', "", po.getvalue().decode())  # fmt: skip
    text = re.sub(r"\A(#.*\n)+", "# Chinese texts of bendi; made by tools/catalogues.py\n", text)
    compiled = read_po(io.BytesIO(text.encode()), locale="zh")
    # Without dates of its own the header would say when it was compiled.
    compiled.creation_date = compiled.revision_date = _NO_DATE
    write_mo(mo, compiled)
    return text.encode(), mo.getvalue()


def main() -> int:
    po_file, mo_file = FOLDER / "bendi.po", FOLDER / "bendi.mo"
    existing = read_po(io.BytesIO(po_file.read_bytes()), locale="zh") if po_file.exists() else Catalog(locale="zh")
    catalogue = updated(existing)
    po, mo = as_bytes(catalogue)
    problems = defects(catalogue)
    if "--check" in sys.argv[1:]:
        stale = not po_file.exists() or po_file.read_bytes() != po or not mo_file.exists() or mo_file.read_bytes() != mo
        if stale:
            problems.append("the catalogue is not up to date: run python tools/catalogues.py")
    else:
        FOLDER.mkdir(parents=True, exist_ok=True)
        po_file.write_bytes(po)
        mo_file.write_bytes(mo)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
