"""Loading once, slots and queues, bytes and eviction, idling and pinning, failures: with an engine that computes
nothing and the sizes of a real model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pool_engines import Garage, copies

from bendi.engines import LoadRequest
from bendi.errors import ConfigError, EngineCrashed, EngineError, ModelFileError, NotFoundError, OutOfMemory, UsageError
from bendi.server.api_errors import ApiError
from bendi.server.pool import Lease, ModelPool, PoolLimits, Wish
from bendi.server.pool_budget import model_size
from bendi.settings import Settings


@pytest.fixture
def one_bytes(demo_model: Path) -> int:
    """What the model takes with one slot."""
    return bytes_of(demo_model, 2048)


def bytes_of(model: Path, context_tok: int, slots: int = 1) -> int:
    load = LoadRequest(model)
    return model_size(load).bytes_for(load, context_tok, slots)


def play(
    settings: Settings,
    scene: Callable[[ModelPool, Garage], Awaitable[None]],
    limits: PoolLimits | None = None,
    garage: Garage | None = None,
) -> None:
    """Runs `scene` with a pool, and checks that nothing of it is left."""
    garage = garage or Garage()

    async def main() -> None:
        pool = garage.pool(settings, limits or PoolLimits(slots=1))
        await asyncio.wait_for(scene(pool, garage), 20)
        await pool.close(0.0)
        assert pool.loaded() == []
        assert all(engine.closed for engine in garage.engines)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    for _attempt in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


def names(pool: ModelPool) -> list[str]:
    return sorted(loaded.model for loaded in pool.loaded())


def test_two_first_requests_load_once(settings: Settings) -> None:
    async def scene(pool: ModelPool, garage: Garage) -> None:
        leases = await asyncio.gather(pool.acquire(Wish("demo")), pool.acquire(Wish("demo")))
        assert garage.names == ["demo"]
        assert leases[0].engine is leases[1].engine
        assert all(lease.load_s > 0.04 for lease in leases)
        for lease in leases:
            lease.release()
        async with pool.lease(Wish("demo")) as lease:
            assert lease.load_s == 0

    play(settings, scene, PoolLimits(slots=2), Garage(load_s=0.05))


def test_slots_are_given_in_the_order_of_arrival(settings: Settings) -> None:
    async def scene(pool: ModelPool, garage: Garage) -> None:
        order: list[int] = []

        async def ask(number: int) -> None:
            async with pool.lease(Wish("demo")):
                order.append(number)
                assert pool.loaded()[0].busy <= 2
                await asyncio.sleep(0.002)

        await asyncio.gather(*(ask(number) for number in range(20)))
        assert order == list(range(20))
        assert pool.loaded()[0].busy == 0

    play(settings, scene, PoolLimits(slots=2))


def test_a_full_queue_is_told(settings: Settings) -> None:
    async def scene(pool: ModelPool, _garage: Garage) -> None:
        lease = await pool.acquire(Wish("demo"))
        waiting = [asyncio.create_task(pool.acquire(Wish("demo"))) for _ in range(3)]
        await until(lambda: pool.waiting == 3)
        with pytest.raises(ApiError) as caught:
            await pool.acquire(Wish("demo"))
        assert caught.value.status == 429
        assert int(caught.value.headers["Retry-After"]) >= 1
        assert pool.waiting == 3
        for task in waiting:
            lease.release()
            lease = await task
        lease.release()

    play(settings, scene, PoolLimits(slots=1, queue=3))


def test_who_does_not_want_to_wait_any_more_leaves_the_queue(settings: Settings) -> None:
    async def scene(pool: ModelPool, _garage: Garage) -> None:
        lease = await pool.acquire(Wish("demo"))
        first, second = (asyncio.create_task(pool.acquire(Wish("demo"))) for _ in range(2))
        await until(lambda: pool.waiting == 2)
        first.cancel()
        await until(lambda: pool.waiting == 1)
        lease.release()
        lease.release()
        (await second).release()
        assert pool.loaded()[0].busy == 0

    play(settings, scene)


def test_the_one_used_longest_ago_makes_room(settings: Settings, demo_model: Path, one_bytes: int) -> None:
    copies(settings, demo_model, "a", "b", "c")

    async def scene(pool: ModelPool, _garage: Garage) -> None:
        for name in ("a", "b", "a", "c"):
            async with pool.lease(Wish(name)):
                pass
        assert names(pool) == ["a.gguf", "c.gguf"]
        async with pool.lease(Wish("b")):
            assert names(pool) == ["b.gguf", "c.gguf"]
        assert sum(loaded.memory_bytes for loaded in pool.loaded()) <= 2 * one_bytes

    play(settings, scene, PoolLimits(memory_bytes=2 * one_bytes, slots=1))


def test_bytes_count_and_not_models(settings: Settings, demo_model: Path, one_bytes: int) -> None:
    copies(settings, demo_model, *"abcde")

    async def scene(pool: ModelPool, _garage: Garage) -> None:
        for name in "abcde":
            async with pool.lease(Wish(name)):
                pass
        assert names(pool) == [f"{name}.gguf" for name in "abcde"]

    play(settings, scene, PoolLimits(memory_bytes=5 * one_bytes, slots=1))


def test_pinned_and_busy_models_stay(settings: Settings, demo_model: Path, one_bytes: int) -> None:
    copies(settings, demo_model, "a", "b", "c")

    async def scene(pool: ModelPool, _garage: Garage) -> None:
        async with pool.lease(Wish("a")):
            pass
        await pool.pin("a", True)
        busy = await pool.acquire(Wish("b"))
        waiting = asyncio.create_task(pool.acquire(Wish("c")))
        await asyncio.sleep(0.1)
        assert names(pool) == ["a.gguf", "b.gguf", "c.gguf"]
        assert not waiting.done()
        busy.release()
        (await waiting).release()
        assert names(pool) == ["a.gguf", "c.gguf"]
        await pool.pin("c.gguf", True)
        with pytest.raises(OutOfMemory) as caught:
            await pool.acquire(Wish("b"))
        assert "a.gguf, c.gguf" in caught.value.hint
        await pool.pin("a", False)
        async with pool.lease(Wish("b")):
            assert names(pool) == ["b.gguf", "c.gguf"]

    play(settings, scene, PoolLimits(memory_bytes=2 * one_bytes, slots=1))


def test_a_busy_model_ends_its_answers_and_begins_no_new_ones(
    settings: Settings, demo_model: Path, one_bytes: int
) -> None:
    copies(settings, demo_model, "a", "b")

    async def scene(pool: ModelPool, garage: Garage) -> None:
        first = await pool.acquire(Wish("a"))
        other = asyncio.create_task(pool.acquire(Wish("b")))
        await until(lambda: pool.waiting == 1)
        await asyncio.sleep(0.05)
        again = asyncio.create_task(pool.acquire(Wish("a")))
        await until(lambda: pool.waiting == 2)
        first.release()
        lease = await other
        assert not again.done()
        lease.release()
        (await again).release()
        assert garage.names == ["a.gguf", "b.gguf", "a.gguf"]

    play(settings, scene, PoolLimits(memory_bytes=one_bytes, slots=1))


def test_waiting_for_memory_can_be_given_up(settings: Settings, demo_model: Path, one_bytes: int) -> None:
    copies(settings, demo_model, "a", "b")

    async def scene(pool: ModelPool, garage: Garage) -> None:
        lease = await pool.acquire(Wish("a"))
        other = asyncio.create_task(pool.acquire(Wish("b")))
        await until(lambda: pool.waiting == 1)
        await asyncio.sleep(0.05)
        other.cancel()
        await until(lambda: names(pool) == ["a.gguf"])
        lease.release()
        async with pool.lease(Wish("a")) as lease:
            assert lease.load_s == 0
        assert garage.names == ["a.gguf"]

    play(settings, scene, PoolLimits(memory_bytes=one_bytes, slots=1))


def test_a_load_that_waits_for_its_turn_can_be_stopped(settings: Settings, demo_model: Path, one_bytes: int) -> None:
    """The turn is that of another load, which waits for the end of an answer."""
    copies(settings, demo_model, "a", "b", "c")

    async def scene(pool: ModelPool, garage: Garage) -> None:
        lease = await pool.acquire(Wish("a"))
        first = asyncio.create_task(pool.acquire(Wish("b")))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(pool.acquire(Wish("c")))
        await asyncio.sleep(0.1)
        assert await asyncio.wait_for(pool.stop("c"), 5) == 1
        with pytest.raises(EngineCrashed):
            await second
        assert not first.done()
        lease.release()
        (await first).release()
        async with pool.lease(Wish("c")):  # the turn of the stopped one has been given on
            assert garage.names == ["a.gguf", "b.gguf", "c.gguf"]

    play(settings, scene, PoolLimits(memory_bytes=one_bytes, slots=1))


def test_slots_are_as_many_as_memory_gives(settings: Settings, demo_model: Path) -> None:
    async def scene(pool: ModelPool, garage: Garage) -> None:
        async with pool.lease(Wish("demo")):
            pass
        assert pool.loaded()[0].slots == 3
        assert garage.engines[0].load.parallel == 3

    limit_bytes = bytes_of(demo_model, 2048, 4) - 1
    play(settings, scene, PoolLimits(memory_bytes=limit_bytes, slots=8))


def test_a_model_that_cannot_fit_is_refused_with_an_alternative(settings: Settings) -> None:
    async def scene(pool: ModelPool, garage: Garage) -> None:
        with pytest.raises(OutOfMemory) as caught:
            await pool.acquire(Wish("demo", context_tok=2048))
        assert "demo" in caught.value.message
        assert "bendi run" in caught.value.hint or "bendi fit" in caught.value.hint
        assert garage.names == []

    play(settings, scene, PoolLimits(memory_bytes=5_000_000))


def test_idle_models_are_unloaded(settings: Settings) -> None:
    async def scene(pool: ModelPool, _garage: Garage) -> None:
        async with pool.lease(Wish("demo", keep_alive_s=0.05)):
            await asyncio.sleep(0.1)
            assert names(pool) == ["demo"]
        left_s = pool.loaded()[0].expires_s
        assert left_s is not None and 0 < left_s <= 0.05
        await until(lambda: pool.loaded() == [])
        async with pool.lease(Wish("demo", keep_alive_s=0)):
            pass
        await until(lambda: pool.loaded() == [])
        async with pool.lease(Wish("demo", keep_alive_s=math.inf)):
            pass
        assert pool.loaded()[0].expires_s is None

    play(settings, scene)


def test_a_pinned_model_does_not_idle_away(settings: Settings) -> None:
    async def scene(pool: ModelPool, _garage: Garage) -> None:
        async with pool.lease(Wish("demo", keep_alive_s=0.05)):
            await pool.pin("demo", True)
        await asyncio.sleep(0.1)
        assert [(loaded.pinned, loaded.expires_s) for loaded in pool.loaded()] == [(True, None)]
        await pool.pin("demo", False)
        await until(lambda: pool.loaded() == [])
        with pytest.raises(NotFoundError):
            await pool.pin("demo", True)

    play(settings, scene)


def test_a_failed_load_fails_all_that_wait_and_is_tried_again(settings: Settings) -> None:
    garage = Garage(load_s=0.05)
    garage.fail.append(EngineError("The model was not loaded within 1 seconds."))

    async def scene(pool: ModelPool, garage: Garage) -> None:
        outcomes = await asyncio.gather(*(pool.acquire(Wish("demo")) for _ in range(3)), return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["The model was not loaded within 1 seconds."] * 3
        assert pool.loaded() == []
        async with pool.lease(Wish("demo")):
            pass
        assert len(garage.names) == 2

    play(settings, scene, PoolLimits(slots=2), garage)


def test_a_defect_while_loading_fails_the_request_and_nothing_else(settings: Settings) -> None:
    garage = Garage()
    garage.fail.append(RuntimeError("a defect"))  # type: ignore[arg-type]

    async def scene(pool: ModelPool, _garage: Garage) -> None:
        with pytest.raises(RuntimeError):
            await pool.acquire(Wish("demo"))
        async with pool.lease(Wish("demo")):
            pass

    play(settings, scene, garage=garage)


def test_a_worker_that_died_is_replaced(settings: Settings) -> None:
    async def scene(pool: ModelPool, garage: Garage) -> None:
        first = await pool.acquire(Wish("demo"))
        waiting = asyncio.create_task(pool.acquire(Wish("demo")))
        await until(lambda: pool.waiting == 1)
        garage.engines[0].worker.alive = False
        first.release()
        second = await waiting
        assert second.engine is garage.engines[1]
        assert garage.engines[0].closed
        second.release()
        garage.engines[1].worker.alive = False
        await until(lambda: pool.loaded() == [])  # also when nobody asks

    play(settings, scene)


def test_stopping_in_the_middle(settings: Settings) -> None:
    async def scene(pool: ModelPool, garage: Garage) -> None:
        lease = await pool.acquire(Wish("demo"))
        waiting = asyncio.create_task(pool.acquire(Wish("demo")))
        await until(lambda: pool.waiting == 1)
        assert await pool.stop("demo") == 1
        assert garage.engines[0].closed
        with pytest.raises(EngineCrashed):
            await waiting
        async with pool.lease(Wish("demo")) as fresh:
            assert fresh.engine is garage.engines[1]
            lease.release()  # of the one that is gone
            assert pool.loaded()[0].busy == 1
        assert await pool.stop() == 1
        assert await pool.stop("demo") == 0
        with pytest.raises(NotFoundError):
            await pool.stop("absent")

    play(settings, scene)


def test_stopping_a_load(settings: Settings) -> None:
    async def scene(pool: ModelPool, garage: Garage) -> None:
        waiting = asyncio.create_task(pool.acquire(Wish("demo")))
        await until(lambda: garage.names == ["demo"])
        assert await pool.stop("demo") == 1
        with pytest.raises(EngineCrashed):
            await waiting
        assert garage.engines == []

    play(settings, scene, garage=Garage(load_s=10))


def test_closing_lets_answers_end(settings: Settings) -> None:
    async def scene(pool: ModelPool, garage: Garage) -> None:
        lease = await pool.acquire(Wish("demo"))
        waiting = asyncio.create_task(pool.acquire(Wish("demo")))
        await until(lambda: pool.waiting == 1)
        closing = asyncio.create_task(pool.close(10))
        with pytest.raises(ApiError) as caught:
            await waiting
        assert caught.value.status == 503
        assert not garage.engines[0].closed
        with pytest.raises(ApiError):
            await pool.acquire(Wish("demo"))
        lease.release()
        await closing
        assert garage.engines[0].closed

    play(settings, scene)


def test_a_longer_context_when_nobody_else_uses_the_model(settings: Settings) -> None:
    async def scene(pool: ModelPool, garage: Garage) -> None:
        lease = await pool.acquire(Wish("demo", context_tok=512))
        assert lease.engine.info.context_tok == 512
        other = await pool.acquire(Wish("demo"))
        assert await pool.grow(lease, Wish("demo"), 1024) is None
        other.release()
        assert await pool.grow(lease, Wish("demo"), 1_000_000) is None
        grown = await pool.grow(lease, Wish("demo"), 1024)
        assert grown is not None and grown.engine.info.context_tok == 1024
        assert garage.engines[0].closed
        assert pool.loaded()[0].busy == 1
        grown.release()
        # A request that asks for more waits until it can be had, those that ask for less take what is there.
        longer = await pool.acquire(Wish("demo", context_tok=2048))
        assert longer.engine.info.context_tok == 2048
        longer.release()
        async with pool.lease(Wish("demo", context_tok=512)) as lease:
            assert lease.engine.info.context_tok == 2048
        async with pool.lease(Wish("demo", context_tok=10**9)) as lease:
            assert lease.engine.info.context_tok == 2048  # all that it was trained for

    play(settings, scene, PoolLimits(slots=2))


def test_growth_without_memory_leaves_the_model_as_it_is(settings: Settings, demo_model: Path) -> None:
    limit_bytes = bytes_of(demo_model, 1024)

    async def scene(pool: ModelPool, garage: Garage) -> None:
        lease = await pool.acquire(Wish("demo", context_tok=1024))
        with pytest.raises(OutOfMemory):
            await pool.grow(lease, Wish("demo"), 2048)
        async with pool.lease(Wish("demo")) as lease:
            assert (lease.engine, lease.load_s) == (garage.engines[0], 0)

    play(settings, scene, PoolLimits(memory_bytes=limit_bytes, slots=1))


def test_only_models_of_this_server_have_names(settings: Settings, demo_model: Path, tmp_path: Path) -> None:
    copies(settings, demo_model, "a")
    outside, named = tmp_path / "outside.gguf", tmp_path / "named.gguf"
    outside.write_bytes(demo_model.read_bytes())
    named.write_bytes(demo_model.read_bytes())

    async def scene(pool: ModelPool, _garage: Garage) -> None:
        for text in (str(outside), f"{outside.parent}/../{tmp_path.name}/outside.gguf", "/etc/passwd", "../a.gguf"):
            with pytest.raises(NotFoundError) as caught:
                await pool.acquire(Wish(text))
            assert "bendi pull" not in caught.value.hint
        for text in ("hf:org/absent:Q4_K_M", "https://localhost/model.gguf", "", "a\x00b", "demo@nobody", "x" * 3000):
            with pytest.raises((NotFoundError, UsageError)):
                await pool.acquire(Wish(text))
        inside = settings.models_dirs[0] / "a.gguf"
        for text in ("a", "a.gguf", str(inside), str(named), "DEMO", "demo@concise"):
            async with pool.lease(Wish(text)):
                pass
        assert len(pool.loaded()) == 3

    play(settings, scene, PoolLimits(slots=1, files=(named,)))


def test_a_file_that_is_no_model_is_refused(settings: Settings) -> None:
    folder = settings.models_dirs[0]
    folder.mkdir(parents=True)
    (folder / "bad.gguf").write_bytes(b"GGUF" + bytes(100))

    async def scene(pool: ModelPool, garage: Garage) -> None:
        with pytest.raises(ModelFileError):
            await pool.acquire(Wish("bad"))
        assert garage.names == []

    play(settings, scene)


def test_personas_are_read_again(settings: Settings) -> None:
    async def scene(pool: ModelPool, _garage: Garage) -> None:
        with pytest.raises(NotFoundError):
            pool.named("demo@writer")
        settings.personas_file.parent.mkdir(parents=True, exist_ok=True)
        settings.personas_file.write_text('[writer]\nsystem = "Write."\nmodel = "demo"\n')
        named = pool.named("demo@writer")
        assert named.persona is not None and named.persona.system == "Write."
        assert pool.named("@writer").model == "demo"
        assert pool.named("hf:org/repo@v1.0").persona is None
        settings.personas_file.write_text("writer = 1\n")
        with pytest.raises(ConfigError):
            pool.named("demo@writer")

    play(settings, scene)


def test_settings_are_limits(settings: Settings) -> None:
    changed = replace(settings, serve_slots=7, serve_queue=9, serve_keep_alive_s=1.0, serve_memory_bytes=5)
    assert PoolLimits.of(changed) == PoolLimits(5, 7, 9, 1.0, settings.serve_stall_s)


def test_what_is_there_is_given_at_once(settings: Settings) -> None:
    async def scene(pool: ModelPool, garage: Garage) -> None:
        assert pool.at_once(Wish("demo")) is None
        async with pool.lease(Wish("demo")):
            assert pool.at_once(Wish("demo")) is None, "its only slot is taken"
        lease = pool.at_once(Wish("demo"))
        assert lease is not None and lease.engine is garage.engines[0]
        assert pool.at_once(Wish("demo")) is None and pool.waiting == 0
        first = asyncio.create_task(pool.acquire(Wish("demo")))
        await until(lambda: pool.waiting == 1)
        lease.release()
        assert pool.at_once(Wish("demo")) is None, "who waited longer comes first"
        (await first).release()
        for wish in (Wish("demo", "embedding"), Wish("demo", context_tok=10**6), Wish("absent")):
            assert pool.at_once(wish) is None and pool.waiting == 0
        garage.engines[0].worker.alive = False
        assert pool.at_once(Wish("demo")) is None
        await pool.close(0.0)
        assert pool.at_once(Wish("demo")) is None

    play(settings, scene)


def test_a_lease_ends_once(settings: Settings) -> None:
    async def scene(pool: ModelPool, _garage: Garage) -> None:
        leases: list[Lease] = [await pool.acquire(Wish("demo")) for _ in range(2)]
        leases[0].release()
        leases[0].release()
        assert pool.loaded()[0].busy == 1
        leases[1].release()

    play(settings, scene, PoolLimits(slots=2))
