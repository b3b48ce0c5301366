"""Writes a report's files whole or not at all."""

from __future__ import annotations

from pathlib import Path

from bendi.errors import DataError, StoreError
from bendi.i18n import _
from bendi.store.disk import write_atomic


def write_whole(path: Path, content: bytes) -> None:
    """Replaces `path` in one step, or leaves it as it was. Raises DataError."""
    try:
        write_atomic(path, content)
    except StoreError as error:
        raise DataError(error.message, hint=_("Choose another place with --out, or free some space.")) from error
