"""Figures and names as they are read: digits, units, tiers, and names that may come from a hostile model file."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bendi.i18n import N_, _
from bendi.results import Repeat, Tier, Workload
from bendi.stats import Interval
from bendi.units import GIB

LONGEST_NAME = 160
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


@dataclass(frozen=True)
class Metric:
    """Something that a repeat has. `scale`: from what a repeat holds to `unit`."""

    key: str
    name: str
    abbreviation: str
    unit: str
    of: Callable[[Repeat], float | None]
    more_is_better: bool = True
    scale: float = 1.0

    @property
    def title(self) -> str:
        return _(self.name)

    @property
    def heading(self) -> str:
        """Short, with its unit."""
        return _("{name} ({unit})").format(name=_(self.abbreviation), unit=self.unit)

    @property
    def axis(self) -> str:
        """With its unit."""
        return _("{name} ({unit})").format(name=self.title, unit=self.unit)


TG = Metric("tg_tok_s", N_("Token generation (TG)"), "TG", "tok/s", lambda repeat: repeat.tg_tok_s)
PP = Metric("pp_tok_s", N_("Prompt processing (PP)"), "PP", "tok/s", lambda repeat: repeat.pp_tok_s)
THROUGHPUT = Metric(
    "throughput_tok_s",
    N_("Throughput of all answers"),
    N_("Throughput"),
    "tok/s",
    lambda repeat: repeat.throughput_tok_s,
)
TTFT = Metric(
    "ttft_s", N_("Time to first token (TTFT)"), "TTFT", "s", lambda repeat: repeat.ttft_s, more_is_better=False
)
REQUEST = Metric(
    "request_s",
    N_("Time of a whole request"),
    N_("Request"),
    "s",
    lambda repeat: repeat.request_s,
    more_is_better=False,
)
LOAD = Metric("load_s", N_("Time to load"), N_("Load"), "s", lambda repeat: repeat.load_s, more_is_better=False)
MEMORY = Metric(
    "peak_memory_bytes", N_("Peak memory"), N_("Memory"), "GiB", lambda repeat: repeat.peak_memory_bytes, False, 1 / GIB
)  # fmt: skip
METRICS = (TG, PP, THROUGHPUT, TTFT, REQUEST, LOAD, MEMORY)


def clean(text: object, longest: int = LONGEST_NAME) -> str:
    """In one line, without what cannot be seen (control characters, marks that turn the direction of writing round),
    and not endless."""
    seen = visible(" ".join(str(text).split()))
    return seen if len(seen) <= longest else seen[: longest - 1] + "…"


def visible(text: str) -> str:
    """In its lines, without what cannot be seen."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) not in _INVISIBLE)


def columns_of(text: str) -> int:
    """Columns in a terminal, and about the width in print: Chinese characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def shortened(text: str, columns: int) -> str:
    """`text` in at most so many columns; what is left out, in the middle, is shown as such."""
    if columns_of(text) <= columns:
        return text
    kept = max(columns - 1, 2)
    head, tail = "", ""
    while columns_of(head + tail) < kept - 1:
        if len(head) <= len(tail):
            head = text[: len(head) + 1]
        else:
            tail = text[len(text) - len(tail) - 1 :]
    return head + "…" + tail


def cut(text: str, columns: int) -> str:
    """The beginning of `text`, in at most so many columns."""
    while columns_of(text) > columns:
        text = text[:-1]
    return text


def folded(text: str, columns: int, indent: str = "") -> list[str]:
    """In lines of at most so many columns, broken at spaces where there are any, and between Chinese characters;
    `indent`: before all lines but the first."""
    lines, line = [], ""
    for word in re.findall(r"[^ \u2e80-\uffef]+ ?| |[\u2e80-\uffef] ?", text):
        if line.strip() and columns_of(line + word.rstrip()) > columns:
            lines.append(line.rstrip())
            line = indent
        line += word
    return [cut(each, columns) for each in [*lines, line.rstrip()]]


def figure(value: float | None) -> str:
    """Three or four digits that mean something; a dash for nothing."""
    if value is None:
        return "–"
    size = abs(value)
    if size >= 99.95 or value == 0:
        return f"{value:.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:#.3g}" if size >= 1e-4 else f"{value:.2e}"


def ratio(value: float) -> str:
    """How many times: `"1.42"`."""
    return f"{value:.2f}" if value >= 0.1 else figure(value)


def share(value: float) -> str:
    """Of 0.0213: `"2.1%"`."""
    percent = 100 * value
    return f"{percent:.0f}%" if abs(percent) >= 9.95 else f"{percent:.1f}%"


def between(interval: Interval | None) -> str:
    """`"30.9 to 31.5"`; a dash where there is none."""
    if interval is None:
        return "–"
    return _("{low} to {high}").format(low=figure(interval.low), high=figure(interval.high))


def whole_range(interval: Interval | None) -> str:
    """The same, short enough to stand beside a box: `"30.9–31.5"`."""
    return "–" if interval is None else f"{figure(interval.low)}–{figure(interval.high)}"


def sureness(interval: Interval | None) -> str:
    """How sure an interval is where that is less than it should be; empty where it is."""
    if interval is None or interval.promised or interval.coverage is None:
        return ""
    return _("only {coverage} sure").format(coverage=share(interval.coverage))


def tier_name(tier: Tier) -> str:
    return {
        "wall": _("at the wall"),
        "counter": _("energy counter"),
        "sampled": _("sampled power"),
        "declared": _("declared by the user"),
        "bound": _("upper bound"),
        "none": _("not measured"),
    }[tier]


def covers_text(covers: Sequence[str]) -> str:
    if tuple(covers) == ("wall",):
        return _("the whole machine")
    return " + ".join(clean(part) for part in covers) or _("an unknown part of the machine")


def workload_text(workload: Workload) -> str:
    """What is asked, in words."""
    parts = [_("prompt {prompt} tok, answer {answer} tok").format(
        prompt=workload.prompt_tok, answer=workload.answer_tok)]  # fmt: skip
    if workload.depth_tok:
        parts.append(_("after {depth} tok of conversation").format(depth=workload.depth_tok))
    if workload.turns > 1:
        parts.append(_("{turns} turns").format(turns=workload.turns))
    if workload.text:
        parts.append(_("texts: {name}").format(name=clean(workload.text)))
    return _(", ").join(parts)


def day(seconds: float) -> str:
    """A date, the same everywhere: `"2026-11-28 21:07 UTC"`."""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return _("unknown date")
