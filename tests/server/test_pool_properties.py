"""Whatever clients and administrators do: slots and memory are never given twice, and nothing is left behind."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pool_engines import Garage, copies

from bendi.engines import LoadRequest
from bendi.errors import BendiError, NotFoundError
from bendi.server.api_errors import ApiError
from bendi.server.pool import Lease, PoolLimits, Wish
from bendi.server.pool_budget import model_size
from bendi.settings import Settings, load_settings
from bendi.store.catalogue import demo_path

NAMES = ("a", "b", "c", "d")
QUEUE = 6
MODELS = st.sampled_from(NAMES)
PICKS = st.integers(0, 1000)


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        base = Path(self.folder.name)
        paths = {name: str(base / name) for name in ("BENDI_MODELS", "BENDI_STATE", "BENDI_CONFIG", "BENDI_CACHE")}
        self.settings: Settings = load_settings(paths)
        copies(self.settings, demo_path(), *NAMES)
        load = LoadRequest(demo_path())
        self.limit_bytes = model_size(load).bytes_for(load, 2048, 2) * 2
        self.garage = Garage(load_s=0.002)
        limits = PoolLimits(self.limit_bytes, slots=3, queue=QUEUE, keep_alive_s=0.02)
        self.pool = self.garage.pool(self.settings, limits)
        self.asking: list[asyncio.Task[Lease]] = []
        self.leases: list[Lease] = []
        self.growing: dict[asyncio.Task[Lease], Lease] = {}

    def do(self, action: Callable[[], None]) -> None:
        """In the event loop, where leases are released."""

        async def done() -> None:
            action()

        self.loop.run_until_complete(done())

    def run(self, seconds: float = 0.0) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        done = [task for task in self.asking if task.done()]
        self.asking = [task for task in self.asking if not task.done()]
        for task in done:
            old = self.growing.pop(task, None)
            if not task.cancelled() and task.exception() is None:
                self.leases.append(task.result())
                continue
            if old:
                self.do(old.release)
            error = None if task.cancelled() else task.exception()
            assert error is None or isinstance(error, BendiError | ApiError), error

    @rule(name=MODELS, context_tok=st.sampled_from([None, None, 512, 2048, 10**6]), keep=st.sampled_from([None, 0.0]))
    def ask(self, name: str, context_tok: int | None, keep: float | None) -> None:
        wish = Wish(name, context_tok=context_tok, keep_alive_s=keep)
        self.asking.append(self.loop.create_task(self.pool.acquire(wish)))
        self.run(0.001)

    @rule(pick=PICKS)
    def give_up(self, pick: int) -> None:
        if self.asking:
            self.asking[pick % len(self.asking)].cancel()
        self.run()

    @rule(pick=PICKS, twice=st.booleans())
    def release(self, pick: int, twice: bool) -> None:
        if self.leases:
            lease = self.leases.pop(pick % len(self.leases))
            self.do(lease.release)
            if twice:
                self.do(lease.release)
        self.run()

    @rule(pick=PICKS, context_tok=st.sampled_from([1024, 2048, 10**6]))
    def grow(self, pick: int, context_tok: int) -> None:
        if not self.leases:
            return
        lease = self.leases.pop(pick % len(self.leases))

        async def grown() -> Lease:
            return await self.pool.grow(lease, Wish("a"), context_tok) or lease

        task = self.loop.create_task(grown())
        self.asking.append(task)
        self.growing[task] = lease
        self.run(0.001)

    @rule(name=MODELS, pinned=st.booleans())
    def pin(self, name: str, pinned: bool) -> None:
        with suppress(NotFoundError):
            self.loop.run_until_complete(self.pool.pin(name, pinned))

    @rule(name=st.sampled_from([*NAMES, None]))
    def stop(self, name: str | None) -> None:
        self.loop.run_until_complete(asyncio.wait_for(self.pool.stop(name), 20))
        self.run()

    @rule(pick=PICKS)
    def worker_dies(self, pick: int) -> None:
        alive = [engine for engine in self.garage.engines if not engine.closed]
        if alive:
            alive[pick % len(alive)].worker.alive = False

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.05]))
    def time_passes(self, seconds: float) -> None:
        self.run(seconds)

    @invariant()
    def nothing_is_given_twice(self) -> None:
        entries = list(self.pool._models.entries.values())
        assert sum(entry.promised_bytes for entry in entries) <= self.limit_bytes
        assert self.pool.waiting <= QUEUE + len([task for task in self.asking if not task.done()])
        for entry in entries:
            if entry.hosted:
                held = [lease for lease in self.leases if lease.engine is entry.hosted.engine]
                assert len(held) <= entry.busy <= entry.hosted.fit.slots
        open_engines = [engine for engine in self.garage.engines if not engine.closed]
        assert len(open_engines) <= len([entry for entry in entries if entry.state])

    def teardown(self) -> None:
        for _attempt in range(2000):
            for lease in self.leases:
                self.do(lease.release)
            self.leases = []
            for entry in list(self.pool._models.entries.values()):
                self.do(partial(self.pool._models.pin, entry, False))
            if not self.asking:
                break
            self.run(0.005)
        assert not self.asking, "somebody waits for ever"
        assert self.pool.waiting == 0
        self.run(0.01)
        assert self.pool._models.busy == 0
        self.loop.run_until_complete(asyncio.wait_for(self.pool.close(0.0), 20))
        assert all(engine.closed for engine in self.garage.engines)
        assert self.pool._models.entries == {}
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()


PoolMachine.TestCase.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPool = PoolMachine.TestCase
