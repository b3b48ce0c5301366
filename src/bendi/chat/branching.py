"""A second session that begins as another one did, so that both ways stay open."""

from __future__ import annotations

from dataclasses import replace

from bendi.chat.sessions import Session, SessionStore


def branch(sessions: SessionStore, session: Session, before_position: int) -> Session:
    """A new session of the same owner with the messages in force before `before_position`; the old one stays as it is.

    Raises NotFoundError, DataError.
    """
    new = sessions.create(
        session.model, persona=session.persona, settings=session.settings, owner=session.owner
    )  # fmt: skip
    sessions.change(new.id, title=session.title)
    moved = {0: 0}
    for stored in sessions.messages(session.id):
        if stored.position >= before_position:
            break
        details = dict(stored.details)
        if stored.kind == "summary":
            covered = int(details.get("covers_to", 0))
            details["covers_to"] = moved[max(position for position in moved if position <= covered)]
        message = replace(stored.message, images=sessions.images(stored))
        copy = sessions.append(new.id, message, kind=stored.kind, state=stored.state, details=details)
        moved[stored.position] = copy.position
    return sessions.get(new.id)
