"""Who has which slot of which model, who waits, and when a model is loaded or goes. All in one event loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bendi.engines import Engine
from bendi.server.metrics import Metrics, Unloading
from bendi.server.pool_entry import Entry, Hosted, Waiter
from bendi.server.pool_load import OpenModel
from bendi.server.pool_loads import Loads
from bendi.server.pool_room import Room
from bendi.server.pool_words import Kind, Lease, PoolLimits
from bendi.settings import Settings
from bendi.store import LocalModel

_LOOK_AROUND_S = 1.0
"""So often it is looked whether a worker has died."""
_SMOOTHING = 0.2


class Models:
    """All entries, by file and kind."""

    def __init__(self, settings: Settings, limits: PoolLimits, opener: OpenModel, metrics: Metrics) -> None:
        self._limits = limits
        self.entries: dict[tuple[Path, Kind], Entry] = {}
        self._room = Room(settings, limits, self.entries.values, partial(self.unload, reason="room"), self.pump)
        self._loads = Loads(settings, opener, metrics, self._room.make, self._settled)
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
            if self._round is None:
                self._look_around()
        return self.entries[key]

    def pump(self, entry: Entry) -> None:
        """Does what can be done for those that wait; to be called whenever anything has changed."""
        if entry.dead:
            self._loads.unload(entry, "died")
            return
        while entry.can_grant():
            self._grant(entry)
        if not entry.queue:
            self._rest(entry)
        elif not entry.must_go and (entry.state is None or (entry.too_short() and entry.at_rest)):
            self._loads.load(entry)

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
            self._loads.unload(entry, reason)
        if entry.work:
            await asyncio.wait([entry.work])

    def pin(self, entry: Entry, pinned: bool) -> None:
        entry.cancel_expiry()
        entry.pinned = pinned
        entry.used_s = _now_s()
        self._room.changed()
        self.pump(entry)

    def hosting(self, engine: Engine) -> Entry | None:
        """Which entry has `engine`; None when it is gone."""
        return next((entry for entry in self.entries.values() if entry.hosted and entry.hosted.engine is engine), None)

    def _settled(self, entry: Entry) -> None:
        self._room.changed()
        self.pump(entry)

    def _grant(self, entry: Entry) -> None:
        waiter, hosted, now_s = entry.queue.popleft(), entry.hosted, _now_s()
        assert hosted is not None
        if waiter.granted.done():
            return
        entry.cancel_expiry()
        hosted.busy += 1
        hosted.remember_session(waiter.session)
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
                self._loads.unload(entry, "idle")
            elif not math.isinf(left_s):
                entry.expiry = asyncio.get_running_loop().call_later(left_s, self._expire, entry)

    def _expire(self, entry: Entry) -> None:
        entry.expiry = None
        self.pump(entry)

    def _look_around(self) -> None:
        for entry in list(self.entries.values()):
            if entry.dead:
                self.pump(entry)
        self._round = None
        if self.entries:
            self._round = asyncio.get_running_loop().call_later(_LOOK_AROUND_S, self._look_around)


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
