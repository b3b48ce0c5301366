"""Personas: sections of one TOML file that say how a model is to be used. Nothing is loaded or copied for them.

    ["翻译"]                                # names with other than A-Z a-z 0-9 _ - are quoted
    description = "中英互译"
    model = "qwen3:8b"                      # what `bendi run @翻译` loads; may be left out
    system = "You are a translator. ..."
    temperature = 0.2                       # and every other name in `parameters.PARAMETERS`
    template_options = { enable_thinking = false }
    context_policy = "slide"

The file is read again when it has changed, so an edit applies to the next message. A few personas come with bendi
(`personas.toml` beside this file); a section of the same name in the user's file takes their place.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bendi.chat.parameters import PARAMETERS, check_value
from bendi.errors import ConfigError, NotFoundError, UsageError
from bendi.i18n import _

TEXTS = ("description", "model", "system")
NO_PERSONA = "none"
BUILTIN_FILE = Path(__file__).with_name("personas.toml")

_HEADER = re.compile(r"\s*\[\s*(?P<name>[^\[\]]+?)\s*\]\s*(#.*)?$")
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Persona:
    """`model`: the model it is meant for, may be empty. `values`: parameters, as `parameters.join` takes them."""

    name: str
    description: str = ""
    model: str = ""
    system: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    builtin: bool = False


class PersonaBook:
    """The personas of the user's file and the built-in ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._builtin = parse_personas(BUILTIN_FILE.read_text("utf-8"), BUILTIN_FILE, builtin=True)
        self._stamp: tuple[int, int] | None = None
        self._own: dict[str, Persona] = {}

    def all(self) -> dict[str, Persona]:
        """By name, the user's own first. Raises ConfigError, with line and key, when the file cannot be used."""
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                self._own = parse_personas(self.path.read_bytes().decode("utf-8-sig"), self.path)
                self._stamp = stamp
        except FileNotFoundError:
            self._stamp, self._own = None, {}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                _("{path} cannot be read: {error}").format(path=self.path, error=error),
                hint=_("Save it as UTF-8 text, or move it away."),
            ) from error
        return self._own | {name: persona for name, persona in self._builtin.items() if name not in self._own}

    def get(self, name: str) -> Persona:
        """Raises NotFoundError, with the nearest names; ConfigError as `all`."""
        personas = self.all()
        if name not in personas:
            near = get_close_matches(name, personas, n=3) or list(personas)
            raise NotFoundError(
                _("there is no persona {name!r}").format(name=name),
                hint=_("Personas: {names}. `bendi persona edit {name}` makes a new one.").format(
                    names=", ".join(near), name=name
                ),
            )
        return personas[name]


def parse_personas(text: str, path: Path, *, builtin: bool = False) -> dict[str, Persona]:
    """The personas in `text`; `path` is for messages. Raises ConfigError that names the line and the key."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            _("{path} is not valid TOML: {error}").format(path=path, error=error),
            hint=_('Correct that line; names with spaces, dots or Chinese characters are quoted: ["翻译"].'),
        ) from error
    return {name: _persona(name, section, _Place(path, text, name), builtin) for name, section in table.items()}


def check_name(name: str) -> str:
    """`name`, when a persona may be called so. Raises UsageError."""
    if not name.strip() or name != name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise UsageError(_("a persona cannot be called {name!r}").format(name=name[:80]))
    if name == NO_PERSONA:
        raise UsageError(_("{name!r} means no persona and cannot be the name of one").format(name=name))
    return name


@dataclass(frozen=True)
class _Place:
    """Where something stands in the file, for messages."""

    path: Path
    text: str
    section: str

    def of(self, key: str = "") -> str:
        inside = False
        for number, line in enumerate(self.text.splitlines(), 1):
            header = _HEADER.match(line)
            if header:
                inside = header["name"].strip("\"'") == self.section
            found = header and inside if not key else inside and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line)
            if found:
                return _("{path}, line {line}").format(path=self.path, line=number)
        return str(self.path)


def _persona(name: str, section: object, place: _Place, builtin: bool) -> Persona:
    try:
        check_name(name)
    except UsageError as error:
        raise ConfigError(f"{place.of()}: {error.message}", hint=_("Rename that section.")) from error
    if not isinstance(section, dict):
        raise ConfigError(
            _("{path}: {key} stands outside of any persona").format(path=place.path, key=name),
            hint=_("Put it under a section with the persona's name, such as [writer]."),
        )
    texts: dict[str, str] = {}
    values: dict[str, Any] = {}
    for key, value in section.items():
        where = _("{place}: persona {name}, {key}").format(place=place.of(key), name=name, key=key)
        if key in TEXTS:
            if not isinstance(value, str):
                raise ConfigError(_("{where} must be a text in quotes").format(where=where))
            texts[key] = value
        elif key in PARAMETERS:
            try:
                values[key] = check_value(key, value)
            except UsageError as error:
                raise ConfigError(f"{where}: {error.message}") from error
        else:
            raise _unknown_key(where, key, value)
    return Persona(name, **texts, values=values, builtin=builtin)


def _unknown_key(where: str, key: str, value: object) -> ConfigError:
    known = [*TEXTS, *PARAMETERS]
    near = get_close_matches(key, known, n=1)
    if near:
        hint = _("Did you mean {name}?").format(name=near[0])
    elif isinstance(value, dict):
        hint = _('A name with a dot is quoted: ["a.b"].')
    else:
        hint = _("Known keys: {keys}").format(keys=", ".join(known))
    return ConfigError(_("{where} is not a key of a persona").format(where=where), hint=hint)
