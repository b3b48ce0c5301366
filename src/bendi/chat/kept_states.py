"""What the engine has computed of sessions, kept on disk from one run to the next.

A session that is taken up again then begins to answer at once instead of computing all its messages again. Whatever
goes wrong here costs that time and nothing else: the messages themselves are in the session.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bendi.engines import Engine, StatefulEngine
from bendi.engines.kv_state import delete_state, saved_states
from bendi.errors import BendiError, StateUnusable, StoreError
from bendi.i18n import _

LEAST_TOK = 512
"""Fewer tokens are computed again before anybody notices."""


@dataclass(frozen=True)
class KeptStates:
    """The states in `folder`, `limit_bytes` of them at most. Engines must have been loaded with this `state_dir`."""

    folder: Path
    limit_bytes: int

    def take_up(self, engine: Engine, session_id: str) -> str:
        """Gives `engine`, which has just been loaded, what is kept of a session. Returns, for people, why that was not
        possible; empty when it was, and when nothing is kept. Raises EngineError when the engine ends of it."""
        if not isinstance(engine, StatefulEngine):
            return ""
        try:
            engine.restore_state(session_id)
        except StateUnusable as error:
            return "" if error.reason in ("missing", "disabled") else f"{error.message} {error.hint}"
        return ""

    def put_down(self, engine: Engine, session_id: str, used_tok: int) -> None:
        """Keeps what `engine` holds, `used_tok` tokens of a session, and removes the oldest others to make room."""
        if used_tok < LEAST_TOK or not isinstance(engine, StatefulEngine):
            return
        with suppress(BendiError):
            engine.save_state(session_id)
        with suppress(BendiError):
            self._make_room()

    def forget(self, session_ids: Iterable[str]) -> None:
        """Removes what is kept of sessions that are deleted. Raises StoreError, naming the file, when it cannot."""
        for session_id in session_ids:
            try:
                delete_state(self.folder, session_id)
            except StoreError as error:
                raise StoreError(
                    _("What was computed of a deleted session is still there: {error}").format(error=error.message),
                    hint=_("Delete that file yourself."),
                ) from error

    def _make_room(self) -> None:
        states = saved_states(self.folder)
        total_bytes = sum(state.size_bytes for state in states)
        for state in states:
            if total_bytes <= self.limit_bytes:
                return
            delete_state(self.folder, state.name)
            total_bytes -= state.size_bytes
