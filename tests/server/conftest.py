"""Fixtures for the server: settings of an empty home, and a real server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live import LiveServer

from bendi.settings import Settings, load_settings


@pytest.fixture
def settings(clean_environment: Path) -> Settings:
    return load_settings()


@pytest.fixture
def server(settings: Settings) -> Iterator[LiveServer]:
    """A server with all endpoints and no keys."""
    with LiveServer(settings) as live:
        yield live
