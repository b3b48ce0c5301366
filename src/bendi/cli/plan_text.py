"""Plans as text: bars, rates with their error, verdicts, and tables that know how wide the terminal is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from bendi.cli import output
from bendi.i18n import _
from bendi.planner.plan import Plan
from bendi.planner.speed import Rate
from bendi.units import format_size

BAR_CELLS = 12
_WEIGHTS, _KV, _REST, _FREE = "█", "▓", "▒", "·"
_NARROWEST = 60


@dataclass(frozen=True)
class Column:
    """A column of a table. `keep`: how badly it is wanted where the terminal is narrow; the lowest goes first."""

    heading: str
    cells: Sequence[str]
    keep: int
    right: bool = False


def memory_bar(plan: Plan, cells: int = BAR_CELLS) -> str:
    """What a plan takes of what it may take on all its devices: weights, KV cache, the rest, free; and in percent."""
    budget = sum(share.budget_bytes for share in plan.shares)
    parts = [
        sum(share.weights_bytes for share in plan.shares),
        sum(share.kv_bytes for share in plan.shares),
        sum(share.compute_bytes + share.fixed_bytes for share in plan.shares),
    ]
    used = sum(parts)
    if not budget:
        return "?"
    bar, filled, end = "", 0, 0
    for size, mark in zip(parts, (_WEIGHTS, _KV, _REST), strict=True):
        end += size
        upto = min(round(cells * end / budget), cells)
        bar += mark * (upto - filled)
        filled = max(filled, upto)
    return bar + _FREE * (cells - filled) + f" {min(100 * used / budget, 9999):.0f} %"


def bar_legend() -> str:
    """What the marks of `memory_bar` mean."""
    return _("{weights} weights, {kv} KV cache, {rest} buffers, {free} free").format(
        weights=_WEIGHTS, kv=_KV, rest=_REST, free=_FREE
    )


def rate_text(rate: Rate) -> str:
    """`"8.1±1.2"`: tokens per second and how far four of five measurements lie from that at most; empty for none."""
    if not rate.tok_s:
        return ""
    digits = 0 if rate.tok_s >= 99.5 else 1 if rate.tok_s >= 9.95 else 2
    return f"{rate.tok_s:.{digits}f}±{rate.tok_s * rate.error:.{digits}f}"


def verdict_text(plan: Plan) -> str:
    if plan.verdict == "fits":
        return _("fits")
    return _("from disk") if plan.verdict == "slow" else _("does not fit")


def context_text(tokens: int) -> str:
    """`"16k"`, `"40960"`: context lengths as people write them."""
    return f"{tokens // 1024}k" if tokens >= 1024 and tokens % 1024 == 0 else str(tokens)


def kv_text(plan: Plan) -> str:
    """The type of the KV cache where it is not the usual one."""
    settings = plan.settings
    if (settings.type_k, settings.type_v) == ("f16", "f16"):
        return ""
    return settings.type_k if settings.type_k == settings.type_v else f"{settings.type_k}/{settings.type_v}"


def share_lines(plan: Plan) -> list[str]:
    """One line for each device that gets something, where there is more than main memory."""
    lines = []
    for share in plan.shares:
        if len(plan.shares) < 2 or not share.used_bytes:
            continue
        lines.append(
            _("{device}: {layers} layers, {used} of {budget}").format(
                device=share.device,
                layers=share.layers,
                used=format_size(share.used_bytes),
                budget=format_size(share.budget_bytes),
            )
        )
    return lines


def print_columns(columns: Sequence[Column]) -> None:
    """A table, without the columns that the terminal has no room for. In a pipe, all of them."""
    kept = [column for column in columns if any(column.cells)]
    room = terminal_columns()
    while room and _width(kept) > room and len(kept) > 2:
        kept.remove(min(kept, key=lambda column: column.keep))
    rows = list(zip(*(column.cells for column in kept), strict=True))
    right = frozenset(at for at, column in enumerate(kept) if column.right)
    output.table([column.heading for column in kept], rows, right=right)


def terminal_columns() -> int:
    """Columns of the terminal that data goes to, 0 where it goes elsewhere."""
    if not output.is_terminal() and not os.environ.get("COLUMNS"):
        return 0
    return max(shutil.get_terminal_size().columns, _NARROWEST)


def _width(columns: Sequence[Column]) -> int:
    widths = (max(output.cell_width(text) for text in (column.heading, *column.cells)) for column in columns)
    return sum(widths) + 2 * (len(columns) - 1)
