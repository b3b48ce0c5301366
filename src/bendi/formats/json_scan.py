"""Walks over a large JSON object without holding it: one entry at a time, within limits.

`json.loads` of a hostile text takes twenty times its size in memory; here the caller says how large one entry may be,
and sees names that stand there twice.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from bendi.errors import ModelFileError
from bendi.formats.gguf_cursor import hostile_hint, quoted
from bendi.formats.source import ByteSource
from bendi.i18n import _

_WINDOW_BYTES = 256 * 1024
_BLANK = re.compile(r"[ \t\n\r]*")
_FIRST_ROOM = 4096
PLAIN_ROOM = 4096
_MAX_DIGITS = 20
MAX_TEXT_BYTES = 4 * 2**20
_MAX_CONTAINERS = 50_000
_MAX_VALUES = 250_000


class JsonScanner:
    """A position in the JSON text that lies in `source` from `start` to `end`. Raises ModelFileError for what is not
    JSON in UTF-8, has a name twice, or is larger than the limits that the methods are given (in characters)."""

    def __init__(self, source: ByteSource, start: int, end: int) -> None:
        self._source, self._next, self._end = source, start, end
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text = ""
        self._at = 0
        self.plain: re.Match[str] | None = None
        """What `plain` of `entries` matched, where it did: then there is no value to take."""

    def entries(self, limit: int, plain: re.Pattern[str] | None = None) -> Iterator[str]:
        """The names of the object that begins here, each at the moment when its value comes: the caller must take the
        value before the next name. `limit`: the longest name.

        `plain`: an entry in its usual spelling with the comma or brace behind it, at most `PLAIN_ROOM` characters, the
        name as its first group: several times as fast as the steps through all spellings.
        """
        self._expect("{")
        if self._peek() == "}":
            self._expect("}")
            return
        while True:
            if plain is not None:
                if len(self._text) - self._at < PLAIN_ROOM:
                    self._fill(PLAIN_ROOM)
                while (match := plain.match(self._text, self._at)) is not None:
                    self.plain, self._at = match, match.end()
                    yield match[1]
                    if self._text[self._at - 1] == "}":
                        return
                    if len(self._text) - self._at < PLAIN_ROOM:
                        self._fill(PLAIN_ROOM)
                self.plain = None
            if self._peek() != '"':
                raise _broken()
            name = self.value(limit)
            assert isinstance(name, str)
            self._expect(":")
            yield name
            if (following := self._peek()) not in ("}", ","):
                raise _broken()
            self._at += 1
            if following == "}":
                return

    def value(self, limit: int) -> object:
        """The value that comes, a string or an object; of other kinds None."""
        kind = self._peek()
        # Most entries are short; more room than they need would move the window for each of them.
        room = min(limit, _FIRST_ROOM)
        while True:
            if len(self._text) - self._at < room:
                self._fill(room)
            try:
                value, end = _SCAN(self._text, self._at)
            except (ValueError, StopIteration, RecursionError) as error:
                if room < limit and self._next < self._end:
                    room = min(limit, 64 * room)  # its end may just not be in the window
                    continue
                raise (_too_long(limit) if len(self._text) - self._at > limit else _broken()) from error
            if end - self._at > limit:
                raise _too_long(limit)
            self._at = end
            return value if kind in ('"', "{") else None

    def finish(self) -> None:
        """Raises ModelFileError unless nothing but blanks is left."""
        if self._peek():
            raise _broken()

    def _peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        if self._at < len(self._text) and (here := self._text[self._at]) not in " \t\n\r":
            return here
        while True:
            blank = _BLANK.match(self._text, self._at)
            assert blank is not None
            self._at = blank.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._next >= self._end:
                return ""
            self._fill(1)

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise _broken()
        self._at += 1

    def _fill(self, room: int) -> None:
        """Has `room` characters in the window from here, as far as the text goes."""
        while len(self._text) - self._at < room and self._next < self._end:
            block = self._source.read_at(self._next, min(max(room, _WINDOW_BYTES), self._end - self._next))
            if not block:
                raise _broken()
            self._next += len(block)
            try:
                more = self._decode(block, self._next >= self._end)
            except UnicodeDecodeError as error:
                raise ModelFileError(_("its JSON text is not UTF-8"), hint=hostile_hint()) from error
            self._text, self._at = self._text[self._at :] + more, 0


def bounded_json(text: bytes, limit_bytes: int = MAX_TEXT_BYTES) -> object:
    """The value of a JSON text that somebody else wrote, as `json.loads` reads it, with a bound on what that costs.

    Numbers of any length are read, very long ones as infinity or a rounded number, and constants such as NaN as None.
    Raises ValueError when the text is not JSON, nests too deep, or is larger than any that has a meaning here.
    """
    if len(text) > limit_bytes:
        raise ValueError(len(text))
    # Every value but the first of its list or object stands behind a comma, so that these bound the memory.
    if text.count(b"{") + text.count(b"[") > _MAX_CONTAINERS or text.count(b",") > _MAX_VALUES:
        raise ValueError("too many values")
    try:
        value: object = json.loads(text, parse_int=_any_number, parse_constant=lambda _text: None)
    except RecursionError as error:
        raise ValueError("too deep") from error
    return value


def bounded_json_file(path: Path, limit_bytes: int = MAX_TEXT_BYTES) -> object:
    """`bounded_json` of a file, of which no more than the limit is read. Raises ValueError or OSError."""
    with path.open("rb") as file:
        return bounded_json(file.read(limit_bytes + 1), limit_bytes)


def _any_number(text: str) -> int | float:
    """Numbers of any length are found, where programs write the largest they know; converting those takes long."""
    return int(text) if len(text) <= _MAX_DIGITS else float(text[:400])


def name_twice(name: str) -> ModelFileError:
    """The error for a name that stands twice in one object: programs disagree about which one counts."""
    return ModelFileError(_("its JSON text has the name {name} twice").format(name=quoted(name)), hint=hostile_hint())


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """`pairs` of a JSON object as a dict. Raises ModelFileError when a name stands there twice."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise name_twice(name)
        found[name] = value
    return found


def whole_number(text: str) -> int:
    """A JSON number as int. Raises ValueError for one that no size, shape or offset has."""
    if len(text) > _MAX_DIGITS:
        raise ValueError(text[:_MAX_DIGITS])
    return int(text)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(text)  # NaN and Infinity are no JSON


def _too_long(limit: int) -> ModelFileError:
    return ModelFileError(
        _("an entry of its JSON text has no end within {limit} characters").format(limit=limit), hint=hostile_hint()
    )


def _broken() -> ModelFileError:
    return ModelFileError(_("its JSON text is damaged"), hint=hostile_hint())


_DECODER = json.JSONDecoder(object_pairs_hook=unique, parse_int=whole_number, parse_constant=_no_constant)
_SCAN: Callable[[str, int], tuple[object, int]] = vars(_DECODER)["scan_once"]
