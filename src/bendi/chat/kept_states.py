"""What the engine has computed of sessions, kept on disk from one run to the next.

A session that is taken up again then begins to answer at once instead of computing all its messages again. Whatever
goes wrong here costs that time and nothing else: the messages themselves are in the session.

A server keeps the slots of a model, whatever they hold, under names that begin with `slots-`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bendi.engines import Engine, EngineInfo, StatefulEngine
from bendi.engines.kv_state import delete_state, saved_states
from bendi.errors import BendiError, EngineError, StateUnusable, StoreError
from bendi.i18n import _

LEAST_TOK = 512
"""Fewer tokens are computed again before anybody notices."""
_SLOTS = "slots-"


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

    def take_up_slots(self, engine: Engine) -> None:
        """Gives the slots of `engine`, which has just been loaded, what `put_down_slots` kept of them. Raises
        EngineError when the engine ends of it; it will not be given the same again."""
        if not isinstance(engine, StatefulEngine):
            return
        for slot, name in enumerate(_slot_names(engine.info)):
            try:
                engine.restore_state(name, slot)
            except StateUnusable:
                continue
            except EngineError:
                delete_state(self.folder, name)
                raise

    def put_down_slots(self, engine: Engine) -> None:
        """Keeps what the slots of `engine` hold; nobody may be using it."""
        if not isinstance(engine, StatefulEngine):
            return
        for slot, name in enumerate(_slot_names(engine.info)):
            with suppress(BendiError):
                if engine.save_state(name, slot).cached_tok < LEAST_TOK:
                    delete_state(self.folder, name)
        with suppress(BendiError):
            self._make_room()

    def forget(self, session_ids: Iterable[str]) -> None:
        """Removes what is kept of sessions that are deleted, and of slots, which may hold some of them, too. Raises
        StoreError, naming the file, when it cannot."""
        slots = [state.name for state in saved_states(self.folder) if state.name.startswith(_SLOTS)]
        for session_id in (*session_ids, *slots):
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


def _slot_names(info: EngineInfo) -> list[str]:
    """For the slots of a model. The same file with other contents is noticed when a state is to be used."""
    digest = hashlib.sha256(str(info.model_path.absolute()).encode()).hexdigest()[:24]
    return [f"{_SLOTS}{digest}-{slot}" for slot in range(info.slots)]
