"""A position in a GGUF file: takes numbers and strings from it, and walks over what need not be kept."""

from __future__ import annotations

import struct

from bendi.errors import ModelFileError
from bendi.formats.gguf_types import ByteOrder, GgufArray
from bendi.formats.source import ByteSource
from bendi.i18n import _
from bendi.units import format_size

MAX_HEADER_BYTES = 96 * 1024**2
"""Of all parts together; the largest vocabularies make headers of some 20 MiB."""
MAX_TEXT_BYTES = 2**20
"""The longest text that is kept, and the longest string in a vocabulary."""
_WINDOW_BYTES = 2**20
_FIRST_WINDOW_BYTES = 2**16
"""Windows begin small and double: most of a remote file with a small header should stay where it is."""


def hostile_hint() -> str:
    return _("The file is damaged, or crafted to cause harm: do not use it. `bendi pull` gets a good one.")


def truncated_hint() -> str:
    return _("The download did not finish: `bendi pull` resumes it.")


def truncated(present_bytes: int, expected_bytes: int) -> ModelFileError:
    """The error for a file that ends before its tensors do."""
    return ModelFileError(
        _("it is truncated: {present} of {expected} bytes are present").format(
            present=present_bytes, expected=expected_bytes
        ),
        hint=truncated_hint(),
    )


def quoted(name: str) -> str:
    """A name from the file, fit for a message: escaped and not longer than a line."""
    return repr(name if len(name) <= 80 else name[:77] + "...")


class Cursor:
    """A position in the file with a window of its bytes. Raises ModelFileError at the end of the file."""

    def __init__(
        self,
        source: ByteSource,
        order: ByteOrder = "little",
        position: int = 0,
        limit_bytes: int = MAX_HEADER_BYTES,
    ) -> None:
        self._source = source
        self._limit_bytes = limit_bytes
        self._window = b""
        self._start = 0
        self._room = _FIRST_WINDOW_BYTES
        self._structs: dict[str, struct.Struct] = {}
        self.order = order
        self.position = position

    @property
    def remaining_bytes(self) -> int:
        return self._source.size_bytes - self.position

    def take(self, size_bytes: int) -> bytes:
        if size_bytes > MAX_TEXT_BYTES:
            raise _long_string(size_bytes)
        self._need(size_bytes)
        first = self.position - self._start
        self.position += size_bytes
        return self._window[first : first + size_bytes]

    def number(self, format_: str) -> int | float | bool:
        if format_ not in self._structs:
            self._structs[format_] = struct.Struct(("<" if self.order == "little" else ">") + format_)
        layout = self._structs[format_]
        value: int | float | bool = layout.unpack(self.take(layout.size))[0]
        return value

    def integer(self, format_: str) -> int:
        return int(self.number(format_))

    def skip(self, size_bytes: int) -> None:
        if size_bytes > self.remaining_bytes:
            raise self._ended()
        self.position += size_bytes
        if self.position > self._limit_bytes:
            raise ModelFileError(
                _("its header is larger than {limit}").format(limit=format_size(MAX_HEADER_BYTES)), hint=hostile_hint()
            )

    def skip_strings(self, count: int) -> None:
        """Walks over `count` strings. The one hot loop: a vocabulary has several hundred thousand."""
        self._need(0)
        unpack = struct.Struct("<Q" if self.order == "little" else ">Q").unpack_from
        window, at, last = self._window, self.position - self._start, len(self._window) - 8
        for _index in range(count):
            if at > last:
                self.skip(self._start + at - self.position)
                self._need(8)
                window, at, last = self._window, self.position - self._start, len(self._window) - 8
            (length,) = unpack(window, at)
            if length > MAX_TEXT_BYTES:
                raise _long_string(length)
            at += 8 + length
        self.skip(self._start + at - self.position)

    def hash_strings(self, count: int, hashes: set[int]) -> int:
        """Adds the hashes of the next `count` strings to `hashes`; returns how many of the strings are empty."""
        self._need(0)
        unpack, add, empty = struct.Struct("<Q" if self.order == "little" else ">Q").unpack_from, hashes.add, 0
        window, at, size = self._window, self.position - self._start, len(self._window)
        for _index in range(count):
            end = at + 8 + (unpack(window, at)[0] if at + 8 <= size else size)
            if end > size:
                # Not all of it is in the window: take it the slow way, which moves the window.
                self.position = self._start + at
                text = self.take(self.integer("Q"))
                window, at, size = self._window, self.position - self._start, len(self._window)
            else:
                text = window[at + 8 : end]
                at = end
            if text:
                add(hash(text))
            else:
                empty += 1
        return empty

    def _need(self, size_bytes: int) -> None:
        first = self.position - self._start
        if first >= 0 and first + size_bytes <= len(self._window):
            return
        if size_bytes > self.remaining_bytes:
            raise self._ended()
        # Windows end at round places, where the requests for a remote file end, too.
        end = max(self.position + size_bytes, (self.position + self._room) // _FIRST_WINDOW_BYTES * _FIRST_WINDOW_BYTES)
        self._room = min(2 * self._room, _WINDOW_BYTES)
        self._window = self._source.read_at(self.position, min(end - self.position, self.remaining_bytes))
        self._start = self.position
        if len(self._window) < size_bytes:
            raise self._ended()

    def _ended(self) -> ModelFileError:
        return ModelFileError(
            _("it ends in the middle of its header, after {size}: it is truncated").format(
                size=format_size(self._source.size_bytes)
            ),
            hint=truncated_hint(),
        )


def _long_string(length: int) -> ModelFileError:
    return ModelFileError(
        _("it has a string of {length} bytes; {limit} are allowed there").format(length=length, limit=MAX_TEXT_BYTES),
        hint=hostile_hint(),
    )


def first_duplicate(source: ByteSource, order: ByteOrder, array: GgufArray) -> bytes | None:
    """The first string of `array` that stands there a second time; empty strings do not count. None: all differ.

    Only hashes are kept, 64 bytes a string.
    """
    seen: set[int] = set()
    if Cursor(source, order, array.offset).hash_strings(array.count, seen) + len(seen) == array.count:
        return None
    cursor = Cursor(source, order, array.offset)
    seen.clear()
    for _index in range(array.count):
        text = cursor.take(cursor.integer("Q"))
        if text and hash(text) in seen:
            return text
        seen.add(hash(text))
    return None
