"""Which models are loaded, who uses them, who waits, and who must go when memory is short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from bendi.chat.personas import PersonaBook
from bendi.errors import NotFoundError
from bendi.i18n import _
from bendi.server.api_errors import ApiError
from bendi.server.metrics import Metrics, Unloading
from bendi.server.pool_entry import Entry, Waiter
from bendi.server.pool_load import OpenModel, open_model, unloaded
from bendi.server.pool_models import Models
from bendi.server.pool_names import ModelNames, Named, split_persona
from bendi.server.pool_words import Kind, Lease, Loaded, PoolLimits, State, Wish
from bendi.settings import Settings
from bendi.store import LocalModel, Store

__all__ = ["Kind", "Lease", "Loaded", "ModelPool", "PoolLimits", "State", "Wish"]

_POLL_S = 0.05


class ModelPool:
    """Lives in one event loop; loads and closes engines in threads.

    `metrics`: where loads are counted. `opener`: how a model is opened.

    Nobody may wait for a second lease while holding one: the memory that the second needs may be the first one's.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        limits: PoolLimits | None = None,
        metrics: Metrics | None = None,
        opener: OpenModel = open_model,
    ) -> None:
        self.limits = limits or PoolLimits.of(settings)
        self.personas = PersonaBook(settings.personas_file)
        self.names = ModelNames(store, self.limits.files)
        self._models = Models(settings, self.limits, opener, metrics or Metrics())
        self._closing = False

    @asynccontextmanager
    async def lease(self, wish: Wish) -> AsyncIterator[Lease]:
        """Waits for the model and for one of its slots, in the order of arrival.

        Raises NotFoundError; OutOfMemory with the best alternative in its hint; ApiError 429 with Retry-After when too
        many wait already; EngineError when it cannot be loaded. A worker that died is replaced for the next lease.
        """
        lease = await self.acquire(wish)
        try:
            yield lease
        finally:
            lease.release()

    async def acquire(self, wish: Wish) -> Lease:
        """As `lease`, for those who release it themselves."""
        model = await self.model_of(wish)
        if self._closing:
            raise _closing()
        entry = self._models.entry(model, wish.kind)
        entry.remember_name(self.named(wish.model).model)
        waiter = self._waiter(wish, wish.context_tok or 0)
        entry.queue.append(waiter)
        self._models.pump(entry)
        if not waiter.granted.done() and self._models.waiting > self.limits.queue:
            self._models.leave(entry, waiter)
            raise _queue_full(entry)
        return await self._granted(entry, waiter)

    def at_once(self, wish: Wish) -> Lease | None:
        """As `acquire`, where nothing has to be waited for; else nothing is done. A request that finds its model loaded
        and a slot free need not go round the loop for it. Raises NotFoundError for a persona."""
        name = self.named(wish.model).model
        model = self.names.known(name)
        entry = self._models.entries.get((model.path, wish.kind)) if model and not self._closing else None
        if entry is None or entry.dead or entry.queue:
            return None
        waiter = self._waiter(wish, wish.context_tok or 0)
        entry.queue.append(waiter)
        if not entry.can_grant():
            entry.queue.clear()
            return None
        entry.remember_name(name)
        self._models.pump(entry)
        return waiter.granted.result()

    async def grow(self, lease: Lease, wish: Wish, context_tok: int) -> Lease | None:
        """The same model, loaded again with a context of `context_tok`; the old lease ends with that. None, and the
        old one stays, when others use the model or it was not trained for so much. Raises as `lease`."""
        entry = self._models.hosting(lease.engine)
        train_tok = lease.engine.info.train_context_tok
        if entry is None or entry.busy > 1 or entry.queue or self._closing or 0 < train_tok < context_tok:
            return None
        waiter = self._waiter(wish, context_tok)
        entry.queue.appendleft(waiter)
        lease.release()
        return await self._granted(entry, waiter)

    def named(self, text: str) -> Named:
        """The name of the model and the persona in `text`. Raises NotFoundError, or ConfigError when the file of
        personas cannot be used."""
        return split_persona(text, self.personas)

    async def model_of(self, wish: Wish) -> LocalModel:
        """What would be loaded. Raises NotFoundError; UsageError when several fit; ModelIncomplete.
        Paths are names only of models that this server has anyway."""
        return await self.names.resolve(self.named(wish.model).model)

    def loaded(self) -> list[Loaded]:
        now_s = asyncio.get_running_loop().time()
        return [entry.shown(now_s) for entry in self._models.entries.values() if entry.state is not None]

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return self._models.waiting

    async def stop(self, model: str | None = None, reason: Unloading = "asked") -> int:
        """Unloads a model (None: all of them) at once, also in the middle of answers. Returns how many. Raises
        NotFoundError when there is no such model at all."""
        entries = list(self._models.entries.values()) if model is None else await self._entries_of(model)
        for entry in entries:
            entry.pinned = False
            entry.fail(unloaded())
            self._models.pump(entry)
        entries = [entry for entry in entries if entry.state is not None]
        await asyncio.gather(*(self._models.unload(entry, reason) for entry in entries))
        return len(entries)

    async def pin(self, model: str, pinned: bool) -> None:
        """A pinned model is never unloaded to make room, nor for idling. Raises NotFoundError when it is not loaded."""
        entries = [entry for entry in await self._entries_of(model) if entry.state is not None]
        if not entries:
            raise not_loaded(model)
        for entry in entries:
            self._models.pin(entry, pinned)

    async def close(self, drain_s: float) -> None:
        """Takes no new leases, waits so long for those that are held, then ends all."""
        self._closing = True
        for entry in self._models.entries.values():
            entry.fail(_closing())
        until_s = asyncio.get_running_loop().time() + drain_s
        while self._models.busy and asyncio.get_running_loop().time() < until_s:
            await asyncio.sleep(_POLL_S)
        await self.stop(reason="end")

    async def _granted(self, entry: Entry, waiter: Waiter) -> Lease:
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():
                with suppress(Exception):
                    waiter.granted.result().release()
            else:
                self._models.leave(entry, waiter)
            raise

    def _waiter(self, wish: Wish, context_tok: int) -> Waiter:
        loop = asyncio.get_running_loop()
        keep_alive_s = self.limits.keep_alive_s if wish.keep_alive_s is None else wish.keep_alive_s
        return Waiter(loop.create_future(), context_tok, keep_alive_s, loop.time(), wish.session)

    async def _entries_of(self, name: str) -> list[Entry]:
        called = [entry for entry in self._models.entries.values() if entry.is_called(name)]
        if called:
            return called
        model = await self.model_of(Wish(name))
        return [entry for entry in self._models.entries.values() if entry.model.path == model.path]


def not_loaded(name: str) -> NotFoundError:
    return NotFoundError(
        _("The model {name} is not loaded.").format(name=name),
        hint=_("What is loaded: {command}").format(command="bendi ps"),
    )


def _closing() -> ApiError:
    return ApiError(503, _("The server is being stopped."), code="shutting_down", headers={"Retry-After": "10"})


def _queue_full(entry: Entry) -> ApiError:
    return ApiError(
        429,
        _("Too many requests wait already. Try again later."),
        code="queue_full",
        headers={"Retry-After": str(entry.retry_after_s())},
    )
