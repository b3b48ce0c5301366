"""Keys: who may use the server, and for what. Only hashes are kept.

The file is written by `bendi key` only. A server reads it again when it has changed, and notes when keys were used in
a file of its own beside it: so it can never bring back a key that was removed meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bendi.chat.durable import write_durably
from bendi.errors import ConfigError, DataError, NotFoundError, UsageError
from bendi.i18n import _
from bendi.server.access import Caller, Scope
from bendi.store.lock import locked

PREFIX = "bendi-"
_SCOPES: dict[str, frozenset[Scope]] = {
    "infer": frozenset({"public", "infer"}),
    "admin": frozenset({"public", "infer", "admin"}),
}
SCOPES = tuple(_SCOPES)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_LONGEST_KEY = 256
_VERSION = 1


@dataclass(frozen=True)
class Key:
    """`digest`: SHA-256 of the key, in hex. Keys are random 256-bit numbers, so a fast hash without salt is enough:
    there is nothing to guess. `scope`: `infer` or `admin`. `requests_per_minute`: None for the server's setting.
    `used_s`: to within some minutes, None for never."""

    name: str
    digest: str
    scope: str
    requests_per_minute: int | None
    created_s: float
    used_s: float | None = None

    @property
    def caller(self) -> Caller:
        return Caller(owner=self.name, scopes=_SCOPES[self.scope])


class KeyRing:
    """The keys of this server. With none, everybody on this machine may do everything, and nobody else can connect.

    Thread safe. A file that cannot be read opens nothing: then no key is right, and `empty` is False.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._used_path = path.with_name(f"{path.stem}-used{path.suffix}")
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()
        self._broken = False
        self._used: dict[str, float] = {}
        self._own: tuple[Key, ...] = ()

    def own_key(self) -> str:
        """A key with all rights for this machine's own verbs: it is in no file of keys, and ends with this process."""
        key = PREFIX + secrets.token_urlsafe(32)
        self._own = (Key("bendi", _digest(key), "admin", None, time.time()),)
        return key

    @property
    def empty(self) -> bool:
        keys = self._current()
        return not keys and not self._broken

    def caller(self, key: str) -> Caller | None:
        """Whose key it is; None for a wrong one."""
        found = self.find(key)
        return found.caller if found else None

    def find(self, key: str) -> Key | None:
        """The key that was presented; None for a wrong one. How long it takes says nothing about the keys."""
        if len(key) > _LONGEST_KEY or not key.isascii():
            return None
        digest = _digest(key)
        found = None
        for candidate in (*self._current(), *self._own):
            if hmac.compare_digest(candidate.digest, digest):
                found = candidate
        if found and found not in self._own:
            with self._lock:
                self._used[found.name] = time.time()
        return found

    def save_used(self) -> None:
        """Writes down when keys were last used: a server calls this every few minutes, so no request waits for it."""
        with self._lock:
            used, self._used = self._used, {}
        if used:
            with contextlib.suppress(OSError):  # a convenience: nobody is refused because it cannot be kept
                write_durably(self._used_path, json.dumps({**_read_used(self._used_path), **used}).encode())

    def all(self) -> list[Key]:
        """In the order in which they were made. Raises ConfigError when the file cannot be used."""
        used = _read_used(self._used_path)
        return [Key(**{**vars(key), "used_s": used.get(key.name)}) for key in _read(self.path)]

    def add(self, name: str, scope: str = "infer", requests_per_minute: int | None = None) -> str:
        """Makes a key and returns it: this is the only time that anybody sees it. Raises UsageError, ConfigError when
        the file cannot be used, DataError when it cannot be written."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                _("A key cannot be called {name!r}.").format(name=name[:80]),
                hint=_("Names have 1 to 64 letters, digits, dots, dashes and underscores."),
            )
        if scope not in _SCOPES:
            raise UsageError(_("There is no scope {scope!r}.").format(scope=scope))
        key = PREFIX + secrets.token_urlsafe(32)
        with self._changing():
            keys = _read(self.path)
            if any(existing.name == name for existing in keys):
                raise UsageError(
                    _("There is a key called {name} already.").format(name=name),
                    hint=_("Choose another name, or remove it first: {command}").format(command=f"bendi key rm {name}"),
                )
            self._write((*keys, Key(name, _digest(key), scope, requests_per_minute, time.time())))
        return key

    def remove(self, name: str) -> None:
        """From then on it opens nothing, also in servers that run. Raises NotFoundError, else as `add`."""
        with self._changing():
            keys = _read(self.path)
            kept = tuple(key for key in keys if key.name != name)
            if len(kept) == len(keys):
                raise NotFoundError(
                    _("There is no key called {name!r}.").format(name=name),
                    hint=_("`bendi key list` shows them."),
                )
            self._write(kept)

    def _changing(self) -> Any:
        return locked(self.path.with_suffix(".lock"))

    def _write(self, keys: Iterable[Key]) -> None:
        rows = [{name: value for name, value in vars(key).items() if name != "used_s"} for key in keys]
        text = json.dumps({"version": _VERSION, "keys": rows}, indent=1)
        try:
            write_durably(self.path, text.encode())
        except OSError as error:
            raise DataError(_("{path} cannot be written: {error}").format(path=self.path, error=error)) from error

    def _current(self) -> tuple[Key, ...]:
        with self._lock:
            try:
                found = self.path.stat()
                stamp: tuple[int, int, int] | None = (found.st_mtime_ns, found.st_size, found.st_ino)
            except FileNotFoundError:
                stamp = None
            except OSError:
                self._stamp, self._keys, self._broken = (0, 0, 0), (), True
                return ()
            if stamp != self._stamp:
                try:
                    self._keys, self._broken = _read(self.path), False
                except ConfigError:
                    self._keys, self._broken = (), True
                self._stamp = stamp
            return self._keys


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("ascii")).hexdigest()


def _read(path: Path) -> tuple[Key, ...]:
    try:
        document = json.loads(path.read_bytes())
        if document["version"] != _VERSION:
            raise ValueError(document["version"])
        return tuple(_key(row) for row in document["keys"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            _("The keys in {path} cannot be read: {error}").format(path=path, error=error),
            hint=_("No key is accepted until this file is mended or moved away."),
        ) from error


def _key(row: Any) -> Key:
    limit = row["requests_per_minute"]
    key = Key(str(row["name"]), str(row["digest"]), str(row["scope"]), limit, float(row["created_s"]))
    right = _NAME.fullmatch(key.name) and _HASH.fullmatch(key.digest) and key.scope in _SCOPES
    if not right or not (limit is None or (isinstance(limit, int) and limit > 0)):
        raise ValueError(key.name)
    return key


def _read_used(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_bytes())
        return {str(name): float(when_s) for name, when_s in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
