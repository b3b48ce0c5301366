"""What is said about loaded models: wishes, leases, limits, and what `ps` shows. Data only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from bendi.engines import Engine
from bendi.settings import Settings

Kind = Literal["text", "embedding", "rerank"]
State = Literal["loading", "ready", "stopping"]


@dataclass(frozen=True)
class Wish:
    """What a request needs. `model`: any name that `bendi run` takes, or `name@persona`. `context_tok`: at least so
    much for one conversation; None for what the plan gives. `keep_alive_s`: how long the model stays loaded after its
    last request; None for the server's setting, 0 for not at all, infinity for always. `session`: the session in which
    what is asked and answered is kept; empty for none; None where the model is asked for no answer."""

    model: str
    kind: Kind = "text"
    context_tok: int | None = None
    keep_alive_s: float | None = None
    session: str | None = ""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Lease:
    """The right to ask a loaded model one thing. `load_s`: how long it had to be waited for. `release` gives the right
    back; calling it twice is harmless."""

    engine: Engine
    model: str
    load_s: float
    release: Callable[[], None] = field(default=_nothing, repr=False, compare=False)


@dataclass(frozen=True)
class Loaded:
    """One loaded model, for `ps` and the panel. `memory_bytes`: as planned; `resident_bytes`: as the system says.
    `busy`, `waiting`: requests. `expires_s`: seconds until it is unloaded, None for never."""

    model: str
    kind: Kind
    path: str
    build: str
    context_tok: int
    slots: int
    memory_bytes: int
    resident_bytes: int
    busy: int
    waiting: int
    expires_s: float | None
    pinned: bool
    state: State


@dataclass(frozen=True)
class PoolLimits:
    """`memory_bytes`: what all models together may take, None for what the machine has. `slots`: answers of one model
    at the same time, where memory allows. `queue`: requests that may wait, of all models. `keep_alive_s`: how long a
    model stays loaded after its last request, unless the request says. `stall_s`: how long a client may leave its
    answer unread. `files`: models that the administrator named by their path, which clients may name so, too."""

    memory_bytes: int | None = None
    slots: int = 4
    queue: int = 512
    keep_alive_s: float = 300.0
    stall_s: float = 60.0
    files: tuple[Path, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            memory_bytes=settings.serve_memory_bytes,
            slots=settings.serve_slots,
            queue=settings.serve_queue,
            keep_alive_s=settings.serve_keep_alive_s,
            stall_s=settings.serve_stall_s,
        )

    def __post_init__(self) -> None:
        if self.slots < 1 or self.queue < 0 or math.isnan(self.keep_alive_s):
            raise ValueError(f"limits of a pool: {self}")
