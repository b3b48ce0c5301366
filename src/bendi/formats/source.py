"""Where the bytes of a model file come from: a file on disk, or memory. Readers ask for ranges, never for the whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Protocol

from bendi.errors import ModelFileError, NotFoundError
from bendi.i18n import _


class ByteSource(Protocol):
    """Bytes that can be read in ranges: a file, memory, or a remote file read with HTTP ranges.

    Readers go forwards in steps of about 1 MiB, and over the vocabulary a second time: a slow source should remember.
    """

    @property
    def size_bytes(self) -> int:
        """The size of the whole."""

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """The bytes from `offset`; fewer than `size_bytes` only at the end.

        Raises a BendiError when they cannot be read.
        """


class MemorySource:
    """Bytes that are in memory already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size_bytes(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        return self._data[offset : offset + size_bytes]


class FileSource:
    """A regular file, open as long as the `with` block lasts.

    Raises NotFoundError when there is none at `path`, ModelFileError when it is something else or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Without O_NONBLOCK, opening a named pipe that nobody writes to would wait for ever.
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            descriptor = os.open(path, flags)
        except FileNotFoundError as error:
            raise NotFoundError(
                _("There is no file {path}.").format(path=path),
                hint=_("`bendi list` shows the models on this machine."),
            ) from error
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise ModelFileError(
                _("{path} is not a regular file.").format(path=path), hint=_("Give the path of a .gguf file.")
            )
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self._size_bytes = status.st_size

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        try:
            self._file.seek(offset)
            pieces = []
            while size_bytes > 0 and (piece := self._file.read(size_bytes)):
                pieces.append(piece)
                size_bytes -= len(piece)
        except (OSError, ValueError, OverflowError) as error:
            raise _unreadable(self._path, error) from error
        return b"".join(pieces)

    def __enter__(self) -> FileSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def _unreadable(path: Path, error: Exception) -> ModelFileError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ModelFileError(
        _("{path} cannot be read: {reason}.").format(path=path, reason=reason),
        hint=_("Check the permissions of the file and of its folder."),
    )
