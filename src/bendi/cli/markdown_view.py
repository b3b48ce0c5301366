"""An answer as Markdown while it grows.

Finished blocks are printed once and scroll away; only the block that still grows is drawn again, at most as often as
drawing stays cheap. The thinking of a model is one line that counts, or its text where the user wants it.
"""

from __future__ import annotations

import re
import time

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from bendi.chat.conversation import ContextChanged, Event, Reply
from bendi.cli.answers import context_line, printable
from bendi.i18n import _
from bendi.messages import Chunk

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_SHORTEST_REFRESH_S = 0.05
_DRAWING_SHARE = 0.1
"""Drawing may take this part of the time."""


class BlockSplitter:
    """Cuts growing Markdown where the part above cannot change any more: at blank lines outside of code fences,
    before a line that is not indented. However the text is cut into pieces, the blocks are the same."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._rest = ""
        self._fence = ""
        self._after_blank = False

    @property
    def tail(self) -> str:
        """The block that may still grow."""
        return "".join(self._lines) + self._rest

    def feed(self, text: str) -> list[str]:
        """Blocks that are finished now."""
        *lines, self._rest = (self._rest + text).split("\n")
        blocks = []
        for line in lines:
            starts = self._after_blank and not self._fence and line.strip() and not line[0].isspace()
            if starts and self._lines:
                blocks.append("".join(self._lines))
                self._lines = []
            self._lines.append(line + "\n")
            self._note_fence(line)
            self._after_blank = not line.strip()
        return blocks

    def _note_fence(self, line: str) -> None:
        match = _FENCE.match(line)
        if not match:
            return
        marks = match[1]
        if not self._fence:
            self._fence = marks
        elif marks.startswith(self._fence) and not line.strip().strip(marks[0]):
            self._fence = ""


class MarkdownView:
    """An `answers.AnswerView` on a terminal."""

    def __init__(self, *, thinking: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._thinking = thinking
        self._splitter = BlockSplitter()
        self._above = False  # whether a block of the answer stands above, so that the next keeps its distance
        self._started_s = time.monotonic()
        self._thought_tok = 0
        self._thought_open = False
        self._next_draw_s = 0.0
        self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._live.start()
        self._draw(Text("…", style="dim"))

    def show(self, event: Event) -> None:
        if isinstance(event, ContextChanged):
            self._print(Text(context_line(event), style="dim"))
        elif isinstance(event, Chunk):
            if event.reasoning:
                self._think(printable(event.reasoning))
            if event.text:
                self._end_thinking()
                self._write(printable(event.text))
        elif isinstance(event, Reply):
            self._end_thinking()

    def close(self) -> None:
        self._live.update(Text(""), refresh=True)
        self._live.stop()
        tail = self._splitter.tail
        if tail.strip():
            self._console.print(self._block(tail))

    def _think(self, text: str) -> None:
        self._thought_tok += 1
        self._thought_open = True
        if self._thinking:
            for block in self._splitter.feed(text):
                self._print(Text(block.rstrip("\n"), style="dim italic"))
            self._draw_tail(Text(self._splitter.tail, style="dim italic"))
        else:
            line = _("thinking… {count} tokens").format(count=self._thought_tok)
            self._draw_tail(Text(line, style="dim"))

    def _end_thinking(self) -> None:
        if not self._thought_open:
            return
        self._thought_open = False
        tail = self._splitter.tail
        if tail.strip():
            self._print(Text(tail.rstrip("\n"), style="dim italic"))
        self._splitter = BlockSplitter()
        if not self._thinking:
            elapsed_s = time.monotonic() - self._started_s
            line = _("thought for {count} tokens, {seconds:.0f} s (/thinking shows it)")
            self._print(Text(line.format(count=self._thought_tok, seconds=elapsed_s), style="dim"))

    def _write(self, text: str) -> None:
        for block in self._splitter.feed(text):
            self._print(self._block(block))
            self._above = True
        self._draw_tail(self._block(self._splitter.tail))

    def _block(self, text: str) -> RenderableType:
        # A model's link must not hide where it leads, so links are shown as text.
        markdown = Markdown(text, code_theme="ansi_dark", hyperlinks=False)
        return Group("", markdown) if self._above else markdown

    def _print(self, what: RenderableType) -> None:
        self._live.update(Text(""), refresh=True)
        self._live.console.print(what)

    def _draw_tail(self, what: RenderableType) -> None:
        if time.monotonic() >= self._next_draw_s:
            self._draw(what)

    def _draw(self, what: RenderableType) -> None:
        before_s = time.monotonic()
        self._live.update(_LastLines(what), refresh=True)
        spent_s = time.monotonic() - before_s
        self._next_draw_s = before_s + max(_SHORTEST_REFRESH_S, spent_s / _DRAWING_SHARE)


class _LastLines:
    """As many lines from the end as the terminal can show, so that a long block does not hide what is new."""

    def __init__(self, what: RenderableType) -> None:
        self._what = what

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._what, options, pad=False)
        for line in lines[-max(console.height - 2, 1) :]:
            yield from line
            yield Text("\n", end="")
