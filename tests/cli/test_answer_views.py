"""How answers are shown: safe for the terminal, the same however they were cut, folded thinking."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.markdown import Markdown

from bendi.chat.conversation import ContextChanged, Reply
from bendi.cli.answers import PlainView, context_line, ending_line, printable, status_line
from bendi.cli.markdown_view import BlockSplitter, MarkdownView
from bendi.cli.multiline import is_finished, message_of
from bendi.messages import Chunk, Message, Timings, Usage

DOCUMENT = """\
# A title

A paragraph with **bold** words
over two lines.

1. one
2. two

   still two

- a
- b

```python
def f():

    return 1

x = 2
```

| a | b |
|---|---|
| 1 | 2 |

> quoted

The [link](http://example.org) at the end, 中文段落。
"""

_pieces = st.lists(st.text("ab \n`~-1.#>|中", max_size=12), max_size=30)


@given(_pieces)
def test_blocks_do_not_depend_on_how_the_text_was_cut(pieces: list[str]) -> None:
    whole, cut = BlockSplitter(), BlockSplitter()
    text = "".join(pieces)
    blocks = whole.feed(text)
    cut_blocks = [block for piece in pieces for block in cut.feed(piece)]
    assert cut_blocks == blocks and cut.tail == whole.tail
    assert "".join(blocks) + whole.tail == text


def test_code_and_lists_stay_whole() -> None:
    splitter = BlockSplitter()
    blocks = [*splitter.feed(DOCUMENT), splitter.tail]
    assert any(block.startswith("```python") and block.rstrip().endswith("```") for block in blocks)
    assert any(block.startswith("1. one") and "still two" in block for block in blocks)
    assert len(blocks) == 8


def _plain(text: str) -> str:
    """Without erased lines, cursor movements, blank lines and the padding at line ends."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", re.sub(r"[^\n]*\x1b\[2K", "", text)).replace("\r", "")
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())


def _shown(view_options: dict[str, bool], events: list[object]) -> str:
    out = io.StringIO()
    view = MarkdownView(console=Console(file=out, width=60, height=100, force_terminal=True), **view_options)
    view._next_draw_s = float("inf")  # only what stays
    for event in events:
        view.show(event)  # type: ignore[arg-type]
    view.close()
    return out.getvalue()


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_streamed_document_looks_like_the_whole_one(size: int) -> None:
    chunks: list[object] = [Chunk(text=DOCUMENT[at : at + size]) for at in range(0, len(DOCUMENT), size)]
    expected = io.StringIO()
    Console(file=expected, width=60).print(Markdown(DOCUMENT, hyperlinks=False))
    assert _plain(_shown({}, chunks)) == _plain(expected.getvalue())


def test_thinking_is_folded_unless_wanted() -> None:
    events: list[object] = [Chunk(reasoning="deep "), Chunk(reasoning="thoughts"), Chunk(text="answer")]
    folded, unfolded = _plain(_shown({}, events)), _plain(_shown({"thinking": True}, events))
    assert "thought for 2 tokens" in folded and "deep" not in folded and folded.endswith("answer")
    assert "deep thoughts" in unfolded and unfolded.endswith("answer")


def test_a_growing_block_is_drawn_without_hiding_its_end() -> None:
    out = io.StringIO()
    view = MarkdownView(console=Console(file=out, width=40, height=8, force_terminal=True))
    for number in range(50):
        view._next_draw_s = 0.0
        view.show(Chunk(text=f"- item {number}\n"))
        assert f"item {number}" in _plain(out.getvalue())
    view.close()


@given(st.text())
def test_a_model_cannot_send_commands_to_the_terminal(text: str) -> None:
    shown = printable(text)
    assert not any((char < " " and char not in "\n\t") or "\x7f" <= char <= "\x9f" for char in shown)
    assert printable(shown) == shown


def test_escape_sequences_of_a_model_are_inert(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jhi\x9b31m\r\n"
    view = PlainView(safe=True)
    view.show(Chunk(text=evil))
    view.close()
    assert capsys.readouterr().out == "]0;owned[2Jhi31m\n"
    assert "\x1b]0" not in _shown({}, [Chunk(text=evil)])
    view = PlainView()  # a pipe gets the bytes as they are
    view.show(Chunk(text=evil))
    assert capsys.readouterr().out == evil


def _reply(finish: str, completion_tok: int = 5) -> Reply:
    timings = Timings(ttft_s=0.21, pp_tok_s=812.3, tg_tok_s=43.21)
    return Reply(Message("assistant", "x"), finish, Usage(100, completion_tok, 60), timings, 105, 2048)  # type: ignore[arg-type]


def test_lines_about_an_answer() -> None:
    assert status_line(_reply("stop")) == (
        "context 105/2048 · PP 812 tok/s · TG 43.2 tok/s · TTFT 210 ms · 60 tokens cached"
    )
    assert ending_line(_reply("stop"), None) == ""
    assert "context is full" in ending_line(_reply("length"), None)
    assert ending_line(_reply("length"), 5) == "", "the limit was the user's own"
    assert "kept" in ending_line(_reply("cancelled"), None)
    assert "3 older messages" in context_line(ContextChanged("slide", 3, "", 10, 20))
    assert "summary" in context_line(ContextChanged("compact", 1, "s", 10, 20))


@pytest.mark.parametrize(
    ("typed", "finished", "message"),
    [
        ("hello", True, "hello"),
        ("", True, ""),
        ("one\\", False, ""),
        ("one\\\ntwo", True, "one\ntwo"),
        ('"""', False, ""),
        ('"""one', False, ""),
        ('"""one\n\ntwo"""', True, "one\n\ntwo"),
        ('"""\none\n"""', True, "one"),
        ('""""""', True, ""),
        ('say """hi"""', True, 'say """hi"""'),
        ("C:\\path and more", True, "C:\\path and more"),
    ],
)
def test_when_enter_sends(typed: str, finished: bool, message: str) -> None:
    assert is_finished(typed) is finished
    if finished:
        assert message_of(typed) == message
