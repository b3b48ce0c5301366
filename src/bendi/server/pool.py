"""Which models are loaded, who uses them, who waits, and who must go when memory is short."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from bendi.engines import Engine
from bendi.settings import Settings
from bendi.store import Store

Kind = Literal["text", "embedding", "rerank"]


@dataclass(frozen=True)
class Wish:
    """What a request needs. `model`: any name that `bendi run` takes, or `name@persona`. `context_tok`: at least so
    much for one conversation; None for what the plan gives. `keep_alive_s`: how long the model stays loaded after its
    last request; None for the server's setting, 0 for not at all, infinity for always."""

    model: str
    kind: Kind = "text"
    context_tok: int | None = None
    keep_alive_s: float | None = None


@dataclass(frozen=True)
class Lease:
    """The right to ask a loaded model one thing. `load_s`: how long it had to be waited for."""

    engine: Engine
    model: str
    load_s: float


@dataclass(frozen=True)
class Loaded:
    """One loaded model, for `ps` and the panel. `memory_bytes`: as planned; `resident_bytes`: as the system says.
    `busy`, `waiting`: requests. `expires_s`: seconds until it is unloaded, None for never."""

    model: str
    kind: Kind
    path: str
    build: str
    context_tok: int
    slots: int
    memory_bytes: int
    resident_bytes: int
    busy: int
    waiting: int
    expires_s: float | None
    pinned: bool
    state: Literal["loading", "ready", "stopping"]


class ModelPool:
    """Lives in one event loop; loads and closes engines in threads."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self._store = settings, store

    @asynccontextmanager
    async def lease(self, wish: Wish) -> AsyncIterator[Lease]:
        """Waits for the model and for one of its slots, in the order of arrival.

        Raises NotFoundError; OutOfMemory with the best alternative in its hint; ApiError 429 with Retry-After when too
        many wait already; EngineError when it cannot be loaded. A worker that died is replaced for the next lease.
        """
        raise NotImplementedError
        yield  # pragma: no cover

    def loaded(self) -> list[Loaded]:
        raise NotImplementedError

    async def stop(self, model: str | None = None) -> int:
        """Unloads a model (None: all of them) at once, also in the middle of answers. Returns how many."""
        raise NotImplementedError

    def pin(self, model: str, pinned: bool) -> None:
        """A pinned model is never unloaded to make room, nor for idling. Raises NotFoundError when it is not loaded."""
        raise NotImplementedError

    async def close(self, drain_s: float) -> None:
        """Takes no new leases, waits so long for those that are held, then ends all."""
        raise NotImplementedError
