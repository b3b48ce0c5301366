"""Charts as data: what is drawn, with its words, and where it comes from. How it is drawn: `drawing.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bendi.i18n import _
from bendi.report.wording import clean, covers_text, day, figure, tier_name
from bendi.results import Results, Tier
from bendi.stats import Interval, TukeyBox
from bendi.units import format_size

GREY = -1
"""The colour of what is shown but not ranked."""
BOX_FROM = 8
"""With fewer repeats a box would say more than is known: only the points are drawn."""
POINTS_BELOW = 20
"""With more repeats the points would cover the box."""

ZOOM = 0.3
"""An axis begins at zero unless all values are above so much of the largest: then their spread could not be seen."""


@dataclass(frozen=True)
class Provenance:
    """Without which no chart or table is shown. `ran`: engine, build and model, a line each."""

    date: str
    machine: str
    repeats: str
    energy: str
    ran: tuple[str, ...]

    @property
    def line(self) -> str:
        return " · ".join(part for part in (self.date, self.machine, self.repeats, self.energy) if part)


@dataclass(frozen=True)
class Box:
    """One line of a chart of boxes. `text`: what is printed beside it. `colour`: an index, GREY if not ranked."""

    label: str
    values: tuple[float, ...]
    box: TukeyBox
    interval: Interval | None
    text: str
    colour: int


@dataclass(frozen=True)
class Point:
    """`low`, `high`: of `y`; None where there is no interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    x_low: float | None = None
    x_high: float | None = None
    label: str = ""
    colour: int = 0
    strong: bool = False


@dataclass(frozen=True)
class Line:
    label: str
    points: tuple[Point, ...]
    colour: int


@dataclass(frozen=True)
class BoxChart:
    axis: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class LineChart:
    """`levels`: horizontal lines with their names, such as prices of others. `ticks`: of x, where only these occur.
    `logarithmic`: the upright axis."""

    x_axis: str
    y_axis: str
    lines: tuple[Line, ...]
    ticks: tuple[float, ...] = ()
    levels: tuple[tuple[str, float], ...] = ()
    logarithmic: bool = False


@dataclass(frozen=True)
class PointChart:
    """`front`: the strong points are joined: none of the others is better in both. `diagonal`: both axes are the same,
    logarithmic, with the line where they agree."""

    x_axis: str
    y_axis: str
    points: tuple[Point, ...]
    front: bool = False
    diagonal: bool = False


Chart = BoxChart | LineChart | PointChart


@dataclass(frozen=True)
class Figure:
    """`name`: of a file, without its suffix. `legend`: names of colours by index. `alt`: the chart in words."""

    name: str
    title: str
    chart: Chart
    provenance: Provenance
    notes: tuple[str, ...] = ()
    legend: tuple[tuple[int, str], ...] = ()
    alt: str = ""


@dataclass(frozen=True)
class Table:
    """Of texts. `right`: indices of columns with figures. `grey`: indices of rows without a rank. `folded`: on a page,
    shown when asked for. `remarks`: index of a column of sentences, which may stand below instead."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    grey: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = None
    folded: bool = False
    remarks: int | None = None


def begins_at_zero(values: Sequence[float]) -> bool:
    """Whether an axis with these values does."""
    return not values or min(values) < ZOOM * max(values)


def to_scale(ticks: Sequence[float]) -> bool:
    """Whether these stand far enough apart on an axis that is to scale; otherwise every step is as wide."""
    ordered = sorted(ticks)
    return all(after - before >= 0.06 * (ordered[-1] - ordered[0]) for before, after in pairwise(ordered))


def scale_note(ticks: Sequence[float]) -> tuple[str, ...]:
    return () if to_scale(ticks) else (_("The horizontal axis is not to scale: every step is as wide."),)


def machine_text(results: Results) -> str:
    """The processors and the memory, as far as the study knows them."""
    described = results.facts.machine
    machine = described.get("machine", described)
    if not isinstance(machine, dict):
        return _("unknown machine")
    parts = []
    for place, key in (("cpu", "model"), ("memory", "total_bytes")):
        part = machine.get(place)
        value = part.get(key) if isinstance(part, dict) else None
        if value:
            known = isinstance(value, int | float) and not isinstance(value, bool)
            parts.append(format_size(value) if known else clean(value, 60))
    gpus = machine.get("gpus")
    names = [clean(gpu.get("name", ""), 60) for gpu in gpus if isinstance(gpu, dict)] if isinstance(gpus, list) else []
    parts += [f"{names.count(name)} × {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    return ", ".join(part for part in parts if part) or _("unknown machine")


def ran_lines(results: Results, configurations: Sequence[str]) -> tuple[str, ...]:
    """What really ran, a line for each engine and model file."""
    lines = []
    for engine in results.engines:
        if engine.configuration in configurations:
            build = clean(" ".join([engine.engine, engine.version, engine.build]))
            model = _("model {hash}, {size}").format(
                hash=clean(engine.model_sha256, 12) or "–", size=format_size(engine.model_bytes)
            )
            lines.append(f"{build} · {model}")
    missing = len(set(configurations) - {engine.configuration for engine in results.engines})
    if missing:
        lines.append(_("of {count} configurations it is not known what ran").format(count=missing))
    return tuple(dict.fromkeys(lines))


def provenance_of(
    results: Results,
    configurations: Sequence[str],
    counts: Sequence[int],
    energy: tuple[Tier, tuple[str, ...], str] | None = None,
) -> Provenance:
    """`counts`: of repeats, for each of what is shown. `energy`: tier, coverage and meter, where it is about energy."""
    least, most = min(counts, default=0), max(counts, default=0)
    n = str(most) if least == most else _("{low} to {high}").format(low=least, high=most)
    began = [repeat.began_s for repeat in results.repeats] or [results.facts.created_s]
    source = ""
    if energy:
        tier, covers, meter = energy
        source = _("{tier} ({meter}): {covers}").format(
            tier=tier_name(tier), meter=clean(meter), covers=covers_text(covers)
        )
    return Provenance(
        date=day(min(began)),
        machine=machine_text(results),
        repeats=_("n = {n} repeats").format(n=n) if counts else "",
        energy=source,
        ran=ran_lines(results, configurations),
    )


def alt_text(title: str, axis: str, medians: Sequence[tuple[str, float]]) -> str:
    """For who does not see the chart."""
    pairs = _(", ").join(f"{label} {figure(value)}" for label, value in medians)
    return _("{title}; {axis}, medians: {pairs}").format(title=title, axis=axis, pairs=pairs)
