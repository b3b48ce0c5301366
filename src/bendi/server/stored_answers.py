"""Answers of /v1/responses that are kept, so that a later request can go on from one by its id."""

from __future__ import annotations

from pathlib import Path


class StoredAnswers:
    """SQLite, by owner and id."""

    def __init__(self, path: Path) -> None:
        self._path = path
