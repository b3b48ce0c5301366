"""Sessions that are not kept: the part of `SessionStore` that a conversation needs, in memory only (`--no-save`)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from bendi.chat.sessions import Kind, Session, State, StoredMessage
from bendi.messages import Message


class Sessions(Protocol):
    """What a conversation asks of a store; `SessionStore` and `MemorySessions` have it."""

    def get(self, session_id: str) -> Session: ...

    def change(self, session_id: str, **fields: Any) -> Session: ...

    def messages(self, session_id: str, *, superseded: bool = False) -> list[StoredMessage]: ...

    def append(
        self,
        session_id: str,
        message: Message,
        *,
        kind: Kind = "turn",
        state: State = "complete",
        details: Mapping[str, Any] | None = None,
    ) -> StoredMessage: ...

    def rewrite(
        self, stored: StoredMessage, message: Message, *, state: State, details: Mapping[str, Any] | None = None
    ) -> StoredMessage: ...

    def supersede(self, session_id: str, from_position: int) -> int: ...

    def images(self, stored: StoredMessage) -> tuple[bytes, ...]: ...


class MemorySessions:
    """Nothing of it reaches a disk."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._messages: dict[str, list[StoredMessage]] = {}

    def create(self, model: str, *, persona: str = "", settings: Mapping[str, Any] | None = None) -> Session:
        now_s = time.time()
        session = Session("", "", model, persona, dict(settings or {}), now_s, now_s)
        self._sessions[session.id] = session
        self._messages[session.id] = []
        return session

    def get(self, session_id: str) -> Session:
        return self._sessions[session_id]

    def change(self, session_id: str, **fields: Any) -> Session:
        self._sessions[session_id] = replace(self._sessions[session_id], **fields)
        return self._sessions[session_id]

    def messages(self, session_id: str, *, superseded: bool = False) -> list[StoredMessage]:
        return [stored for stored in self._messages[session_id] if superseded or not stored.superseded]

    def append(
        self,
        session_id: str,
        message: Message,
        *,
        kind: Kind = "turn",
        state: State = "complete",
        details: Mapping[str, Any] | None = None,
    ) -> StoredMessage:
        number = len(self._messages[session_id]) + 1
        stored = StoredMessage(
            number, session_id, number, message, kind, state, details=details or {}, created_s=time.time()
        )
        self._messages[session_id].append(stored)
        return stored

    def rewrite(
        self, stored: StoredMessage, message: Message, *, state: State, details: Mapping[str, Any] | None = None
    ) -> StoredMessage:
        new = replace(stored, message=message, state=state, details=stored.details if details is None else details)
        self._messages[stored.session_id][stored.position - 1] = new
        return new

    def supersede(self, session_id: str, from_position: int) -> int:
        messages = self._messages[session_id]
        taken = [stored for stored in messages if stored.position >= from_position and not stored.superseded]
        for stored in taken:
            messages[stored.position - 1] = replace(stored, superseded=True)
        return len(taken)

    def images(self, stored: StoredMessage) -> tuple[bytes, ...]:
        return stored.message.images
