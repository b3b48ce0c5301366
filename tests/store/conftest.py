"""A store of its own for every test, and servers that are closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pulling import Puller
from servers import Start

from bendi.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Folders with Chinese names and spaces, since they must work everywhere."""
    base = tmp_path / "我的 模型"
    return Settings(
        models_dirs=(base / "models",),
        state_dir=base / "state",
        cache_dir=base / "cache",
        config_dir=base / "config",
        hf_endpoint="http://127.0.0.1:9",
        ms_endpoint="http://127.0.0.1:9",
        ollama_registry="http://127.0.0.1:9",
        hf_cache_dir=base / "hub",
        ollama_models_dir=base / "ollama",
        lmstudio_models_dir=base / "lmstudio",
    )


@pytest.fixture
def start() -> Iterator[Start]:
    """Registers a server to be closed at the end of the test."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(server)


@pytest.fixture
def puller(settings: Settings) -> Puller:
    return Puller(settings)
