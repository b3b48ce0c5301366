"""Loads and unloads one model at a time for each entry; what blocks is in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bendi.engines import Engine
from bendi.errors import OutOfMemory
from bendi.server.kept_slots import KeptSlots
from bendi.server.metrics import Metrics, Unloading
from bendi.server.pool_entry import Entry, Hosted
from bendi.server.pool_load import LoadStopped, Opening, OpenModel, in_thread, refusal, unloaded
from bendi.server.pool_room import NoRoom, Planned
from bendi.settings import Settings
from bendi.store import LocalModel

MakeRoom = Callable[[Entry], Awaitable[Planned]]


class Loads:
    """`make_room`: waits until there is memory for an entry. `settled`: told when an entry has been loaded, or not, or
    unloaded."""

    def __init__(
        self,
        settings: Settings,
        opener: OpenModel,
        metrics: Metrics,
        make_room: MakeRoom,
        settled: Callable[[Entry], None],
    ) -> None:
        self._settings, self._opener, self._metrics = settings, opener, metrics
        self._make_room, self._settled = make_room, settled
        self._kept = KeptSlots(settings)

    def load(self, entry: Entry) -> None:
        """Begins to. An entry that is loaded is loaded anew, with what its requests need; when there is no room for
        that, it stays as it is."""
        entry.cancel_expiry()
        entry.state, entry.opening = "loading", Opening(self._opener, self._settings)
        entry.work = asyncio.get_running_loop().create_task(self._load(entry, entry.opening))

    def unload(self, entry: Entry, reason: Unloading) -> None:
        """Begins to, whoever uses it."""
        self._metrics.model_unloaded(entry.model.name, reason)
        entry.cancel_expiry()
        entry.state = "stopping"
        keep = reason in ("idle", "room", "end") and not entry.busy
        entry.work = asyncio.get_running_loop().create_task(self._unload(entry, keep))

    async def _load(self, entry: Entry, opening: Opening) -> None:
        failed: Exception | None = None
        least_tok = 0
        loop = asyncio.get_running_loop()
        try:
            planned = await self._make_room(entry)
            started_s = loop.time()
            await _close(entry)
            engine = await in_thread(self._open, opening, planned, entry.model)
            entry.hosted = Hosted(engine, planned.fit, planned.asked_tok, loop.time())
            self._metrics.model_loaded(entry.model.name, loop.time() - started_s)
        except LoadStopped:
            entry.fail(unloaded())
        except OutOfMemory as error:
            failed = await self._explained(error, entry)
            least_tok = entry.longest_wish_tok()  # those that would be content with less try again
        except Exception as error:
            failed = error  # whoever waits tells it
        if failed is not None:
            self._metrics.load_failed(entry.model.name)
            entry.fail(failed, least_tok)
        entry.opening = None
        self._settle(entry)

    def _open(self, opening: Opening, planned: Planned, model: LocalModel) -> Engine:
        engine = opening.open(planned.load, model)
        try:
            self._kept.take_up(engine)
        except BaseException:
            engine.close()
            raise
        return engine

    async def _unload(self, entry: Entry, keep: bool) -> None:
        hosted = entry.hosted
        try:
            if keep and hosted:
                await in_thread(self._kept.put_down, hosted.engine, hosted.sessions)
            await _close(entry)
        finally:
            self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        entry.state = "ready" if entry.hosted else None
        entry.promised_bytes = entry.hosted.fit.total_bytes if entry.hosted else 0
        entry.used_s = asyncio.get_running_loop().time()
        entry.work = None
        self._settled(entry)

    async def _explained(self, error: OutOfMemory, entry: Entry) -> OutOfMemory:
        """With the best that would fit."""
        if not isinstance(error, NoRoom):
            return error
        better = await in_thread(refusal, error, entry.model, error.load, self._settings, error.room_bytes)
        return OutOfMemory(better.message, hint="\n".join(dict.fromkeys(filter(None, (error.hint, better.hint)))))


async def _close(entry: Entry) -> None:
    hosted, entry.hosted = entry.hosted, None
    if hosted:
        await in_thread(hosted.engine.close)
