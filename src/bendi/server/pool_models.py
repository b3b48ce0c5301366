"""How models are loaded, given out slot by slot, and unloaded. Everything here runs in one event loop; only what blocks
is in threads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bendi.errors import OutOfMemory
from bendi.server.metrics import Metrics, Unloading
from bendi.server.pool_entry import Entry, Hosted, Waiter
from bendi.server.pool_load import LoadStopped, Opening, OpenModel, in_thread, refusal, unloaded
from bendi.server.pool_room import NoRoom, Room
from bendi.server.pool_words import Kind, Lease, PoolLimits
from bendi.settings import Settings
from bendi.store import LocalModel

_LOOK_AROUND_S = 1.0
"""So often it is looked whether a worker has died."""
_SMOOTHING = 0.2


class Models:
    """All entries, by file and kind."""

    def __init__(self, settings: Settings, limits: PoolLimits, opener: OpenModel, metrics: Metrics) -> None:
        self._settings, self._limits, self._opener, self._metrics = settings, limits, opener, metrics
        self.entries: dict[tuple[Path, Kind], Entry] = {}
        self._room = Room(settings, limits, self.entries.values, partial(self.unload, reason="room"), self.pump)
        self._round: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        return sum(len(entry.queue) for entry in self.entries.values())

    @property
    def busy(self) -> int:
        return sum(entry.busy for entry in self.entries.values())

    def entry(self, model: LocalModel, kind: Kind) -> Entry:
        key = (model.path, kind)
        if key not in self.entries:
            self.entries[key] = Entry(model, kind, self._limits.keep_alive_s)
        return self.entries[key]

    def pump(self, entry: Entry) -> None:
        """Does what can be done for those that wait; to be called whenever anything has changed."""
        if entry.dead:
            self._start_unload(entry, "died")
            return
        while entry.can_grant():
            self._grant(entry)
        if not entry.queue:
            self._rest(entry)
        elif not entry.must_go and (entry.state is None or (entry.too_short() and entry.at_rest)):
            self._start_load(entry)

    def leave(self, entry: Entry, waiter: Waiter) -> None:
        """`waiter` does not want to wait any more."""
        if waiter in entry.queue:
            entry.queue.remove(waiter)
        self._room.changed()
        self.pump(entry)

    async def unload(self, entry: Entry, reason: Unloading) -> None:
        """Ends its worker, whoever uses it, or its load; returns when it is gone."""
        if entry.opening:
            entry.opening.stop()
            self._room.changed()
        elif entry.state == "ready":
            self._start_unload(entry, reason)
        if entry.work:
            await asyncio.wait([entry.work])

    def pin(self, entry: Entry, pinned: bool) -> None:
        self._cancel_expiry(entry)
        entry.pinned = pinned
        entry.used_s = _now_s()
        self._room.changed()
        self.pump(entry)

    def _start_load(self, entry: Entry) -> None:
        self._cancel_expiry(entry)
        entry.state, entry.opening = "loading", Opening(self._opener, self._settings)
        entry.work = asyncio.get_running_loop().create_task(self._load(entry, entry.opening))
        self._look_around_later()

    def _start_unload(self, entry: Entry, reason: Unloading) -> None:
        self._metrics.model_unloaded(entry.model.name, reason)
        self._cancel_expiry(entry)
        entry.state = "stopping"
        entry.work = asyncio.get_running_loop().create_task(self._unload(entry))

    async def _load(self, entry: Entry, opening: Opening) -> None:
        """With a longer context it replaces the one that is loaded, which stays when there is no room for that."""
        failed: Exception | None = None
        least_tok = 0
        try:
            planned = await self._room.make(entry)
            started_s = _now_s()
            await self._close(entry)
            engine = await in_thread(opening.open, planned.load, entry.model)
            entry.hosted = Hosted(engine, planned.fit, planned.asked_tok, _now_s())
            self._metrics.model_loaded(entry.model.name, _now_s() - started_s)
        except LoadStopped:
            failed = unloaded()
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

    async def _unload(self, entry: Entry) -> None:
        try:
            await self._close(entry)
        finally:
            self._settle(entry)

    async def _close(self, entry: Entry) -> None:
        hosted, entry.hosted = entry.hosted, None
        if hosted:
            await in_thread(hosted.engine.close)

    def _settle(self, entry: Entry) -> None:
        """After a load or its end."""
        entry.state = "ready" if entry.hosted else None
        entry.promised_bytes = entry.hosted.fit.total_bytes if entry.hosted else 0
        entry.used_s = _now_s()
        entry.work = None
        self._room.changed()
        self.pump(entry)

    async def _explained(self, error: OutOfMemory, entry: Entry) -> OutOfMemory:
        """With the best that would fit."""
        if not isinstance(error, NoRoom):
            return error
        better = await in_thread(refusal, error, entry.model, error.load, self._settings, error.room_bytes)
        return OutOfMemory(better.message, hint="\n".join(dict.fromkeys(filter(None, (error.hint, better.hint)))))

    def _grant(self, entry: Entry) -> None:
        waiter, hosted, now_s = entry.queue.popleft(), entry.hosted, _now_s()
        assert hosted is not None
        if waiter.granted.done():
            return
        self._cancel_expiry(entry)
        hosted.busy += 1
        entry.keep_alive_s = waiter.keep_alive_s
        load_s = max(hosted.ready_s - waiter.arrived_s, 0.0)
        release = _once(partial(self._release, entry, hosted, now_s))
        waiter.granted.set_result(Lease(hosted.engine, entry.model.name, load_s, release))

    def _release(self, entry: Entry, hosted: Hosted, since_s: float) -> None:
        hosted.busy -= 1
        now_s = _now_s()
        entry.answer_s += _SMOOTHING * (now_s - since_s - entry.answer_s)
        self._room.changed()
        if hosted is entry.hosted and entry.state == "ready":
            entry.used_s = now_s
            self.pump(entry)

    def _rest(self, entry: Entry) -> None:
        """Nobody waits for it."""
        key = (entry.model.path, entry.kind)
        if entry.state is None and not entry.pinned and self.entries.get(key) is entry:
            del self.entries[key]
        elif entry.idle and not entry.pinned and entry.expiry is None:
            left_s = entry.used_s + entry.keep_alive_s - _now_s()
            if left_s <= 0:
                self._start_unload(entry, "idle")
            elif not math.isinf(left_s):
                entry.expiry = asyncio.get_running_loop().call_later(left_s, self._expire, entry)

    def _expire(self, entry: Entry) -> None:
        entry.expiry = None
        self.pump(entry)

    def _cancel_expiry(self, entry: Entry) -> None:
        if entry.expiry:
            entry.expiry.cancel()
            entry.expiry = None

    def _look_around_later(self) -> None:
        if self._round is None:
            self._round = asyncio.get_running_loop().call_later(_LOOK_AROUND_S, self._look_around)

    def _look_around(self) -> None:
        self._round = None
        for entry in list(self.entries.values()):
            if entry.dead:
                self.pump(entry)
        if self.entries:
            self._look_around_later()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _once(action: Callable[[], None]) -> Callable[[], None]:
    """`action`, but only the first time."""
    done = False

    def first_time() -> None:
        nonlocal done
        if not done:
            done = True
            action()

    return first_time
