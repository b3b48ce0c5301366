"""Fixtures for the server: settings of an empty home, and a real server on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live import LiveServer
from serve_process import Process

import scripted_model
from bendi.settings import Settings, load_settings


@pytest.fixture
def settings(clean_environment: Path) -> Settings:
    return load_settings()


@pytest.fixture
def server(settings: Settings) -> Iterator[LiveServer]:
    """A server with all endpoints and no keys."""
    with LiveServer(settings) as live:
        yield live


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts `bendi serve` with these arguments; it is ended with the test."""
    started: list[Process] = []

    def begin(*arguments: str) -> Process:
        started.append(Process(*arguments))
        return started[-1]

    yield begin
    for process in started:
        process.close()


@pytest.fixture
def endless(settings: Settings) -> None:
    """Among the models is one whose answers never end."""
    folder = settings.models_dirs[0]
    folder.mkdir(parents=True)
    scripted_model.write(folder / "endless.gguf", scripted_model.NEVER_ENDS, scripted_model.PLAIN_TEMPLATE)


@pytest.fixture(scope="session")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One server for all tests that ask models: `demo`, `tools` (calls the tool that it is given), `endless`."""
    home = tmp_path_factory.mktemp("talking")
    models = home / "models"
    models.mkdir()
    scripted_model.write(models / "tools.gguf", scripted_model.CALLS_A_TOOL, scripted_model.TOOL_TEMPLATE)
    scripted_model.write(models / "endless.gguf", scripted_model.NEVER_ENDS, scripted_model.PLAIN_TEMPLATE)
    folders = {name: str(home / name.lower()) for name in ("BENDI_STATE", "BENDI_CACHE", "BENDI_CONFIG")}
    with LiveServer(load_settings({"HOME": str(home), "BENDI_MODELS": str(models), **folders})) as live:
        yield live
