"""Makes room in memory for a model: one after another, in the order in which they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from bendi.engines import LoadRequest
from bendi.errors import OutOfMemory
from bendi.hardware import detect_memory
from bendi.i18n import _
from bendi.server.pool_budget import Decision, Fit, Holder, ModelSize, Purse, Want, decide, model_size, wanted_tok
from bendi.server.pool_entry import Entry
from bendi.server.pool_load import LoadStopped, in_thread, load_request, memory_of
from bendi.server.pool_words import PoolLimits
from bendi.settings import Settings
from bendi.units import format_size

_LOOK_AGAIN_S = 1.0
"""Other programs give memory back without saying so."""


class NoRoom(OutOfMemory):
    """A model does not fit beside what must stay. `load`: what was wanted; `room_bytes`: what there is at most."""

    def __init__(self, message: str, hint: str, load: LoadRequest, room_bytes: int) -> None:
        super().__init__(message, hint=hint)
        self.load, self.room_bytes = load, room_bytes


@dataclass(frozen=True)
class Planned:
    """`asked_tok`: the context that the requests needed, 0 for none in particular."""

    load: LoadRequest
    fit: Fit
    asked_tok: int


class Room:
    """The memory for models. `entries`: those that hold some. `unload` ends one; `resume` lets one give slots again."""

    def __init__(
        self,
        settings: Settings,
        limits: PoolLimits,
        entries: Callable[[], Iterable[Entry]],
        unload: Callable[[Entry], Awaitable[None]],
        resume: Callable[[Entry], None],
    ) -> None:
        self._settings, self._limits = settings, limits
        self._entries, self._unload, self._resume = entries, unload, resume
        self._turn = asyncio.Lock()
        self._change = asyncio.Event()

    def changed(self) -> None:
        """Somebody has ended, or does not want to wait any more."""
        self._change.set()

    async def make(self, entry: Entry) -> Planned:
        """Waits until there is room for `entry` and promises it. Others are unloaded for it; those with running answers
        end them first and begin no new ones.

        Raises NoRoom; LoadStopped when nobody waits for it any more; ModelFileError.
        """
        load = await in_thread(load_request, entry.model, entry.kind, self._settings)
        size = await in_thread(model_size, load)
        marked: list[Entry] = []
        async with self._turn_of(entry):
            try:
                while True:
                    self._change.clear()
                    planned, leaving = await self._next(entry, load, size)
                    if planned is not None:
                        entry.promised_bytes = planned.fit.total_bytes
                        return planned
                    for other in leaving:
                        other.must_go = True
                        marked.append(other)
                    if not await self._send_off(leaving):
                        with suppress(TimeoutError):
                            await asyncio.wait_for(self._change.wait(), _LOOK_AGAIN_S)
            finally:
                for other in marked:
                    other.must_go = False
                    self._resume(other)

    @asynccontextmanager
    async def _turn_of(self, entry: Entry) -> AsyncIterator[None]:
        """Waits for it, but no longer than the load is wanted: whoever has the turn may wait for a long answer. Raises
        LoadStopped."""
        assert entry.opening
        taking = asyncio.ensure_future(self._turn.acquire())
        stopped = asyncio.ensure_future(entry.opening.until_stopped())
        try:
            await asyncio.wait({taking, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not taking.done():
                raise LoadStopped
            yield
        finally:
            stopped.cancel()
            if not taking.cancel():
                self._turn.release()

    async def _next(self, entry: Entry, load: LoadRequest, size: ModelSize) -> tuple[Planned | None, list[Entry]]:
        """The plan where there is room for it, else who must leave."""
        usable_bytes = await in_thread(self._usable_bytes)
        if not entry.queue or (entry.opening and entry.opening.stopped):
            raise LoadStopped
        asked_tok = entry.longest_wish_tok()
        want = Want(load, asked_tok or self._settings.context_tok, self._limits.slots)
        if entry.hosted:
            usable_bytes += memory_of(entry.hosted.engine).private_bytes  # it goes when the new one comes
        others = [other for other in self._entries() if other is not entry and other.promised_bytes]
        others.sort(key=lambda other: other.used_s)
        holders = [other.holder() for other in others]
        purse = Purse(usable_bytes, self._limits.memory_bytes, holders)
        decision = decide(size, want, purse)
        if decision.fit is None:
            raise self._refusal(entry, (size, want, purse), [other for other in others if other.pinned])
        if not decision.leaving:
            fit = decision.fit
            return Planned(replace(load, context_tok=fit.context_tok, parallel=fit.slots), fit, asked_tok), []
        return None, _who(decision, others, holders)

    async def _send_off(self, leaving: Iterable[Entry]) -> bool:
        """Unloads those of whom nobody has a slot; whether there were any."""
        free = [other for other in leaving if other.at_rest]
        for other in free:
            await self._unload(other)
        return bool(free)

    def _usable_bytes(self) -> int:
        usable_bytes = detect_memory().usable_bytes
        limit_bytes = self._settings.worker_memory_bytes
        return usable_bytes if limit_bytes is None else min(usable_bytes, limit_bytes)

    def _refusal(self, entry: Entry, asked: tuple[ModelSize, Want, Purse], pinned: list[Entry]) -> NoRoom:
        size, want, purse = asked
        context_tok = wanted_tok(size, want)
        room_bytes = purse.room_bytes([holder for holder in purse.holders if holder.leaves != "never"])
        message = _(
            "{model} does not fit: it needs {needed} with a context of {context} tokens; {usable} can be used."
        ).format(
            model=entry.model.name,
            needed=format_size(size.bytes_for(want.load, context_tok)),
            context=context_tok,
            usable=format_size(room_bytes),
        )
        hint = ""
        if pinned:
            names = ", ".join(other.model.name for other in pinned)
            hint = _("Pinned models are never unloaded for others: {names}.").format(names=names)
        return NoRoom(message, hint, replace(want.load, context_tok=want.context_tok), room_bytes)


def _who(decision: Decision, entries: list[Entry], holders: list[Holder]) -> list[Entry]:
    return [entry for entry, holder in zip(entries, holders, strict=True) if any(holder is x for x in decision.leaving)]
