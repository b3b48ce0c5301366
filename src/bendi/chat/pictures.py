"""Images of conversations: files beside the database, in a folder for each session, named by what is in them.

They are not in the database, since every change of a message would write them again, into its journal and its copies.
A file is on disk before the message that shows it is, and goes with its session.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from bendi.chat.durable import PRIVATE_FOLDER, write_durably
from bendi.errors import DataError
from bendi.i18n import _

_NAME = re.compile(r"[0-9a-f]{64}")
_SESSION = re.compile(r"[a-z0-9]{1,64}")
_ORPHAN_S = 3600.0
"""Another process may be about to store the message that a file belongs to, but not for as long as this."""


def image_name(image: bytes) -> str:
    """The SHA-256 of the file."""
    return hashlib.sha256(image).hexdigest()


class Pictures:
    """All of one database. Raises DataError when files cannot be written or read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, session_id: str, images: Sequence[bytes]) -> tuple[str, ...]:
        """Their names, once they are on disk."""
        return tuple(self._kept(session_id, image) for image in images)

    def read(self, session_id: str, name: str) -> bytes:
        """The image, which is the one that was kept."""
        try:
            content = self._path(session_id, name).read_bytes()
        except (OSError, ValueError) as error:
            raise _lost(name, str(error)) from error
        if image_name(content) != name:
            raise _lost(name, _("the file was changed"))
        return content

    def forget(self, session_ids: Iterable[str]) -> None:
        """Deletes all of these sessions."""
        for session_id in session_ids:
            folder = self._folder / session_id
            if _SESSION.fullmatch(session_id) and folder.is_dir():
                try:
                    shutil.rmtree(folder)
                except OSError as error:
                    raise DataError(
                        _("The images of the session {id} cannot be deleted: {error}").format(
                            id=session_id, error=error
                        ),
                        hint=_("Delete the folder {path} yourself.").format(path=folder),
                    ) from error

    def sweep(self, known: Callable[[], Iterable[str]]) -> None:
        """Deletes what belongs to no session that is `known`: a process was killed between two steps."""
        oldest_s = time.time() - _ORPHAN_S
        with suppress(OSError, DataError):
            old = [folder.name for folder in self._folder.iterdir() if folder.stat().st_mtime < oldest_s]
            if old:
                self.forget(set(old).difference(known()))

    def _kept(self, session_id: str, image: bytes) -> str:
        name = image_name(image)
        path = self._path(session_id, name)
        try:
            if not path.is_file():
                self._folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
                write_durably(path, image)
        except OSError as error:
            raise DataError(
                _("The image cannot be stored in {path}: {error}").format(path=path.parent, error=error),
                hint=_("Check the free space and the permissions of that folder."),
            ) from error
        return name

    def _path(self, session_id: str, name: str) -> Path:
        """Raises ValueError for what is no name: it may come from a damaged database."""
        if not _NAME.fullmatch(name) or not _SESSION.fullmatch(session_id):
            raise ValueError(name)
        return self._folder / session_id / name


def _lost(name: str, why: str) -> DataError:
    return DataError(
        _("An image of this conversation is lost ({name}): {why}").format(name=name[:12], why=why),
        hint=_("Edit the question that showed it, or take it back with /undo."),
    )
