"""Every chart of a report as files of their own: SVG and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bendi.i18n import language, set_language
from bendi.report.contents import Contents
from bendi.report.drawing import can_write_chinese, picture
from bendi.report.given import ReportOptions
from bendi.report.writing import write_whole
from bendi.results import Results

FORMATS = ("svg", "png")


def write_figures(
    results: Results, options: ReportOptions, folder: Path, formats: Sequence[str] = FORMATS, *, narrow: bool = False
) -> list[Path]:
    """Writes them, each whole or not at all, and returns where. Where this machine has no font for Chinese, PNGs are
    in English; `english_for_want_of_a_font` says whether that is so. Raises DataError; ValueError for other formats."""
    if unknown := set(formats) - set(FORMATS):
        raise ValueError(unknown)
    written = []
    for kind in formats:
        for name, content in _drawn(results, options, kind, narrow):
            path = folder / f"{name}.{kind}"
            write_whole(path, content)
            written.append(path)
    return written


def english_for_want_of_a_font() -> bool:
    """Whether pictures will be in English although Chinese is wanted."""
    return language() == "zh" and not can_write_chinese()


def _drawn(results: Results, options: ReportOptions, kind: str, narrow: bool) -> list[tuple[str, bytes]]:
    wanted = language()
    if kind == "png" and english_for_want_of_a_font():
        set_language("en")
    try:
        return [(figure.name, picture(figure, kind, narrow)) for figure in Contents(results, options).figures]
    finally:
        set_language(wanted)
