"""What the scripts of this folder say and hear: one JSON object a line.

Heard first: `{"model": PATH, "config": OBJECT or null, "settings": OBJECT}`; said then: `{"ready": {"version": TEXT,
"context_tok": NUMBER, "said": OBJECT, "details": OBJECT}}`, where `said` has the settings as the library confirms them.

Heard for each answer: `{"number": NUMBER, "prompt": TEXT or NUMBERS or null, "messages": LIST or null, "max_tokens":
NUMBER or null, "ignore_end": BOOL, "sampling": OBJECT}`, the numbers counting up; said: `{"text": TEXT}` as it comes,
and at the end `{"finish": "stop", "length" or "cancelled", "usage": {"prompt_tok": ..., "completion_tok": ...,
"cached_tok": NUMBER or null}, "timings": {"pp_tok_s": ..., "tg_tok_s": ...}}`. Instead of `ready` or of an answer:
`{"refused": WHY}`.

`{"cancel": NUMBER}` may be heard at any time: if the answer of that number is being written or still to be, it ends
with the next token.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_WINDOW_TOK = 12


class Refused(Exception):
    """A model or request that cannot be."""


class Lines:
    """Both ends of the conversation."""

    def __init__(self) -> None:
        self._number = self._cancelled = 0
        self._heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def first(self) -> dict[str, Any]:
        message = self._heard.get()
        if message is None:
            sys.exit(0)
        return message

    def requests(self) -> Iterator[dict[str, Any]]:
        while (message := self._heard.get()) is not None:
            self._number = message["number"]
            yield message

    @property
    def cancelled(self) -> bool:
        """Whether the answer that is being written shall end."""
        return self._cancelled >= self._number

    def say(self, message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def _listen(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if "cancel" in message:
                self._cancelled = max(message["cancel"], self._cancelled)
            else:
                self._heard.put(message)
        self._cancelled = sys.maxsize
        self._heard.put(None)


class Words:
    """From tokens, one after the other, to the text that each adds. Where nothing can be decoded, tokens are written as
    their numbers. A token may be a part of a character: its text comes with the last one."""

    def __init__(self, decode: Callable[[list[int]], str] | None) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._shown = 0

    def add(self, token: int) -> str:
        if self._decode is None:
            return f"<{token}>"
        self._tokens.append(token)
        # Some vocabularies need the tokens before for the space between them; all of them would take ever longer.
        start = max(self._shown - _WINDOW_TOK, 0)
        before, now = self._decode(self._tokens[start : self._shown]), self._decode(self._tokens[start:])
        if now.endswith("\ufffd") and len(self._tokens) - self._shown < _WINDOW_TOK:
            return ""
        self._shown = len(self._tokens)
        return now[len(before) :] if now.startswith(before) else now


def serve(
    load: Callable[[dict[str, Any]], tuple[dict[str, Any], Callable[[dict[str, Any], Lines], dict[str, Any]]]],
) -> None:
    """`load` gets the first message and returns what to say when ready, and what answers a request: it says the texts
    itself and returns the end."""
    lines = Lines()
    try:
        ready, answer = load(lines.first())
    except Exception as error:  # whatever a library raises
        lines.say({"refused": f"{type(error).__name__}: {error}"[:500]})
        return
    lines.say({"ready": ready})
    for request in lines.requests():
        try:
            lines.say(answer(request, lines))
        except Refused as error:
            lines.say({"refused": str(error)[:500]})
