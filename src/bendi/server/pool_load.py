"""Opens and closes engines, in threads that the event loop waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from bendi.advisor.refusals import explained_refusal
from bendi.engines import Engine, LoadRequest, open_recorded_engine
from bendi.engines.projector import open_seeing, projector_beside
from bendi.engines.protocol import Worker
from bendi.errors import BendiError, EngineCrashed, OutOfMemory
from bendi.i18n import _
from bendi.server.pool_words import Kind
from bendi.settings import Settings
from bendi.store import LocalModel

_Result = TypeVar("_Result")

OpenModel = Callable[[LoadRequest, Settings, Callable[[float], None], str], Engine]
"""(what, settings, on progress, name) -> an engine that is ready."""


@dataclass(frozen=True)
class Memory:
    """Of a worker. `resident_bytes`: all, mapped weights included; `private_bytes`: what nobody else could use."""

    resident_bytes: int = 0
    private_bytes: int = 0


def open_model(load: LoadRequest, settings: Settings, on_progress: Callable[[float], None], name: str) -> Engine:
    """As `bendi run` opens it: with tuned settings; sizes and speeds are kept for later plans."""
    return open_seeing(load, lambda load: open_recorded_engine(load, settings, on_progress, name))


def load_request(model: LocalModel, kind: Kind, settings: Settings) -> LoadRequest:
    """What is asked of the engine, before it is known how much memory there is. Looks into the model's folder."""
    return LoadRequest(
        model_path=model.path,
        threads=settings.threads,
        embeddings=kind == "embedding",
        reranking=kind == "rerank",
        memory_limit_bytes=settings.worker_memory_bytes,
        mmproj_path=projector_beside(model.path) if kind == "text" else None,
        state_dir=settings.kept_states_dir if kind == "text" and settings.kept_states_bytes else None,
    )


async def in_thread(function: Callable[..., _Result], *arguments: object) -> _Result:
    """What `function` returns. A cancellation waits until it has ended: nothing goes on unseen."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.shield(task)
        raise


class LoadStopped(Exception):
    """A load was broken off because nobody wants it any more."""


class Opening:
    """One load that can be stopped."""

    def __init__(self, opener: OpenModel, settings: Settings) -> None:
        self._opener, self._settings = opener, settings
        self._stopped = threading.Event()
        self._told = asyncio.Event()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """In the event loop."""
        self._stopped.set()
        self._told.set()

    async def until_stopped(self) -> None:
        await self._told.wait()

    def open(self, load: LoadRequest, model: LocalModel) -> Engine:
        """Blocks until the model is loaded. Raises LoadStopped, or as `engines.open_engine`."""
        engine = self._opener(load, self._settings, self._on_progress, model.name)
        if self._stopped.is_set():
            engine.close()
            raise LoadStopped
        return engine

    def _on_progress(self, _fraction: float) -> None:
        if self._stopped.is_set():
            raise LoadStopped


def refusal(
    error: OutOfMemory, model: LocalModel, load: LoadRequest, settings: Settings, room_bytes: int
) -> OutOfMemory:
    """`error` with the best alternative for `room_bytes` as its hint; as it is where none is known."""
    try:
        return explained_refusal(error, model, load, settings, room_bytes)
    except BendiError:
        return error


def _worker_of(engine: Engine) -> Worker | None:
    """Of a HostedEngine. Asked for with each request, and to ask whether it is one takes longer than all the rest."""
    return getattr(engine, "worker", None)


def is_alive(engine: Engine) -> bool:
    """Whether its worker runs; True for engines without one."""
    worker = _worker_of(engine)
    return worker is None or worker.alive


def memory_of(engine: Engine) -> Memory:
    """What the system says of its worker; zeros where it does not say."""
    worker = _worker_of(engine)
    return Memory(worker.resident_bytes(), worker.private_bytes()) if worker else Memory()


def unloaded() -> EngineCrashed:
    """For requests whose model was stopped while they waited for it."""
    return EngineCrashed(_("The model was unloaded."), hint=_("Load it again."))
