"""What handlers may use. Made once, by `serving`."""

from __future__ import annotations

from dataclasses import dataclass

from bendi.server.keys import KeyRing
from bendi.server.metrics import Metrics
from bendi.server.pool import ModelPool
from bendi.server.stored_answers import StoredAnswers
from bendi.settings import Settings
from bendi.store import Store


@dataclass(frozen=True)
class Services:
    """`stored`: answers of /v1/responses that clients may refer to later."""

    settings: Settings
    store: Store
    pool: ModelPool
    keys: KeyRing
    metrics: Metrics
    stored: StoredAnswers
