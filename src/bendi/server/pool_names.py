"""Which model a client means. A name never opens a path that the client wrote."""

from __future__ import annotations

import asyncio
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


class ModelNames:
    """Finds models by the names that clients write; what was found is remembered for a few seconds, so that a request
    need not look at the disk. `files`: models that the administrator named by their path."""

    def __init__(self, store: Store, files: Sequence[Path] = ()) -> None:
        self._store = store
        self._files = [path.absolute() for path in files]
        self._found: dict[str, tuple[float, LocalModel | BendiError]] = {}
        self._looking = asyncio.Lock()

    async def resolve(self, text: str) -> LocalModel:
        """Raises NotFoundError; UsageError when several models fit; ModelIncomplete when its download has not ended."""
        found = self._remembered(text)
        if found is None:
            async with self._looking:
                found = self._remembered(text)
                if found is None:
                    found = await asyncio.to_thread(self._look, text)
                    self._remember(text, found)
        if isinstance(found, BendiError):
            raise _anew(found)
        return found

    def forget(self) -> None:
        """Models came, went, or got other names."""
        self._found.clear()

    def _remembered(self, text: str) -> LocalModel | BendiError | None:
        until_s, found = self._found.get(text, (0.0, None))
        return found if time.monotonic() < until_s else None

    def _remember(self, text: str, found: LocalModel | BendiError) -> None:
        if len(self._found) >= _MOST_REMEMBERED:
            self._found.clear()
        for_s = _ABSENT_S if isinstance(found, BendiError) else _REMEMBERED_S
        self._found[text] = (time.monotonic() + for_s, found)

    def _look(self, text: str) -> LocalModel | BendiError:
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


def _anew(error: BendiError) -> BendiError:
    """The same error, raised by nobody yet. One that was raised holds every frame that it passed, and with them the
    request and its body: what is remembered must never be raised itself."""
    new = type(error).__new__(type(error), *error.args)
    vars(new).update(vars(error))
    return new
