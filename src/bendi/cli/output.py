"""The one place that prints: data on stdout, talk on stderr.

`rich` is imported only where a terminal is really there, so a pipe costs nothing. Colour is never needed to
understand the output; `NO_COLOR` and `TERM=dumb` are honoured by rich.
"""

from __future__ import annotations

import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from bendi.i18n import _
from bendi.units import format_duration, format_size


def data(text: str, end: str = "\n") -> None:
    """What the user asked for, to stdout, at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def say(text: str) -> None:
    """Talk about what happens, to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def talk_stream() -> Any:
    """Where `say` writes."""
    return sys.stderr


def json_data(value: object) -> None:
    """`value` as JSON on stdout: UTF-8, indented, keys in the order given."""
    data(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def is_terminal(stream: Any = None) -> bool:
    """Whether `stream` (default stdout) is a terminal that can move its cursor."""
    stream = sys.stdout if stream is None else stream
    return bool(stream.isatty()) and os.environ.get("TERM", "") != "dumb"


def cell_width(text: str) -> int:
    """Columns that `text` takes in a terminal: Chinese characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> None:
    """Rows under headings, aligned; `right`: indices of right-aligned columns. Plain text, the same in a pipe."""
    cells = [list(columns), *[list(row) for row in rows]]
    widths = [max(cell_width(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        padded = []
        for i, text in enumerate(row):
            space = " " * (widths[i] - cell_width(text))
            padded.append(space + text if i in right else text + space)
        data("  ".join(padded).rstrip())


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Labels and texts in two columns, those with a text."""
    shown = [pair for pair in pairs if pair[1]]
    width = max(cell_width(label) for label, _text in shown)
    for label, text in shown:
        data(label + " " * (width - cell_width(label) + 2) + text)


def confirm(question: str, default: bool = False) -> bool:
    """Asks yes or no on the terminal; `default` where nobody can answer."""
    if not sys.stdin.isatty():
        return default
    sys.stderr.write(f"{question} {'[Y/n]' if default else '[y/N]'} ")
    sys.stderr.flush()
    answer = sys.stdin.readline().strip().lower()
    return default if not answer else answer in ("y", "yes", "是", "好")


class ProgressBar(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, done: float, total: float | None, note: str = "") -> None: ...


class _TerminalProgress:
    """One line on stderr, redrawn at most ten times a second; with rate and time left."""

    def __init__(self, label: str, show: Callable[[float], str]) -> None:
        self._label, self._show = label, show
        self._started: tuple[float, float] | None = None
        self._drawn_s = 0.0
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def update(self, done: float, total: float | None, note: str = "") -> None:
        now_s = time.monotonic()
        if self._started is None or done < self._started[1]:
            self._started = (now_s, done)
        if now_s - self._drawn_s < 0.1:
            return
        self._drawn_s = now_s
        elapsed_s = now_s - self._started[0]
        rate = (done - self._started[1]) / elapsed_s if elapsed_s > 0.2 else 0.0
        parts = [self._label]
        if total:
            filled = round(24 * min(done / total, 1.0))
            parts.append("█" * filled + "░" * (24 - filled))
            parts.append(f"{100 * done / total:3.0f}%")
            parts.append(f"{self._show(done)}/{self._show(total)}")
        else:
            parts.append(self._show(done))
        if rate > 0:
            parts.append(f"{self._show(rate)}/s")
            if total:
                parts.append(_("{time} left").format(time=format_duration((total - done) / rate)))
        line = "  ".join([*parts, note] if note else parts)
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
        while cell_width(line) >= columns and line:
            line = line[:-1]
        sys.stderr.write("\r" + line + "\x1b[K")
        sys.stderr.flush()
        self._shown = True


class _PlainProgress:
    """Where stderr is no terminal: a line every ten seconds, so that logs stay short but show life."""

    PERIOD_S = 10.0

    def __init__(self, label: str, show: Callable[[float], str]) -> None:
        self._label, self._show = label, show
        self._last_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, done: float, total: float | None, note: str = "") -> None:
        if time.monotonic() - self._last_s < self.PERIOD_S:
            return
        self._last_s = time.monotonic()
        say(f"{self._label}  {self._show(done)}" + (f"/{self._show(total)}" if total else "") + f"  {note}".rstrip())


def progress(label: str, unit: str = "bytes") -> ProgressBar:
    """A progress bar on stderr; `unit`: `"bytes"`, `"percent"` or `"items"`."""
    show = format_size if unit == "bytes" else "{:.0f}".format
    if is_terminal(sys.stderr):
        return _TerminalProgress(label, show)
    return _PlainProgress(label, show)
