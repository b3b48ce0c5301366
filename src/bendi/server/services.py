"""What handlers may use. Made once, by `serving`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from bendi.chat.personas import PersonaBook
from bendi.chat.sessions import SessionStore
from bendi.server.keys import KeyRing
from bendi.server.metrics import Metrics
from bendi.server.pool import ModelPool
from bendi.server.pulls import Pulls
from bendi.server.stored_answers import StoredAnswers
from bendi.server.talking import Talking
from bendi.settings import Settings
from bendi.store import Store


@dataclass
class Phase:
    """What the server is doing: `starting` while it loads the models it was told to, `draining` once it shall end."""

    now: Literal["starting", "ready", "draining"] = "ready"


@dataclass(frozen=True)
class Services:
    """`stored`: answers of /v1/responses that clients may refer to later. `pulls`: downloads that run. `talking`: the
    sessions in which an answer is being written."""

    settings: Settings
    store: Store
    pool: ModelPool
    keys: KeyRing
    metrics: Metrics
    stored: StoredAnswers
    phase: Phase = field(default_factory=Phase)
    pulls: Pulls = field(default_factory=Pulls)
    talking: Talking = field(default_factory=Talking)

    @cached_property
    def sessions(self) -> SessionStore:
        """The conversations of this machine, the same that the terminal has. Opened when first asked for."""
        return SessionStore(self.settings.sessions_file)

    @property
    def personas(self) -> PersonaBook:
        """As their file says now."""
        return self.pool.personas

    def close(self) -> None:
        """Closes what was opened here."""
        self.stored.close()
        if "sessions" in vars(self):
            self.sessions.close()
