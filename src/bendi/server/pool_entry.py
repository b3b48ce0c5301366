"""One model of the pool: its queue, the load that serves it, and who has which slot. Lives in one event loop."""

from __future__ import annotations

import asyncio
import collections
import math
from dataclasses import dataclass, field

from bendi.engines import Engine
from bendi.server.pool_budget import Fit, Holder, Leaves
from bendi.server.pool_load import Memory, Opening, is_alive, memory_of
from bendi.server.pool_words import Kind, Lease, Loaded, State
from bendi.store import LocalModel

_MOST_NAMES = 64
_FIRST_GUESS_S = 5.0
"""Of how long an answer takes, before there was one."""


@dataclass(eq=False)
class Waiter:
    """A request in the queue. `context_tok`: what it needs, 0 for whatever there is. `session`: as in Wish."""

    granted: asyncio.Future[Lease]
    context_tok: int
    keep_alive_s: float
    arrived_s: float
    session: str | None = ""


@dataclass(eq=False)
class Hosted:
    """An engine and its slots. `asked_tok`: the context that requests had asked for, 0 for none. `ready_s`: when it had
    been loaded. `sessions`: of all that was asked of it; None once something was in none."""

    engine: Engine
    fit: Fit
    asked_tok: int
    ready_s: float
    busy: int = 0
    sessions: set[str] | None = field(default_factory=set)

    def remember_session(self, session: str | None) -> None:
        """`session`: as in Wish."""
        if session == "":
            self.sessions = None
        elif session is not None and self.sessions is not None:
            self.sessions.add(session)

    @property
    def context_tok(self) -> int:
        return self.engine.info.context_tok

    @property
    def memory(self) -> Memory:
        return memory_of(self.engine)


@dataclass(eq=False)
class Entry:
    """`hosted`: None unless it is loaded. `state`: None while it is neither loaded nor being loaded. `promised_bytes`:
    what it has been given of the memory. `must_go`: no slots are given, since another model waits for its memory.
    `answer_s`: how long an answer takes. `expiry`: the timer that unloads it. `work`: what is loading or unloading
    it. `names`: by which clients have asked for it."""

    model: LocalModel
    kind: Kind
    keep_alive_s: float
    state: State | None = None
    hosted: Hosted | None = None
    opening: Opening | None = None
    queue: collections.deque[Waiter] = field(default_factory=collections.deque)
    promised_bytes: int = 0
    pinned: bool = False
    must_go: bool = False
    used_s: float = 0.0
    answer_s: float = _FIRST_GUESS_S
    expiry: asyncio.TimerHandle | None = None
    work: asyncio.Task[None] | None = None
    names: set[str] = field(default_factory=set)

    @property
    def busy(self) -> int:
        return self.hosted.busy if self.hosted else 0

    @property
    def at_rest(self) -> bool:
        """Loaded, and nobody has a slot."""
        return self.state == "ready" and not self.busy

    @property
    def idle(self) -> bool:
        """Loaded, and nobody needs it."""
        return self.at_rest and not self.queue

    @property
    def dead(self) -> bool:
        """Its worker has ended by itself."""
        return self.state == "ready" and self.hosted is not None and not is_alive(self.hosted.engine)

    def remember_name(self, name: str) -> None:
        if len(self.names) < _MOST_NAMES:
            self.names.add(name)

    def is_called(self, name: str) -> bool:
        return name == self.model.name or name in self.names

    def cancel_expiry(self) -> None:
        if self.expiry:
            self.expiry.cancel()
            self.expiry = None

    def holder(self) -> Holder:
        """How it stands in the way of another load."""
        leaves: Leaves = "never" if self.pinned else "now" if self.idle else "later"
        private_bytes = self.hosted.memory.private_bytes if self.hosted else 0
        return Holder(self.promised_bytes, private_bytes, leaves)

    def longest_wish_tok(self) -> int:
        """Of all that wait."""
        return max((waiter.context_tok for waiter in self.queue), default=0)

    def can_grant(self) -> bool:
        """Whether the first in the queue may have a slot now."""
        hosted = self.hosted
        if self.state != "ready" or hosted is None or self.must_go or not self.queue:
            return False
        return hosted.busy < hosted.fit.slots and not self.too_short()

    def too_short(self) -> bool:
        """Whether the first in the queue needs a longer context than there is."""
        hosted = self.hosted
        return bool(
            self.queue and hosted and self.queue[0].context_tok > max(hosted.context_tok, hosted.asked_tok)
        )  # an engine may give less than was asked for: asking again would not change it

    def fail(self, error: Exception, least_tok: int = 0) -> None:
        """Tells all that wait, or those that need a context of `least_tok`."""
        waiting, self.queue = self.queue, collections.deque()
        for waiter in waiting:
            if waiter.context_tok < least_tok:
                self.queue.append(waiter)
            elif not waiter.granted.done():
                waiter.granted.set_exception(error)

    def retry_after_s(self) -> int:
        """When a slot may be free for somebody who comes now: a guess from earlier answers."""
        slots = self.hosted.fit.slots if self.hosted else 1
        return max(1, min(60, math.ceil(self.answer_s * (len(self.queue) + 1) / slots)))

    def shown(self, now_s: float) -> Loaded:
        hosted = self.hosted
        assert self.state is not None
        expires_s = None if self.pinned or math.isinf(self.keep_alive_s) else self.keep_alive_s
        if self.expiry is not None:
            expires_s = max(self.expiry.when() - now_s, 0.0)
        return Loaded(
            model=self.model.name,
            kind=self.kind,
            path=str(self.model.path),
            build=hosted.engine.info.build if hosted else "",
            context_tok=hosted.context_tok if hosted else 0,
            slots=hosted.fit.slots if hosted else 0,
            memory_bytes=self.promised_bytes,
            resident_bytes=hosted.memory.resident_bytes if hosted else 0,
            busy=self.busy,
            waiting=len(self.queue),
            expires_s=expires_s,
            pinned=self.pinned,
            state=self.state,
        )
