"""When Enter sends a message, and when it begins another line of it.

A line that ends with a backslash goes on; so does everything after a line that begins with three quotes, up to one
that ends with them. Backslashes and quotes are not part of the message.
"""

from __future__ import annotations

_QUOTES = '"""'


def is_finished(text: str) -> bool:
    """Whether Enter sends `text`."""
    if text.lstrip().startswith(_QUOTES):
        return text.lstrip()[len(_QUOTES) :].rstrip().endswith(_QUOTES)
    return not text.endswith("\\")


def message_of(text: str) -> str:
    """What `text`, as typed, says: without the marks."""
    stripped = text.strip()
    if stripped.startswith(_QUOTES):
        inside = stripped[len(_QUOTES) :]
        return inside.removesuffix(_QUOTES).strip("\n")
    return text.replace("\\\n", "\n").strip()
