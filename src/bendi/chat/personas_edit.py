"""Writing the persona file back with its comments and order. Apart from `personas`, since reading is on the fast path
of `bendi run` and the library that keeps comments is slow to import."""

from __future__ import annotations

from pathlib import Path

import tomlkit
import tomlkit.exceptions

from bendi.chat.durable import write_durably
from bendi.chat.personas import TEXTS, Persona, check_name, parse_personas
from bendi.errors import ConfigError, DataError
from bendi.i18n import _


def save_persona(path: Path, persona: Persona) -> None:
    """Adds the persona to the file, or replaces its keys there; everything else stays as it is, byte for byte.

    Raises ConfigError when the file is not valid, DataError when it cannot be written; then it is unchanged.
    """
    check_name(persona.name)
    text = _read(path)
    parse_personas(text, path)
    try:
        result = _with_persona(text, persona)
    except tomlkit.exceptions.TOMLKitError as error:
        raise _not_added(path, persona) from error
    written = parse_personas(result, path).get(persona.name)
    if written is None or (written.system, dict(written.values)) != (persona.system, dict(persona.values)):
        raise _not_added(path, persona)
    try:
        write_durably(path, result.encode("utf-8"))
    except OSError as error:
        raise DataError(_("{path} cannot be written: {error}").format(path=path, error=error)) from error


def _with_persona(text: str, persona: Persona) -> str:
    document = tomlkit.parse(text)
    section = document.get(persona.name)
    if section is None:
        section = tomlkit.table()
        document[persona.name] = section
    wanted = {name: getattr(persona, name) for name in TEXTS if getattr(persona, name)} | dict(persona.values)
    for key in [key for key in section if key not in wanted]:
        del section[key]
    for key, value in wanted.items():
        if section.get(key) != value:
            section[key] = _item(value)
    return tomlkit.dumps(document)


def _not_added(path: Path, persona: Persona) -> DataError:
    return DataError(
        _("The persona {name} could not be added to {path}.").format(name=persona.name, path=path),
        hint=_("Add it by hand: `bendi persona edit {name}`.").format(name=persona.name),
    )


def _item(value: object) -> object:
    if isinstance(value, str) and "\n" in value and "\r" not in value:  # readers take both line ends for one
        return tomlkit.string(value, multiline=True)
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return table
    return value


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(_("{path} cannot be read: {error}").format(path=path, error=error)) from error
