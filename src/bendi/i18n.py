"""User-facing text in Chinese and English.

Source strings are English and are the message ids; `locale/zh/LC_MESSAGES/bendi.po` holds the Chinese. The language
is taken from `BENDI_LANG`, else from the locale variables, else English. `_` looks up at call time, so a change of
language (in tests, or per HTTP request) needs no reload.

Write `_("{name} is missing").format(name=...)`: never an f-string inside `_`, since the catalogue is keyed by the
literal. Module-level constants use `N_` to mark the literal, and `_` where they are shown.
"""

from __future__ import annotations

import gettext
import os
from pathlib import Path

LANGUAGES = ("en", "zh")
_LOCALE_DIR = Path(__file__).parent / "locale"
_catalogues: dict[str, gettext.NullTranslations] = {}
_language: str | None = None


def language() -> str:
    """The language in use, `"zh"` or `"en"`."""
    return _language or _from_environment()


def set_language(name: str | None) -> None:
    """Use `name` (`"zh"`, `"en"`, or None to follow the environment again)."""
    global _language
    _language = None if name is None else _match(name) or "en"


def _match(value: str) -> str | None:
    code = value.strip().lower().replace("-", "_").split(".")[0].split("_")[0]
    return code if code in LANGUAGES else None


def _from_environment() -> str:
    for variable in ("BENDI_LANG", "LC_ALL", "LC_MESSAGES", "LANGUAGE", "LANG"):
        # LANGUAGE may be a list, `zh_CN:en`. The first language that is set decides, also when it is one that we
        # do not have: a French user gets English, not the next variable's guess.
        value = os.environ.get(variable, "").split(":")[0]
        if value:
            return _match(value) or "en"
    return "en"


def _catalogue(name: str) -> gettext.NullTranslations:
    if name not in _catalogues:
        _catalogues[name] = gettext.translation("bendi", _LOCALE_DIR, languages=[name], fallback=True)
    return _catalogues[name]


def _(text: str) -> str:
    """The text in the language in use; the text itself where no translation exists."""
    return text if language() == "en" else _catalogue(language()).gettext(text)


def ngettext(one: str, many: str, count: int) -> str:
    """Plural forms, as gettext's."""
    if language() == "en":
        return one if count == 1 else many
    return _catalogue(language()).ngettext(one, many, count)


def N_(text: str) -> str:
    """Marks a literal for the catalogue without translating it now."""
    return text
