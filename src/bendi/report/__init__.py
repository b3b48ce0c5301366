"""What the results of a study say: as a page, pictures, tables, and in the terminal.

Knows results and statistics, and how they are shown; every figure comes with where it comes from, and what is not known
is said to be so. Does not measure, does not read files of results, and prints nothing. The names below are fetched
when they are first used: only pages and pictures load matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bendi.report.export import csv, csv_of_repeats, markdown
    from bendi.report.given import Estimate, QualityRow, ReportOptions
    from bendi.report.html_page import page, write_page
    from bendi.report.paper_style import paper, paper_tables
    from bendi.report.pictures import FORMATS, english_for_want_of_a_font, write_figures
    from bendi.report.terminal_charts import terminal
    from bendi.report.writing import write_whole

_HOME = {
    "Estimate": "given",
    "FORMATS": "pictures",
    "QualityRow": "given",
    "ReportOptions": "given",
    "csv": "export",
    "csv_of_repeats": "export",
    "english_for_want_of_a_font": "pictures",
    "markdown": "export",
    "page": "html_page",
    "paper": "paper_style",
    "paper_tables": "paper_style",
    "terminal": "terminal_charts",
    "write_figures": "pictures",
    "write_page": "html_page",
    "write_whole": "writing",
}

__all__ = [
    "FORMATS", "Estimate", "QualityRow", "ReportOptions", "csv", "csv_of_repeats", "english_for_want_of_a_font",
    "markdown", "page", "paper", "paper_tables", "terminal", "write_figures", "write_page", "write_whole",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"bendi.report.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bendi.report' has no attribute {name!r}")
