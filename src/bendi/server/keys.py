"""Keys: who may use the server, and for what. Only hashes are kept."""

from __future__ import annotations

from pathlib import Path

from bendi.server.access import Caller


class KeyRing:
    """The keys of this server. With none, everybody on this machine may do everything, and nobody else can connect."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def empty(self) -> bool:
        raise NotImplementedError

    def caller(self, key: str) -> Caller | None:
        """Whose key it is; None for a wrong one."""
        raise NotImplementedError
