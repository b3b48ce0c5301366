"""Where results files are, and which one is meant."""

from __future__ import annotations

import re
import time
from difflib import get_close_matches
from pathlib import Path

from bendi.bench.journal import read_results
from bendi.bench.studies import STUDIES
from bendi.errors import BendiError, NotFoundError
from bendi.i18n import _
from bendi.results import Results
from bendi.settings import Settings

SUFFIX = ".jsonl"


def studies_folder(settings: Settings) -> Path:
    return settings.state_dir / STUDIES


def results_files(settings: Settings) -> list[Path]:
    """Of this machine's studies, the latest last."""
    return sorted(studies_folder(settings).glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)


def results_path(text: str, settings: Settings) -> Path:
    """A path, a name from `bendi bench list`, or `last`. Raises NotFoundError."""
    path = Path(text).expanduser()
    if path.suffix == SUFFIX and path.is_file():
        return path
    found = results_files(settings)
    names = {each.stem: each for each in found}
    if text == "last" and found:
        return found[-1]
    if text in names:
        return names[text]
    close = get_close_matches(text, names, n=3)
    raise NotFoundError(
        _("There are no results called {name!r}.").format(name=text),
        hint=_("Nearest: {names}").format(names=", ".join(close)) if close else "bendi bench list",
    )


def new_path(title: str, settings: Settings) -> Path:
    """For the results of a study that begins now."""
    slug = re.sub(r"[^\w]+", "-", title.lower()).strip("-")[:60] or "study"
    stem = f"{slug}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = studies_folder(settings)
    names = (f"{stem}{'' if number == 0 else f'-{number}'}{SUFFIX}" for number in range(1000))
    return next(folder / name for name in names if not (folder / name).exists())


def begun(text: str, settings: Settings) -> Path | None:
    """The latest results of the study whose file has this text, if they are not complete."""
    for path in reversed(results_files(settings)):
        try:
            results = read_results(path)
        except BendiError:
            continue
        if results.facts.text == text:
            return None if complete(results) else path
    return None


def complete(results: Results) -> bool:
    return repeats_done(results) >= len(results.facts.cells) * results.facts.blocks


def repeats_done(results: Results) -> int:
    """Repeats that are there, or were given up."""
    found = {(each.cell, each.block) for each in results.repeats}
    return len(found | {(each.cell, each.block) for each in results.failures if each.final})
