"""Engines and models for tests of the pool: slow ones, ones that die, and a folder of small real models."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bendi.engines import Engine, LoadRequest
from bendi.engines.fake import FakeEngine
from bendi.errors import BendiError, EngineCrashed
from bendi.messages import Cancellation, Chunk, GenerateRequest
from bendi.server.pool import ModelPool, PoolLimits
from bendi.settings import Settings
from bendi.store import Store


class FakeWorker:
    """What the pool asks of a process."""

    def __init__(self) -> None:
        self.alive = True

    def resident_bytes(self) -> int:
        return 1000

    def private_bytes(self) -> int:
        return 100


class HostedFake(FakeEngine):
    """A fake engine whose worker can die."""

    def __init__(self, load: LoadRequest, delay_s: float) -> None:
        super().__init__(load, delay_s=delay_s)
        self.load = load
        self.worker = FakeWorker()
        self.running = 0
        self.most_running = 0
        self.closed = False
        self._counting = threading.Lock()

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        with self._counting:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            for chunk in super().generate(request, cancel):
                if not self.worker.alive:
                    raise EngineCrashed("The engine stopped (exit code -9).")
                yield chunk
        finally:
            with self._counting:
                self.running -= 1

    def close(self) -> None:
        self.closed = True
        super().close()


class Garage:
    """Opens `HostedFake` engines and remembers them. `fail`: errors that the next loads end with."""

    def __init__(self, load_s: float = 0.0, delay_s: float = 0.0) -> None:
        self.load_s, self.delay_s = load_s, delay_s
        self.engines: list[HostedFake] = []
        self.names: list[str] = []
        self.fail: list[BendiError] = []

    def open(self, load: LoadRequest, _settings: Settings, on_progress: Callable[[float], None], name: str) -> Engine:
        self.names.append(name)
        until_s = time.monotonic() + self.load_s
        while time.monotonic() < until_s:
            time.sleep(0.005)
            on_progress(0.5)
        if self.fail:
            raise self.fail.pop(0)
        engine = HostedFake(load, self.delay_s)
        self.engines.append(engine)
        return engine

    def pool(self, settings: Settings, limits: PoolLimits) -> ModelPool:
        return ModelPool(settings, Store(settings), limits=limits, opener=self.open)


def copies(settings: Settings, model: Path, *names: str) -> None:
    """The model under other names, in the folder that is searched for models."""
    folder = settings.models_dirs[0]
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.gguf").write_bytes(model.read_bytes())


def with_context(model: Path, context_tok: int) -> bytes:
    """The demo model, whose header says that it was trained for so many tokens: for answers that do not end soon."""
    data = model.read_bytes()
    key = b"qwen3.context_length"
    at = data.index(key) + len(key)
    assert struct.unpack_from("<II", data, at) == (4, 2048), "an unsigned 32-bit number"
    return data[:at] + struct.pack("<II", 4, context_tok) + data[at + 8 :]


def question(text: str = "one two three", **options: object) -> GenerateRequest:
    return GenerateRequest(prompt=text, **options)  # type: ignore[arg-type]
