"""Sessions: conversations on disk, in order of use, that can be searched, resumed and deleted for good.

    with contextlib.closing(SessionStore(settings.sessions_file)) as store:
        session = store.create(model="demo")
        store.append(session.id, Message("user", "hi"))

Every method that writes returns when the change is on disk (see `database`). Nothing is removed but by `delete`:
what was taken back stays, marked as superseded.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from bendi.chat.database import Database
from bendi.chat.journal import Change
from bendi.chat.pictures import Pictures
from bendi.chat.recovery import damaged_files
from bendi.errors import DataError, NotFoundError, UsageError
from bendi.i18n import _
from bendi.messages import Message, Role, ToolCall

Kind = Literal["turn", "summary"]
State = Literal["complete", "partial"]

_ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # 32 characters that are not mistaken for one another
_ID_CHARS = 12  # 60 bits: nobody guesses an id
_SHORTEST_PREFIX = 3
_TITLE_CHARS = 60
_TRIGRAM = 3
_MOST_DRAFTS = 64
"""Of one owner: what was begun and never said anything is not kept for ever."""


@dataclass(frozen=True)
class Session:
    """`settings`: what `/set` and `/system` changed (see `conversation`). `messages`: how many are in force. `owner`:
    the name of the server's key that it belongs to; empty for whoever sits at this machine."""

    id: str
    title: str
    model: str
    persona: str
    settings: Mapping[str, Any]
    created_s: float
    updated_s: float
    messages: int = 0
    owner: str = ""


@dataclass(frozen=True)
class StoredMessage:
    """`position`: its place in the session, increasing. `state` "partial": the answer was interrupted.

    `kind` "summary": a note of role `system` that stands for the messages up to `details["covers_to"]`.
    `details`: usage, timings and the like, as JSON values. `images`: names of those that it shows, whose bytes are only
    in `SessionStore.images`, and in the message itself where nothing is stored on disk.
    """

    id: int
    session_id: str
    position: int
    message: Message
    kind: Kind = "turn"
    state: State = "complete"
    superseded: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    created_s: float = 0.0
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hit:
    """A session that was found; `excerpt`: the text around the match, empty where the title matched."""

    session: Session
    role: str
    excerpt: str


class SessionStore:
    """All sessions of one database file. Safe to use from several threads and processes.

    `pictures`: the images of its messages. Raises DataError when the file cannot be read or written; a damaged one is
    restored first, and `notices` says so.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
        self.pictures = Pictures(path.with_name(f"{path.stem}-images"))
        self._drafts: dict[str, Session] = {}  # created, but without a message yet
        self.notices: Sequence[str] = self._database.notices
        if not damaged_files(path):  # what a repair could not bring back may yet be found
            self.pictures.sweep(lambda: [row["id"] for row in self._database.read("SELECT id FROM sessions", ())])

    def close(self) -> None:
        self._database.close()

    def create(
        self, model: str, *, persona: str = "", settings: Mapping[str, Any] | None = None, owner: str = ""
    ) -> Session:
        """A new session. It is on disk from its first message on: one without any is not worth keeping, and forgotten
        when too many others were begun after it."""
        now_s = time.time()
        session_id = "".join(secrets.choice(_ID_ALPHABET) for _number in range(_ID_CHARS))
        session = Session(
            session_id, "", _clean(model), _clean(persona), dict(settings or {}), now_s, now_s, owner=_clean(owner)
        )
        own = [draft.id for draft in list(self._drafts.values()) if draft.owner == session.owner]
        for forgotten in own[: max(len(own) + 1 - _MOST_DRAFTS, 0)]:
            self._drafts.pop(forgotten, None)
        self._drafts[session_id] = session
        return session

    def get(self, session_id: str) -> Session:
        """The session with exactly this id. Raises NotFoundError."""
        if session_id in self._drafts:
            return self._drafts[session_id]
        rows = self._database.read(f"{_SESSIONS} WHERE s.id = ? GROUP BY s.id", (_clean(session_id),))
        if not rows:
            raise _not_found(session_id)
        return _session(rows[0])

    def find(self, prefix: str) -> Session:
        """The session whose id starts with `prefix`, of three characters at least: for people who type.

        Raises NotFoundError; UsageError when several match.
        """
        wanted = prefix.strip().lower()
        if len(wanted) < _SHORTEST_PREFIX or not set(wanted) <= set(_ID_ALPHABET):
            raise _not_found(prefix)
        rows = self._database.read(f"{_SESSIONS} WHERE s.id LIKE ? GROUP BY s.id LIMIT 5", (wanted + "%",))
        if not rows:
            raise _not_found(prefix)
        if len(rows) > 1:
            raise UsageError(
                _("several sessions start with {id!r}: {ids}").format(
                    id=prefix, ids=", ".join(row["id"] for row in rows)
                ),
                hint=_("Type more characters of the one you mean."),
            )
        return _session(rows[0])

    def recent(self, limit: int | None = None, *, owner: str | None = None) -> list[Session]:
        """Sessions, the one with the newest message first, whatever the clock says. `owner`: only theirs; None: all."""
        rows = self._database.read(
            f"{_SESSIONS} WHERE {_OWNED} GROUP BY s.id ORDER BY {_BY_USE} LIMIT ?",
            (owner, owner, -1 if limit is None else limit),
        )
        return [_session(row) for row in rows]

    def search(self, query: str, limit: int = 50, *, owner: str | None = None) -> list[Hit]:
        """Messages in force, and titles, that contain every word of `query`; the newest first.

        Letters match regardless of case. Chinese needs no spaces: a word matches anywhere inside a text. `owner`: as
        for `recent`.
        """
        words = _clean(query).replace("\0", " ").split()
        if not words:
            return []
        if self._database.indexed and all(len(word) >= _TRIGRAM for word in words):
            phrases = " AND ".join('"' + word.replace('"', '""') + '"' for word in words)
            where = "m.id IN (SELECT rowid FROM messages_index WHERE messages_index MATCH ?)"
            values: list[str | int | None] = [phrases]
        else:
            where = " AND ".join(["m.content LIKE ? ESCAPE '\\'"] * len(words))
            values = [_pattern(word) for word in words]
        rows = self._database.read(
            "SELECT m.session, m.role, m.content FROM messages m JOIN sessions s ON s.id = m.session"
            f" WHERE m.superseded = 0 AND {where} AND {_OWNED} ORDER BY m.id DESC LIMIT ?",
            [*values, owner, owner, limit],
        )
        hits = [Hit(self.get(row["session"]), row["role"], _excerpt(row["content"], words)) for row in rows]
        titles = " AND ".join(["s.title LIKE ? ESCAPE '\\'"] * len(words))
        rows = self._database.read(
            f"{_SESSIONS} WHERE {titles} AND {_OWNED} GROUP BY s.id ORDER BY {_BY_USE} LIMIT ?",
            [*(_pattern(word) for word in words), owner, owner, limit],
        )
        found = {hit.session.id for hit in hits}
        return (hits + [Hit(_session(row), "", "") for row in rows if row["id"] not in found])[:limit]

    def change(self, session_id: str, **fields: Any) -> Session:
        """Sets some of `title`, `model`, `persona`, `settings`."""
        if session_id in self._drafts:
            self._drafts[session_id] = replace(self._drafts[session_id], **fields)
            return self._drafts[session_id]
        values = {name: _json(value) if name == "settings" else _clean(value) for name, value in fields.items()}
        self._database.write(lambda connection: Change(rows=(_touched(_found_row(connection, session_id), values),)))
        return self.get(session_id)

    def messages(self, session_id: str, *, superseded: bool = False) -> list[StoredMessage]:
        """In order; with `superseded` also those that were taken back."""
        rows = self._database.read(
            "SELECT * FROM messages WHERE session = ? AND superseded <= ? ORDER BY position",
            (session_id, int(superseded)),
        )
        return [_stored(row) for row in rows]

    def append(
        self,
        session_id: str,
        message: Message,
        *,
        kind: Kind = "turn",
        state: State = "complete",
        details: Mapping[str, Any] | None = None,
    ) -> StoredMessage:
        """Adds a message at the end. The first question of a session without title becomes its title."""
        made: list[StoredMessage] = []
        images = self.pictures.keep(session_id, message.images)
        message = replace(message, images=())

        def build(connection: sqlite3.Connection) -> Change:
            last_id = connection.execute("SELECT coalesce(max(id), 0) FROM messages").fetchone()[0]
            last_position = connection.execute(
                "SELECT coalesce(max(position), 0) FROM messages WHERE session = ?", (session_id,)
            ).fetchone()[0]
            stored = StoredMessage(
                last_id + 1, session_id, last_position + 1, message, kind, state, False, details or {}, time.time(),
                images,
            )  # fmt: skip
            made.append(stored)
            title = _title(message.content) if message.role == "user" else ""
            row = _found_row(connection, session_id, self._drafts.get(session_id))
            return Change(rows=(_touched(row, title=title), ("messages", _message_row(stored))))

        try:
            self._database.write(build)
        except NotFoundError:
            self.pictures.forget([session_id])
            raise
        self._drafts.pop(session_id, None)
        return made[-1]

    def images(self, stored: StoredMessage) -> tuple[bytes, ...]:
        """What a message shows. Raises DataError when one of its images is lost."""
        return tuple(self.pictures.read(stored.session_id, name) for name in stored.images)

    def rewrite(
        self, stored: StoredMessage, message: Message, *, state: State, details: Mapping[str, Any] | None = None
    ) -> StoredMessage:
        """Replaces the content of a message that is still being written."""
        new = replace(stored, message=message, state=state, details=stored.details if details is None else details)
        row = _message_row(new)
        self._database.write(
            lambda connection: Change(rows=(_touched(_found_row(connection, new.session_id)), ("messages", row)))
        )
        return new

    def supersede(self, session_id: str, from_position: int) -> int:
        """Takes back every message from `from_position` on; returns how many."""
        count = [0]

        def build(connection: sqlite3.Connection) -> Change:
            rows = connection.execute(
                "SELECT * FROM messages WHERE session = ? AND position >= ? AND superseded = 0",
                (session_id, from_position),
            ).fetchall()
            count[0] = len(rows)
            changed = [("messages", {**dict(row), "superseded": 1}) for row in rows]
            return Change(rows=(_touched(_found_row(connection, session_id)), *changed))

        self._database.write(build)
        return count[0]

    def delete(self, session_ids: Sequence[str]) -> bool:
        """Deletes sessions for good, with their images: their text is in none of the files any more, also not in the
        copies.

        False when another process reads at this moment: the bytes are then removed at the next start.
        """
        ids = tuple(session_ids)
        for session_id in ids:
            self._drafts.pop(session_id, None)
        self._database.write(lambda _connection: Change(delete=ids))
        self.pictures.forget(ids)
        return self._database.purge()

    def recent_prompts(self, limit: int = 500) -> list[str]:
        """What the user of this machine wrote last, oldest first, for the arrow keys."""
        rows = self._database.read(
            "SELECT m.content FROM messages m JOIN sessions s ON s.id = m.session WHERE s.owner = '' AND"
            " m.role = 'user' AND m.kind = 'turn' AND length(m.content) < 4000 ORDER BY m.id DESC LIMIT ?",
            (limit,),
        )
        return [row["content"] for row in reversed(rows)]


_OWNED = "(? IS NULL OR s.owner = ?)"
_BY_USE = "(SELECT max(id) FROM messages WHERE session = s.id) DESC, s.updated_s DESC, s.rowid DESC"
_SESSIONS = (
    "SELECT s.*, count(m.id) AS messages FROM sessions s"
    " LEFT JOIN messages m ON m.session = s.id AND m.superseded = 0 AND m.kind = 'turn'"
)


def _not_found(session_id: str) -> NotFoundError:
    return NotFoundError(
        _("there is no session {id!r}").format(id=session_id), hint=_("`bendi session list` shows them.")
    )


def _session(row: sqlite3.Row) -> Session:
    return Session(
        row["id"], row["title"], row["model"], row["persona"], _parsed(row["settings"]), row["created_s"],
        row["updated_s"], row["messages"], row["owner"],
    )  # fmt: skip


def _session_row(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "title": session.title,
        "model": session.model,
        "persona": session.persona,
        "settings": _json(session.settings),
        "created_s": session.created_s,
        "updated_s": session.updated_s,
        "owner": session.owner,
    }


def _found_row(connection: sqlite3.Connection, session_id: str, draft: Session | None = None) -> dict[str, Any]:
    found = connection.execute("SELECT * FROM sessions WHERE id = ?", (session_id,)).fetchone()
    if found is not None:
        return dict(found)
    if draft is not None:
        return _session_row(draft)
    raise NotFoundError(
        _("the session {id} has been deleted").format(id=session_id),
        hint=_("`bendi session list` shows the others."),
    )


def _touched(
    row: Mapping[str, Any], values: Mapping[str, str] | None = None, *, title: str = ""
) -> tuple[str, dict[str, Any]]:
    """A session's row as used just now."""
    changed = {"title": row["title"] or title, "updated_s": max(time.time(), row["updated_s"])}
    return "sessions", {**row, **changed, **(values or {})}


def _stored(row: sqlite3.Row) -> StoredMessage:
    extra = _parsed(row["extra"])
    calls = tuple(ToolCall(**call) for call in extra.pop("tool_calls", ()))
    message = Message(
        cast(Role, row["role"]), row["content"], row["reasoning"], calls, str(extra.pop("tool_call_id", ""))
    )
    images = tuple(map(str, extra.pop("images", ())))
    return StoredMessage(
        row["id"], row["session"], row["position"], message, row["kind"], row["state"], bool(row["superseded"]), extra,
        row["created_s"], images,
    )  # fmt: skip


def _message_row(stored: StoredMessage) -> dict[str, Any]:
    message = stored.message
    extra = dict(stored.details)
    if message.tool_calls:
        extra["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls
        ]
    if message.tool_call_id:
        extra["tool_call_id"] = message.tool_call_id
    if stored.images:
        extra["images"] = list(stored.images)
    return {
        "id": stored.id,
        "session": stored.session_id,
        "position": stored.position,
        "role": message.role,
        "kind": stored.kind,
        "state": stored.state,
        "superseded": int(stored.superseded),
        "content": _clean(message.content),
        "reasoning": _clean(message.reasoning),
        "extra": _json(extra),
        "created_s": stored.created_s,
    }


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DataError(
            _("A session in the database is damaged: {text!r}").format(text=text[:80]),
            hint=_("`bendi session list` shows the others; `bendi session rm` deletes it."),
        )
    return value


def _json(value: Mapping[str, Any]) -> str:
    return _clean(json.dumps(dict(value), ensure_ascii=False))


def _clean(text: str) -> str:
    """Without lone surrogates (undecodable bytes of a command line), which no file can hold."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _title(text: str) -> str:
    """The first line, as a label; the message itself is stored whole."""
    line = next((line.strip() for line in _clean(text).splitlines() if line.strip()), "")
    return line if len(line) <= _TITLE_CHARS else line[: _TITLE_CHARS - 1] + "…"


def _pattern(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _excerpt(text: str, words: Sequence[str], around: int = 40) -> str:
    """One line of text around the first word that matches."""
    lower = text.lower()
    starts = [at for word in words if (at := lower.find(word.lower())) >= 0]
    start = max(min(starts, default=0) - around, 0)
    end = start + 2 * around
    piece = " ".join(text[start:end].split())
    return ("…" if start else "") + piece + ("…" if end < len(text) else "")
