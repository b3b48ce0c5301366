"""Which model a client means. A name never opens a path that the client wrote."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bendi.chat.personas import Persona, PersonaBook
from bendi.errors import BendiError, NotFoundError, UsageError
from bendi.i18n import _
from bendi.store import LocalModel, Store
from bendi.store.discover import from_path
from bendi.store.names import PathName, as_name

_REMEMBERED_S = 5.0
_ABSENT_S = 1.0
"""What was not found may be on its way."""
_SURE_S = 30.0
"""For so long a model is taken to have its name where nothing has changed that can be seen at once."""
_LATER_S = 1.0
"""Looking takes the processor for milliseconds: not while somebody waits for the first word."""
_MOST_REMEMBERED = 256


@dataclass(frozen=True)
class Named:
    """What stands before and behind the `@` of `name@persona`."""

    model: str
    persona: Persona | None = None


def split_persona(text: str, personas: PersonaBook) -> Named:
    """`text` with its persona, if it ends in one; a revision of a repository may also stand behind an `@`.

    Raises NotFoundError when there is neither, ConfigError when the file of personas cannot be used.
    """
    model, at, name = text.rpartition("@")
    if not at:
        return Named(text)
    if name not in personas.all() and model and as_name(text) is not None:
        return Named(text)  # hf:org/repo@revision
    persona = personas.get(name)
    if not model and not persona.model:
        raise NotFoundError(
            _("The persona {name} does not say which model it is for.").format(name=name),
            hint=_("Write MODEL@{name}, or give the persona a model.").format(name=name),
        )
    return Named(model or persona.model, persona)


@dataclass
class _Found:
    """`marks`: of the places by which it was found. `looked_s`, `until_s`: when that was, and until when nobody need
    ask; both by `time.monotonic`."""

    what: LocalModel | BendiError
    marks: tuple[object, ...]
    looked_s: float
    until_s: float


class ModelNames:
    """Finds models by the names that clients write. `files`: models that the administrator named by their path.

    What was found is remembered, so that a request need not look at the disk. After a few seconds a look at the times
    of the model's file, its folder, the roots and the aliases tells whether anything has changed; what these do not
    show (another model elsewhere that may be meant, too) is looked for when the request has its first words.
    """

    def __init__(self, store: Store, files: Sequence[Path] = ()) -> None:
        self._store = store
        self._files = [path.absolute() for path in files]
        self._found: dict[str, _Found] = {}
        self._looking = asyncio.Lock()
        self._later: dict[str, asyncio.Task[None]] = {}
        self._forgotten = 0

    async def resolve(self, text: str) -> LocalModel:
        """Raises NotFoundError; UsageError when several models fit; ModelIncomplete when its download has not ended."""
        found = self._remembered(text)
        if found is None:
            async with self._looking:
                found = self._remembered(text)
                if found is None:
                    found = await self._looked_up(text)
        if isinstance(found, BendiError):
            raise _anew(found)
        return found

    def known(self, text: str) -> LocalModel | None:
        """As `resolve`, where that need not wait."""
        found = self._remembered(text)
        return found if isinstance(found, LocalModel) else None

    def forget(self) -> None:
        """Models came, went, or got other names."""
        self._found.clear()
        self._forgotten += 1

    def _remembered(self, text: str) -> LocalModel | BendiError | None:
        found, now_s = self._found.get(text), time.monotonic()
        if found is None:
            return None
        if now_s >= found.until_s:
            if isinstance(found.what, BendiError) or found.marks != self._marks(found.what):
                return None
            found.until_s = now_s + _REMEMBERED_S
            if now_s >= found.looked_s + _SURE_S and text not in self._later:
                self._later[text] = asyncio.create_task(self._look_later(text))
        return found.what

    async def _look_later(self, text: str) -> None:
        try:
            await asyncio.sleep(_LATER_S)
            await self._looked_up(text)
        finally:
            del self._later[text]

    async def _looked_up(self, text: str) -> LocalModel | BendiError:
        forgotten = self._forgotten
        found, marks = await asyncio.to_thread(self._look, text)
        if len(self._found) >= _MOST_REMEMBERED:
            self._found.clear()
        if forgotten == self._forgotten:  # else it may be what was there before
            now_s = time.monotonic()
            for_s = _ABSENT_S if isinstance(found, BendiError) else _REMEMBERED_S
            self._found[text] = _Found(found, marks, now_s, now_s + for_s)
        return found

    def _look(self, text: str) -> tuple[LocalModel | BendiError, tuple[object, ...]]:
        found = self._search(text)
        return found, () if isinstance(found, BendiError) else self._marks(found)

    def _marks(self, model: LocalModel) -> tuple[object, ...]:
        places = (self._store.aliases_file, *self._store.roots, model.path, model.path.parent)
        return tuple(map(_mark, places))

    def _search(self, text: str) -> LocalModel | BendiError:
        try:
            name = as_name(text)
            return self._at_path(text, name.path) if isinstance(name, PathName) else self._store.resolve(text)
        except NotFoundError as error:
            return _anew(error)
        except UsageError as error:
            # Which files they are is not for everybody who may ask a model.
            hint = _("Say which one; the models of this server: GET /v1/models")
            return UsageError(error.message, hint=hint)
        except BendiError as error:
            return _anew(error)

    def _at_path(self, text: str, path: Path) -> LocalModel:
        """A model that is known anyway, by its path. Whether other files exist is not told."""
        for model in from_path(path) if path in self._files else ():
            return model
        for model in self._store.models():
            if path in (model.path, *model.parts) or text.casefold() in (model.name.casefold(), *model.spellings):
                return model
        raise NotFoundError(
            _("{path} is not in a models folder of this server.").format(path=text),
            hint=_("The models of this server: GET /v1/models"),
        )


def _mark(path: Path) -> object:
    """What changes when the file is another, or the folder has other names; None where there is nothing."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def _anew(error: BendiError) -> BendiError:
    """The same error, raised by nobody yet. One that was raised holds every frame that it passed, and with them the
    request and its body: what is remembered must never be raised itself."""
    new = type(error).__new__(type(error), *error.args)
    vars(new).update(vars(error))
    return new
