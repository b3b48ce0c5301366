"""What models hold of conversations when they are unloaded, given back to them when they are loaded again.

Only where bendi has the conversations on disk anyway: what programs send stays in memory, unless the settings say
otherwise (`serve_keep_prompts`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import closing

from bendi.chat.kept_states import KeptStates
from bendi.chat.sessions import SessionStore
from bendi.engines import Engine
from bendi.errors import BendiError
from bendi.server.pool_load import is_alive
from bendi.settings import Settings


class KeptSlots:
    """Blocks: to be called in threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._states = KeptStates(settings.kept_states_dir, settings.kept_states_bytes)

    def take_up(self, engine: Engine) -> None:
        """To be called when `engine` has been loaded. Raises EngineError when it ends of it."""
        if self._settings.kept_states_bytes:
            self._states.take_up_slots(engine)

    def put_down(self, engine: Engine, sessions: Collection[str] | None) -> None:
        """To be called when nobody uses `engine` any more. `sessions`: in which all that was asked of it is; None when
        something is in none. What was deleted meanwhile is not kept."""
        if not self._settings.kept_states_bytes or not is_alive(engine):
            return
        # Where nothing was asked there is nothing to keep, and no file to be opened.
        if self._settings.serve_keep_prompts or (sessions and self._are_there(sessions)):
            self._states.put_down_slots(engine)

    def _are_there(self, sessions: Iterable[str]) -> bool:
        try:
            with closing(SessionStore(self._settings.sessions_file)) as store:
                for session_id in sessions:
                    store.get(session_id)
        except BendiError:
            return False
        return True
