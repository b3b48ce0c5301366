"""States of conversations on disk: what the engine has computed of one, so that it need not be computed again.

A state is two files: `NAME.kv`, in the engine's own format, and `NAME.json`, what it was made with and its hash. The
engine parses the first in C++ without much suspicion, so it is given only what it wrote itself: everything is verified
before, and what cannot be verified is refused. The conversation's text is elsewhere: a refused state costs time only.

The engine never sees the folder: it works in one of its own beside the states, where a state is linked for reading and
from where a new one is moved when it is whole. The state holds the conversation: nobody else may read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bendi.engines.prepare import Prepared
from bendi.engines.protocol import LoadRequest, StateInfo
from bendi.engines.transport import WorkerRefused
from bendi.errors import ModelFileError, StateUnusable, StoreError
from bendi.formats import GgufFile
from bendi.i18n import _
from bendi.planner import memory_facts
from bendi.store.disk import hash_file, require_space, store_error, sync_folder
from bendi.units import GIB

SCHEMA = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_STATE, _FACTS = ".kv", ".json"
_MOST_FACTS_BYTES = 65536
_RESERVE_BYTES = GIB
_SAMPLE_BYTES = 4096

Write = Callable[[str], tuple[int, int]]
Read = Callable[[str], int]


@dataclass(frozen=True)
class StateFacts:
    """What a state was made with, and what it is. Two engines with the same first seven can exchange states.

    `model`: see `model_fingerprint`. `context_tok`: it decides how some models place their tokens.
    """

    schema: int
    engine: str
    model: str
    context_tok: int
    type_k: str
    type_v: str
    flash_attention: bool | None
    cached_tok: int = 0
    size_bytes: int = 0
    sha256: str = ""


class KvStates:
    """The states of `load.state_dir`, for one loaded model. `exchange`: the folder in it that the engine can use, if
    any. `ready`: what the worker said when it was: its build, and whether it keeps checkpoints in states."""

    def __init__(self, load: LoadRequest, prepared: Prepared, ready: Mapping[str, Any], exchange: Path | None) -> None:
        self._load = load
        self._prepared = prepared
        self._build = str(ready["build"])
        self._with_checkpoints = bool(ready["checkpoints_in_states"])
        self._exchange = exchange

    def save(self, name: str, write: Write) -> StateInfo:
        """`write` makes the engine write its state into an empty file of that name, and returns how many tokens and
        how many bytes it wrote. Raises StateUnusable."""
        exchange, started_s = self._check_possible(), time.monotonic()
        state, facts_path = state_paths(self._folder, name)
        temporary, temporary_facts = state_paths(exchange, secrets.token_hex(8))
        need = self._prepared.need
        try:
            most_bytes = need.kv_bytes + need.recurrent_state_bytes + need.checkpoint_bytes
            require_space(self._folder, most_bytes, _RESERVE_BYTES)
            # The engine overwrites it: so it may make no file, and nobody else can read this one from the first byte.
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            cached_tok, written_bytes = write(temporary.name)
            if not cached_tok:
                raise _unusable("empty", _("the engine holds no conversation"))
            _sync(temporary)
            size_bytes = temporary.stat().st_size
            if size_bytes != written_bytes:
                raise _unusable("unwritable", _("the disk is full"))
            sha256 = hash_file(temporary)
            facts = StateFacts(**self._expected, cached_tok=cached_tok, size_bytes=size_bytes, sha256=sha256)
            _write_facts(temporary_facts, facts)
            # Interrupted here, the hash of one is not that of the other.
            os.replace(temporary, state)
            os.replace(temporary_facts, facts_path)
        except (OSError, StoreError, WorkerRefused) as error:
            raise _unusable("unwritable", _in_words(error)) from error
        finally:
            _remove(temporary)
            _remove(temporary_facts)
        sync_folder(self._folder)
        return StateInfo(name, cached_tok, size_bytes, time.monotonic() - started_s)

    def restore(self, name: str, read: Read) -> StateInfo:
        """`read` makes the engine read the file of that name, and returns how many tokens it holds then. Raises
        StateUnusable."""
        exchange, started_s = self._check_possible(), time.monotonic()
        state, facts_path = state_paths(self._folder, name)
        facts = _read_facts(facts_path)
        self._check_made_for_us(facts)
        temporary, _unused = state_paths(exchange, secrets.token_hex(8))
        try:
            _link(state, temporary)
            _check_private(temporary)
            if temporary.stat().st_size != facts.size_bytes:
                raise _unusable("corrupt", _("it has another size than when it was written"))
            if hash_file(temporary) != facts.sha256:
                raise _unusable("corrupt", _("it has other contents than when it was written"))
            cached_tok = read(temporary.name)
        except FileNotFoundError as error:
            raise _unusable("missing", _("it does not exist")) from error
        except WorkerRefused as error:
            raise _unusable("refused", _in_words(error)) from error
        except (OSError, StoreError) as error:
            raise _unusable("unreadable", _in_words(error)) from error
        finally:
            _remove(temporary)
        if cached_tok != facts.cached_tok:
            raise _unusable("refused", _("the engine read something else in it"))
        return StateInfo(name, cached_tok, facts.size_bytes, time.monotonic() - started_s)

    @property
    def _folder(self) -> Path:
        assert self._exchange
        return self._exchange.parent

    @cached_property
    def _expected(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "engine": self._build,
            "model": self._fingerprint(),
            "context_tok": self._prepared.context_tok,
            "type_k": self._load.type_k,
            "type_v": self._load.type_v,
            "flash_attention": self._load.flash_attention,
        }

    def _fingerprint(self) -> str:
        try:
            # What lies there now must be what the engine has loaded.
            self._prepared.check_unchanged()
            return model_fingerprint(self._prepared.parts, self._prepared.headers)
        except (OSError, ModelFileError) as error:
            raise _unusable("model", _("the model's file was changed after it was loaded")) from error

    def _check_possible(self) -> Path:
        if self._exchange is None:
            raise _unusable("disabled", _("there is no folder for it"))
        if not self._with_checkpoints and any(
            layer.window for layer in memory_facts(*self._prepared.headers).cache_layers
        ):
            # Of a window, a state has exactly what the next token looks at. llama-server goes on from there only when
            # it has one token more (`pos_min_thold` in `tools/server/server-context.cpp`): it would compute all again.
            raise _unusable("window", _("this build of the engine would compute a model with windows again anyway"))
        return self._exchange

    def _check_made_for_us(self, facts: StateFacts) -> None:
        reasons = {
            "engine": _("it was made by another build of the engine"),
            "model": _("it was made with another model"),
            "context_tok": _("it was made with a context of another size"),
            "type_k": _("it was made with another KV type"),
            "type_v": _("it was made with another KV type"),
            "flash_attention": _("it was made with another setting of flash attention"),
        }
        for field, reason in reasons.items():
            if getattr(facts, field) != self._expected[field]:
                raise _unusable(field, reason)


@dataclass(frozen=True)
class SavedState:
    """A state in a folder, unverified. `saved_s`: when, in seconds since 1970."""

    name: str
    size_bytes: int
    saved_s: float


def saved_states(folder: Path) -> list[SavedState]:
    """The states in `folder`, oldest first, also halves of states; empty when it does not exist."""
    found: dict[str, SavedState] = {}
    with suppress(OSError):
        for path in folder.iterdir():
            if path.suffix not in (_STATE, _FACTS) or not _NAME.fullmatch(path.stem):
                continue
            with suppress(OSError):
                status = path.lstat()
                known = found.get(path.stem, SavedState(path.stem, 0, 0.0))
                size_bytes = known.size_bytes + status.st_size
                found[path.stem] = SavedState(path.stem, size_bytes, max(known.saved_s, status.st_mtime))
    return sorted(found.values(), key=lambda state: state.saved_s)


def delete_state(folder: Path, name: str) -> None:
    """Removes a state, if there is one. Raises StoreError when it cannot be removed, StateUnusable for a bad name."""
    for path in reversed(state_paths(folder, name)):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise store_error(error, path) from error


def state_paths(folder: Path, name: str) -> tuple[Path, Path]:
    """The files of a state: the engine's, and the one that tells of it. Raises StateUnusable for a name that is not
    1 to 100 letters, digits, `_` and `-`, beginning with a letter or digit."""
    if not _NAME.fullmatch(name):
        raise _unusable("name", _("{name!r} is no name for one").format(name=name))
    return folder / f"{name}{_STATE}", folder / f"{name}{_FACTS}"


def model_fingerprint(parts: Sequence[Path], headers: Sequence[GgufFile]) -> str:
    """The same for files with the same contents, wherever they are: from their headers, sizes and a sample of every
    tensor. `measured.model_key` would not do: models that were trained further have the same shapes. Raises OSError."""
    digest = hashlib.sha256()
    for path, header in zip(parts, headers, strict=True):
        with path.open("rb", buffering=0) as source:
            digest.update(f"{header.file_size_bytes}\0{header.data_offset}\0".encode())
            _digest_piece(digest, source.fileno(), 0, header.data_offset)
            for tensor in header.tensors:
                middle = header.data_offset + tensor.offset + max(tensor.size_bytes - _SAMPLE_BYTES, 0) // 2
                _digest_piece(digest, source.fileno(), middle, min(_SAMPLE_BYTES, tensor.size_bytes))
    return digest.hexdigest()


def _digest_piece(digest: Any, descriptor: int, start: int, size_bytes: int) -> None:
    os.lseek(descriptor, start, os.SEEK_SET)
    while size_bytes > 0:
        block = os.read(descriptor, min(size_bytes, 1 << 20))
        if not block:
            raise OSError("the file has become shorter")
        digest.update(block)
        size_bytes -= len(block)


def _unusable(reason: str, why: str) -> StateUnusable:
    saving = reason in ("empty", "unwritable")
    said = (
        _("The state of the conversation was not saved: {why}.")
        if saving
        else _("The state of the conversation cannot be used: {why}.")
    )
    return StateUnusable(
        said.format(why=why),
        hint=_("Nothing is lost: the conversation is computed again, which takes longer."),
        reason=reason,
    )


def _in_words(error: OSError | StoreError | WorkerRefused) -> str:
    if isinstance(error, WorkerRefused):
        return str(error.body.get("message", error.status))
    return (error.strerror if isinstance(error, OSError) else error.message) or str(error)


def _read_facts(path: Path) -> StateFacts:
    try:
        _check_private(path)
        with path.open("rb") as source:
            found = json.loads(source.read(_MOST_FACTS_BYTES))
        if not isinstance(found, dict):
            raise TypeError
        if found.get("schema") != SCHEMA:
            raise _unusable("schema", _("it was written by another version of bendi"))
        facts = StateFacts(**found)
    except FileNotFoundError as error:
        raise _unusable("missing", _("it does not exist")) from error
    except OSError as error:
        raise _unusable("unreadable", _in_words(error)) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise _unusable("corrupt", _("what is written about it cannot be read")) from error
    return facts


def _write_facts(path: Path, facts: StateFacts) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        json.dump(asdict(facts), out)
        out.flush()
        os.fsync(out.fileno())


def _check_private(path: Path) -> None:
    """A file that others can write could be made to fit its hash."""
    status = path.lstat()
    ours = os.name == "nt" or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)
    if not stat.S_ISREG(status.st_mode) or not ours:
        raise _unusable(
            "not ours", _("{path} belongs to somebody else, or others can change it").format(path=path.name)
        )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except (OSError, NotImplementedError):
        # File systems without links.
        shutil.copyfile(source, target, follow_symlinks=False)
        shutil.copymode(source, target, follow_symlinks=False)


def _sync(path: Path) -> None:
    with path.open("r+b") as written:
        os.fsync(written.fileno())


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
