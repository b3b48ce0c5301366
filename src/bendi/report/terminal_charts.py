"""Box plots in a terminal: plain text, as wide as it may be, readable without colour."""

from __future__ import annotations

from collections.abc import Iterable

from bendi.i18n import _
from bendi.report.charts import BOX_FROM, begins_at_zero
from bendi.report.findings import findings
from bendi.report.given import ReportOptions
from bendi.report.view import Setup, Summary, View
from bendi.report.wording import PP, THROUGHPUT, Metric, columns_of, cut, figure, folded, shortened, whole_range
from bendi.results import Results
from bendi.stats import tukey_box

_LEAST_PLOT = 16
_MOST_LABEL = 36


def terminal(results: Results, width: int = 80, options: ReportOptions | None = None) -> str:
    """What was found in sentences, and a chart for each workload; no line is wider than `width` columns."""
    view = View(results)
    width = max(width, 40)
    lines = [
        line for each in findings(view, options or ReportOptions()) for line in folded("• " + each.text, width, "  ")
    ]
    for setup in view.setups:
        lines += ["", *folded(_("{title}: {setup}").format(title=setup.name, setup=setup.text), width)]
        metrics = dict.fromkeys([setup.main, *([PP] if setup.main is not PP and setup.main is not THROUGHPUT else [])])
        for metric in metrics:
            lines += _chart(setup, metric, width)
    return "\n".join(lines).strip("\n") + "\n" if lines else _("Nothing was measured yet.") + "\n"


def _chart(setup: Setup, metric: Metric, width: int) -> Iterable[str]:
    rows = setup.ranked(metric) + [row for row in setup.rows if row.grey and row.get(metric)]
    found = [(row, row.summaries[metric.key]) for row in rows]
    if not found:
        return
    texts = [f"{figure(each.median)} ({whole_range(each.interval)}) n={each.n}" for _row, each in found]
    labels = [("✗ " if row.grey else "") + row.label for row, _summary in found]
    text_width = max(map(columns_of, texts))
    room = max(width - text_width - 4 - _LEAST_PLOT, 8)
    label_width = min(max(map(columns_of, labels)), room, _MOST_LABEL)
    plot_width = max(width - label_width - text_width - 4, 4)
    values = [value for _row, summary in found for value in summary.values]
    low, high = (0.0 if begins_at_zero(values) else min(values)), max(values)
    yield cut(metric.axis, width)
    for label, text, (_row, summary) in zip(labels, texts, found, strict=True):
        label = shortened(label, label_width)
        space = " " * (label_width - columns_of(label))
        yield cut(f"{label}{space}  {_plot(summary, low, high, plot_width)}  {text}", width).rstrip()
    ends = f"{figure(low)}{figure(high):>{max(plot_width - len(figure(low)), 1)}}"
    yield cut(" " * (label_width + 2) + ends, width)
    if any(row.grey for row, _summary in found):
        yield cut(_("✗: not ranked"), width)


def _plot(summary: Summary, low: float, high: float, width: int) -> str:
    """Whiskers, box and median; with few repeats only the points."""
    box = tukey_box(summary.values)
    span = (high - low) or 1.0

    def at(value: float) -> int:
        return round((value - low) / span * (width - 1))

    cells = [" "] * width
    if box.n >= BOX_FROM:
        for place in range(at(box.whisker_low), at(box.whisker_high) + 1):
            cells[place] = "─"
        cells[at(box.whisker_low)], cells[at(box.whisker_high)] = "├", "┤"
        for place in range(at(box.q1), at(box.q3) + 1):
            cells[place] = "▒"
        for value in box.outliers:
            cells[at(value)] = "o"
    else:
        for value in summary.values:
            cells[at(value)] = "o"
    cells[at(box.median)] = "┃"
    return "".join(cells)
