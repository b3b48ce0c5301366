"""Which model a name means: remembered, and yet what has changed is seen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from pool_engines import copies

from bendi.errors import NotFoundError
from bendi.server import pool_names
from bendi.server.pool_names import ModelNames
from bendi.settings import Settings
from bendi.store import Store
from bendi.store.aliases import add_alias
from bendi.store.local import LocalModel


class Looks(Store):
    """Counts how often the disk is looked at, and in which threads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.threads: list[threading.Thread] = []

    def resolve(self, text: str) -> LocalModel:
        self.threads.append(threading.current_thread())
        return super().resolve(text)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is not trusted without a look at its places."""
    monkeypatch.setattr(pool_names, "_REMEMBERED_S", 0.0)
    monkeypatch.setattr(pool_names, "_LATER_S", 0.05)


def play(settings: Settings, scene: Callable[[ModelNames, Looks], Awaitable[None]]) -> None:
    store = Looks(settings)
    asyncio.run(asyncio.wait_for(scene(ModelNames(store), store), 20))


@pytest.mark.usefixtures("soon")
def test_a_request_does_not_wait_for_a_look_at_the_disk(settings: Settings, demo_model: Path) -> None:
    copies(settings, demo_model, "a")

    async def scene(names: ModelNames, store: Looks) -> None:
        assert names.known("a") is None and not store.threads
        model = await names.resolve("a")
        assert len(store.threads) == 1 and store.threads[0] is not threading.current_thread()
        for _request in range(3):
            assert names.known("a") is model and await names.resolve("a") is model
        await asyncio.sleep(0.2)
        assert len(store.threads) == 1

    play(settings, scene)


@pytest.mark.usefixtures("soon")
def test_what_has_changed_is_seen_by_the_next_request(settings: Settings, demo_model: Path) -> None:
    copies(settings, demo_model, "a", "b")

    async def scene(names: ModelNames, store: Looks) -> None:
        for name in ("a", "b"):
            model = await names.resolve(name)
            add_alias(store.aliases_file, "mine", model)
            assert (await names.resolve("mine")).path == model.path
        model.path.unlink()
        assert names.known("b") is None
        with pytest.raises(NotFoundError):
            await names.resolve("b")

    play(settings, scene)


@pytest.mark.usefixtures("soon")
def test_what_cannot_be_seen_at_once_is_looked_for_afterwards(
    settings: Settings, demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_names, "_SURE_S", 0.0)
    copies(settings, demo_model, "a")

    async def scene(names: ModelNames, store: Looks) -> None:
        model = await names.resolve("a")
        for _request in range(3):
            assert names.known("a") is model
        assert len(store.threads) == 1, "not while somebody waits"
        while len(store.threads) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert len(store.threads) == 2, "once for all of them"

    play(settings, scene)


def test_a_look_that_was_overtaken_is_not_remembered(settings: Settings, demo_model: Path) -> None:
    copies(settings, demo_model, "a")

    async def scene(names: ModelNames, store: Looks) -> None:
        looking = asyncio.create_task(names.resolve("a"))
        while not store.threads:
            await asyncio.sleep(0)
        names.forget()
        assert await looking and names.known("a") is None

    play(settings, scene)
