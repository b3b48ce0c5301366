"""Draws charts: the one file that knows matplotlib.

Every chart comes wide, for a screen or a page, and narrow, for a phone. Text stays text, and colours are names: in an
SVG for a page they become variables of its style, so that one drawing serves light and dark paper.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bendi.report.charts import (
    BOX_FROM,
    POINTS_BELOW,
    Box,
    BoxChart,
    Figure,
    Line,
    LineChart,
    Point,
    PointChart,
    begins_at_zero,
    to_scale,
)
from bendi.report.palette import SHADES, marker, shade
from bendi.report.wording import columns_of, folded, shortened

WIDE_PX, NARROW_PX = 880, 344
_FONT_PX = 13.0
_COLUMN_PX = 0.6 * _FONT_PX
"""About the width of a letter, a little more than most; half that of a Chinese one."""
_PNG_SCALE = 2
_CHINESE = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans GB",
    "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Arial Unicode MS",
)  # fmt: skip
_ROW_PX = 34


@dataclass(frozen=True)
class _Paper:
    """What is drawn on: in pixels; matplotlib's points are the same at 72 dots per inch."""

    drawing: Drawing
    width: float
    height: float
    narrow: bool

    def axes(self, left: float, bottom: float, right: float, top: float) -> Axes:
        """With margins in pixels."""
        axes = self.drawing.add_axes(
            (
                left / self.width,
                bottom / self.height,
                (self.width - left - right) / self.width,
                (self.height - bottom - top) / self.height,
            )
        )
        axes.set_axisbelow(True)
        axes.patch.set_visible(False)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(_light("strong"))
        axes.tick_params(colors=_light("soft"), length=0, pad=6)
        return axes


def can_write_chinese() -> bool:
    """Whether this machine has a font with Chinese characters, which pictures need and pages do not."""
    return bool(_chinese_fonts())


def svg_for_page(made: Figure, narrow: bool) -> str:
    """An `<svg>` to stand in a page: colours are variables, identifiers are its own, the font is the page's."""
    text = _saved(made, narrow, "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w.-]+)", text))
    prefix = f"{made.name}-{'n' if narrow else 'w'}-"

    def own(tag: re.Match[str]) -> str:
        inside = tag[0]
        for name, (light, _dark) in SHADES.items():
            inside = inside.replace(light, f"var(--{name})")
        inside = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", inside)
        inside = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}", inside)
        inside = re.sub(r"(\d\.\d\d)\d+", r"\1", inside)
        return re.sub(r"font-family: [^;\"]*;? ?", "", inside)

    # In tags only: what people named something stays as it is.
    text = re.sub(r"<[^>]*>", own, text)
    opening = re.sub(r' (width|height|version)="[^"]*"', "", text[: text.index(">")])
    title = escape(made.alt or made.title, quote=False)
    label = f' role="img" aria-labelledby="{prefix}title"><title id="{prefix}title">{title}</title>'
    return re.sub(r"\s*\n\s*", " ", opening + label + text[text.index(">") + 1 :])


def picture(made: Figure, kind: str, narrow: bool = False) -> bytes:
    """A file of its own, `"svg"` or `"png"`, on white paper, with its title, its colours and where it comes from."""
    return _saved(made, narrow, kind, alone=True)


def _saved(made: Figure, narrow: bool, kind: str, alone: bool = False) -> bytes:
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": made.name,
        "font.family": ["DejaVu Sans", *_chinese_fonts()[:1]],
        "font.size": _FONT_PX,
        "text.parse_math": False,
        "text.color": _light("ink"),
        "axes.labelcolor": _light("soft"),
        "axes.unicode_minus": True,
    }
    out = io.BytesIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # In a page the reader's own fonts write; here they only say how wide a text is.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        drawing = _drawn(made, narrow)
        if alone:
            _frame(drawing, made)
        paper = _light("paper") if alone else "none"
        drawing.savefig(
            out,
            format=kind,
            dpi=72 * (_PNG_SCALE if kind == "png" else 1),
            facecolor=paper,
            metadata={"Date": None} if kind == "svg" else None,
        )
    return out.getvalue()


def _frame(drawing: Drawing, made: Figure) -> None:
    """What stands around a chart on a page, for a chart that stands alone: room above and below, and words in it."""
    width, height = (float(side) * 72 for side in drawing.get_size_inches())
    columns = int((width - 32) / _COLUMN_PX)
    where = made.provenance
    title = folded(made.title, columns)
    words = [
        line for text in (*made.notes, where.line, "; ".join(where.ran)) for line in folded(text, int(columns * 1.15))
    ]
    legend = [(colour, columns_of(name) * _COLUMN_PX + 32, name) for colour, name in made.legend]
    above, below = 22 * len(title) + 18 + (26 if legend else 0), 17 * len(words) + 18
    whole = height + above + below
    drawing.set_size_inches(width / 72, whole / 72)
    for axes in drawing.axes:
        place = axes.get_position()
        axes.set_position((place.x0, (place.y0 * height + below) / whole, place.width, place.height * height / whole))
    for text in drawing.texts:
        text.set_y((text.get_position()[1] * height + below) / whole)
    for sign in drawing.artists:
        if isinstance(sign, Line2D):
            heights: Any = sign.get_ydata()
            sign.set_ydata([(y * height + below) / whole for y in heights])
    for index, line in enumerate(title):
        drawing.text(16 / width, 1 - (22 + 22 * index) / whole, line, va="center", fontsize=_FONT_PX + 2)
    left = 22.0
    for colour, step, name in legend:
        y = 1 - (above - 12) / whole
        drawing.add_artist(Line2D([left / width], [y], color=_light(shade(colour)), marker="s", linestyle=""))
        drawing.text((left + 12) / width, y, shortened(name, columns), va="center")
        left += step
    for index, line in enumerate(words):
        drawing.text(16 / width, (below - 10 - 17 * index) / whole, line, va="center", fontsize=_FONT_PX - 2,
                     color=_light("soft"))  # fmt: skip


def _drawn(made: Figure, narrow: bool) -> Drawing:
    chart = made.chart
    if isinstance(chart, BoxChart):
        return _boxes(chart, narrow)
    return _lines(chart, narrow) if isinstance(chart, LineChart) else _points(chart, narrow)


def _paper(height: float, narrow: bool) -> _Paper:
    width = NARROW_PX if narrow else WIDE_PX
    return _Paper(Drawing(figsize=(width / 72, height / 72), dpi=72), width, height, narrow)


def _boxes(chart: BoxChart, narrow: bool) -> Drawing:
    """One row for each box; on a phone its name stands above it, so that the box has the whole width."""
    count = len(chart.boxes)
    names = [columns_of(box.label) * _COLUMN_PX for box in chart.boxes]
    texts = [columns_of(box.text) * _COLUMN_PX for box in chart.boxes]
    # On a phone, names too long to stand beside the figures stand above them.
    stacked = narrow and max(map(sum, zip(names, texts, strict=True)), default=0) > NARROW_PX - 40
    row_px = _ROW_PX * (2.0 if stacked else 1.5 if narrow else 1.0)
    paper = _paper(count * row_px + 62, narrow)
    left = 14.0 if narrow else min(max(names, default=0) + 18, 0.36 * paper.width)
    right = 16.0 if narrow else max(texts, default=0) + 14
    axes = paper.axes(left, 46, right, 8)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks([])
    _range_of_x(axes, [value for box in chart.boxes for value in box.values])
    axes.grid(axis="x", color=_light("line"), linewidth=1)
    axes.set_xlabel(chart.axis, labelpad=6)
    beside = axes.get_yaxis_transform()
    behind = {"facecolor": _light("paper"), "edgecolor": "none", "pad": 1.0}
    for row, box in enumerate(chart.boxes):
        tone = _light("soft") if box.colour < 0 else _light("ink")
        if narrow:
            room = (paper.width - 32) / _COLUMN_PX - (0 if stacked else columns_of(box.text) + 1)
            axes.text(0, row - (0.36 if stacked else 0.3), shortened(box.label, int(room)), color=tone,
                      transform=beside, va="center", bbox=behind)  # fmt: skip
            axes.text(0 if stacked else 1, row - (0.08 if stacked else 0.3), box.text, color=_light("soft"),
                      transform=beside, va="center", ha="left" if stacked else "right", bbox=behind)  # fmt: skip
        else:
            label = shortened(box.label, int((left - 14) / _COLUMN_PX))
            for text, side, place, colour in ((label, "right", 0, tone), (box.text, "left", 1, _light("soft"))):
                axes.annotate(text, (place, row), (12 if place else -12, 0), xycoords=beside, va="center", ha=side,
                              textcoords="offset points", color=colour, annotation_clip=False)  # fmt: skip
        _box(axes, box, row + (0.28 if stacked else 0.18 if narrow else 0.0), 22 / row_px)
    return paper.drawing


def _box(axes: Axes, box: Box, place: float, height: float) -> None:
    """`height`: of all of it; where there are points they are below the box, so that neither hides the other."""
    colour = _light(shade(box.colour))
    shape = box.box
    few, points = shape.n < BOX_FROM, shape.n < POINTS_BELOW
    middle, half = (place, height / 2) if few or not points else (place - height / 5, height * 0.3)
    if few:
        if box.interval:
            axes.plot([box.interval.low, box.interval.high], [place, place], color=colour, linewidth=6, alpha=0.25,
                      solid_capstyle="butt")  # fmt: skip
    else:
        for low, high in ((shape.whisker_low, shape.q1), (shape.q3, shape.whisker_high)):
            axes.plot([low, high], [middle, middle], color=colour, linewidth=1.5, solid_capstyle="butt")
        for end in (shape.whisker_low, shape.whisker_high):
            axes.plot([end, end], [middle - half / 2, middle + half / 2], color=colour, linewidth=1.5)
        axes.fill_betweenx([middle - half, middle + half], shape.q1, shape.q3, facecolor=colour, alpha=0.3, linewidth=0)
        for edge in (shape.q1, shape.q3):
            axes.plot([edge, edge], [middle - half, middle + half], color=colour, linewidth=1.2)
    axes.plot([shape.median] * 2, [middle - half, middle + half], color=colour, linewidth=3, solid_capstyle="butt")
    shown = box.values if points else shape.outliers
    strip = place if few or not points else place + height * 0.36
    spread = height * (0.25 if few else 0.1)
    axes.scatter(shown, [strip + _aside(index) * spread for index in range(len(shown))], s=16, facecolor=colour,
                 alpha=0.75, linewidth=0, zorder=4, clip_on=False)  # fmt: skip


def _aside(index: int) -> float:
    """Repeats in their order, a little up and down, so that equal ones do not hide each other."""
    return (-1.0, 0.0, 1.0, -0.5, 0.5)[index % 5]


def _lines(chart: LineChart, narrow: bool) -> Drawing:
    """Names stand at the ends of lines, moved apart where they would meet; on a phone below, as a legend."""
    names = [line.label for line in chart.lines]
    below = 24 * len(names) + 6 if narrow else 0
    paper = _paper((300 if narrow else 380) + below, narrow)
    widest = max((columns_of(name) for name in names), default=0)
    right = 16.0 if narrow else min(widest * _COLUMN_PX + 30, 0.34 * paper.width)
    axes = paper.axes(52, 50 + below, right, 34)
    heights = [
        each for line in chart.lines for point in line.points for each in (point.y, point.low, point.high) if each
    ]
    heights += [level for _name, level in chart.levels]
    _range_up(axes, heights, chart.logarithmic)
    axes.grid(axis="y", color=_light("line"), linewidth=1)
    axes.text(0, 1.0, chart.y_axis, transform=axes.transAxes, va="bottom", ha="left", color=_light("soft"),
              position=(-36 / (paper.width - 52 - right), 1.035))  # fmt: skip
    axes.set_xlabel(chart.x_axis, labelpad=6)
    places = dict(zip(chart.ticks, chart.ticks, strict=True)) if to_scale(chart.ticks) else {
        tick: float(index) for index, tick in enumerate(chart.ticks)
    }  # fmt: skip
    axes.xaxis.set_major_locator(FixedLocator(list(places.values())))
    axes.set_xticklabels([f"{tick:g}" for tick in chart.ticks])
    margin = 0.04 * (max(places.values()) - min(places.values()) or 1.0)
    axes.set_xlim(min(places.values()) - margin, max(places.values()) + margin)
    for line in chart.lines:
        _line(axes, line.colour, [replace(point, x=places[point.x]) for point in line.points])
    for name, level in chart.levels:
        axes.axhline(level, color=_light("strong"), linewidth=1.2, linestyle=(0, (5, 3)))
        axes.text(0.01, level, shortened(name, 40), transform=axes.get_yaxis_transform(), va="bottom",
                  fontsize=_FONT_PX - 1.5, color=_light("soft"))  # fmt: skip
    if narrow:
        _legend_below(paper, chart.lines, below)
    else:
        _names_at_ends(axes, chart.lines, int((right - 20) / _COLUMN_PX))
    return paper.drawing


def _names_at_ends(axes: Axes, lines: Sequence[Line], room: int) -> None:
    ends = [axes.transData.transform((0, line.points[-1].y))[1] for line in lines]
    for line, height in zip(lines, _apart(ends, 18), strict=True):
        share = (height - axes.bbox.y0) / axes.bbox.height
        axes.annotate(shortened(line.label, room), (1, share), (12, 0), xycoords="axes fraction",
                      textcoords="offset points", va="center", color=_light(shade(line.colour)),
                      annotation_clip=False)  # fmt: skip


def _line(axes: Axes, colour: int, points: Sequence[Point]) -> None:
    tone = _light(shade(colour))
    style: Any = "-" if colour >= 0 else ":"
    axes.plot([point.x for point in points], [point.y for point in points], color=tone, linewidth=2, linestyle=style,
              marker=marker(colour), markersize=6, markeredgecolor=_light("paper"), clip_on=False)  # fmt: skip
    for point in points:
        if point.low is not None and point.high is not None:
            axes.plot([point.x, point.x], [point.low, point.high], color=tone, linewidth=1.4, alpha=0.7, clip_on=False)


def _points(chart: PointChart, narrow: bool) -> Drawing:
    paper = _paper(340 if narrow else 440, narrow)
    axes = paper.axes(56, 52, 20, 36)
    axes.grid(color=_light("line"), linewidth=1)
    axes.set_xlabel(chart.x_axis, labelpad=6)
    axes.text(-40 / (paper.width - 76), 1.035, chart.y_axis, transform=axes.transAxes, va="bottom",
              color=_light("soft"))  # fmt: skip
    if chart.diagonal:
        _same_axes(axes, [value for point in chart.points for value in (point.x, point.y) if value > 0])
    else:
        _range_of_x(axes, [value for each in chart.points for value in (each.x, each.x_low, each.x_high) if value])
        _range_of_y(
            axes, [value for each in chart.points for value in (each.y, each.low, each.high) if value is not None]
        )
    for point in chart.points:
        tone = _light(shade(point.colour))
        if point.low is not None and point.high is not None:
            axes.plot([point.x] * 2, [point.low, point.high], color=tone, linewidth=1.3, alpha=0.6)
        if point.x_low is not None and point.x_high is not None:
            axes.plot([point.x_low, point.x_high], [point.y] * 2, color=tone, linewidth=1.3, alpha=0.6)
        axes.plot([point.x], [point.y], linestyle="", marker=marker(point.colour), color=tone, clip_on=False,
                  markersize=9 if point.strong else 7, markeredgecolor=_light("paper"))  # fmt: skip
    if chart.front:
        front = sorted((point.x, point.y) for point in chart.points if point.strong)
        axes.plot(
            *zip(*front, strict=True), color=_light("strong"), linewidth=1.2, linestyle=(0, (4, 3)), zorder=1
        ) if front else None
    _names(axes, paper, chart.points)
    return paper.drawing


def _names(axes: Axes, paper: _Paper, points: Sequence[Point]) -> None:
    """Beside their points, wherever they meet neither each other nor a point; strong ones first. Who finds no room has
    a name in the table."""
    taken: list[tuple[float, float, float, float]] = []
    to_pixels = axes.transData.transform
    spots = {id(point): tuple(float(each) for each in to_pixels((point.x, point.y))) for point in points}
    for x, y in spots.values():
        taken.append((x - 5, y - 5, x + 5, y + 5))
    for point in points:
        x, y = spots[id(point)]
        for end, across in ((point.low, False), (point.high, False), (point.x_low, True), (point.x_high, True)):
            if end is not None:
                other = to_pixels((end, point.y) if across else (point.x, end))
                taken.append((min(x, other[0]) - 1, min(y, other[1]) - 1, max(x, other[0]) + 1, max(y, other[1]) + 1))
    for point in sorted(points, key=lambda each: not each.strong):
        if not point.label:
            continue
        x, y = spots[id(point)]
        text = shortened(point.label, 26 if paper.narrow else 40)
        width = columns_of(text) * _COLUMN_PX
        for dx, dy, side in ((9, 0, "left"), (-9, 0, "right"), (0, 14, "center"), (0, -14, "center"), (9, 12, "left"),
                             (-9, 12, "right"), (9, -12, "left"), (-9, -12, "right")):  # fmt: skip
            start = x + dx - {"left": 0.0, "right": width, "center": width / 2}[side]
            area = (start, y + dy - 8, start + width, y + dy + 8)
            inside = (
                area[0] > axes.bbox.x0 and area[2] < paper.width - 4 and area[1] > 48 and area[3] < paper.height - 20
            )
            if inside and not any(_meet(area, other) for other in taken):
                taken.append(area)
                axes.annotate(text, (point.x, point.y), (dx, dy), textcoords="offset points", ha=side, va="center",
                              fontsize=_FONT_PX - 1, color=_light(shade(point.colour)),
                              annotation_clip=False)  # fmt: skip
                break


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _legend_below(paper: _Paper, lines: Sequence[Line], height: float) -> None:
    for index, line in enumerate(lines):
        y = (height - 12 - index * 24) / paper.height
        sign = Line2D(
            [20 / paper.width], [y], color=_light(shade(line.colour)), marker=marker(line.colour), linestyle=""
        )
        paper.drawing.add_artist(sign)
        room = int((paper.width - 44) / _COLUMN_PX)
        paper.drawing.text(34 / paper.width, y, shortened(line.label, room), va="center", color=_light("ink"))


def _range_of_x(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xlim(*_range(values))
    axes.xaxis.set_major_locator(MaxNLocator(5 if axes.bbox.width < 500 else 8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))


def _range_of_y(axes: Axes, values: Sequence[float]) -> None:
    axes.set_ylim(*_range(values))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))


def _range_up(axes: Axes, values: Sequence[float], logarithmic: bool) -> None:
    """From zero; or, where values differ by powers, from below the least."""
    if logarithmic and values and min(values) > 0:
        axes.set_yscale("log")
        low, high = min(values) / 1.3, max(values) * 1.3
        axes.set_ylim(low, high)
        axes.yaxis.set_major_locator(FixedLocator(_round_numbers(low, high)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, max(values, default=1.0) * 1.08)
        axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 and so on; of many only the powers of ten."""
    found = [base * 10.0**power for power in range(-9, 10) for base in (1, 2, 5) if low <= base * 10.0**power <= high]
    return found if len(found) <= 7 else [tick for tick in found if f"{tick:e}".startswith("1")]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if begins_at_zero(values):
        return min(low * 1.05, 0.0), high * 1.04 or 1.0
    margin = (high - low) * 0.12 or abs(high) * 0.02
    return low - margin, high + margin


def _same_axes(axes: Axes, values: Sequence[float]) -> None:
    low, high = min(values, default=1.0) / 1.4, max(values, default=10.0) * 1.4
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(_round_numbers(low, high)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.plot([low, high], [low, high], color=_light("strong"), linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """The same heights, moved so that none is nearer than `least` to the next, in their order."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed = [heights[index] for index in order]
    for _round in range(100):
        for index in range(1, len(placed)):
            overlap = least - (placed[index] - placed[index - 1])
            if overlap > 0:
                placed[index - 1] -= overlap / 2
                placed[index] += overlap / 2
    back = dict(zip(order, placed, strict=True))
    return [back[index] for index in range(len(heights))]


def _light(name: str) -> str:
    return SHADES[name][0]


def _chinese_fonts() -> list[str]:
    known = {font.name for font in fontManager.ttflist}
    return [name for name in _CHINESE if name in known]
