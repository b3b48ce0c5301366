"""How many pieces an answer may come in: each costs work, however small it is."""

from __future__ import annotations

from bendi.errors import DownloadError
from bendi.i18n import _
from bendi.units import KIB, format_size

_FREE_PIECES = 4096
_LEAST_PIECE_BYTES = KIB
"""A packet holds more."""


class Pieces:
    """Counts the pieces in which something arrives. `received_bytes`: what came so far."""

    def __init__(self) -> None:
        self.received_bytes = 0
        self._count = 0

    def take(self, size_bytes: int, host: str) -> None:
        """Counts one piece. Raises DownloadError when `host` sends so little at a time that receiving it all would
        keep this machine busy for long."""
        self._count += 1
        self.received_bytes += size_bytes
        if self._count > _FREE_PIECES + self.received_bytes // _LEAST_PIECE_BYTES:
            raise DownloadError(
                _("{host} sends a few bytes at a time: {size} in {count} pieces").format(
                    host=host, size=format_size(self.received_bytes), count=self._count
                ),
                hint=_("A proxy may be in between. Use another source of the same model."),
            )
