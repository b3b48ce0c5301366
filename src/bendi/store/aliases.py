"""Short names of one's own, written into `aliases.toml` with its comments and order. Apart from `catalogue`, which
reads them, since the library that keeps comments is slow to import."""

from __future__ import annotations

from pathlib import Path

import tomlkit
import tomlkit.exceptions

from bendi.errors import ConfigError, UsageError
from bendi.i18n import _
from bendi.store.catalogue import DEMO, load_catalogue
from bendi.store.discover import LocalModel
from bendi.store.disk import write_atomic
from bendi.store.lock import locked
from bendi.store.names import AliasName, PathName, as_name, format_name, parse_name


def alias_of(text: str) -> str:
    """The short name in `text`, in the form in which it is kept. Raises UsageError when it cannot be one."""
    name = parse_name(text)
    if not isinstance(name, AliasName) or name.quant or name.alias == DEMO:
        raise UsageError(
            _("{name} cannot be a short name.").format(name=text),
            hint=_("Short names look like work or qwen3:mine."),
        )
    return name.alias


def add_alias(path: Path, alias: str, model: LocalModel) -> None:
    """Makes `alias` another name of `model`; of another one, if it was a name of that. Nothing is copied.

    Raises UsageError when it cannot be a short name, ConfigError when the file cannot be used, StoreError when it
    cannot be written; then it is unchanged.
    """
    alias = alias_of(alias)
    name = as_name(model.name)
    whole = name is not None and not isinstance(name, AliasName | PathName)
    target = format_name(name) if name is not None and whole else DEMO if model.origin == "demo" else str(model.path)
    _change(path, alias, target)


def drop_alias(path: Path, alias: str) -> None:
    """Forgets a short name; its model stays. Raises as `add_alias`."""
    _change(path, alias_of(alias), None)


def _change(path: Path, alias: str, target: str | None) -> None:
    with locked(path.with_name(f".{path.name}.lock")):
        load_catalogue(path)  # a file with a mistake in it is not written over
        try:
            document = tomlkit.parse(path.read_text("utf-8") if path.exists() else "")
            for written in [key for key in document if _same(key, alias)]:
                del document[written]
            if target is not None:
                document[alias] = target
            content = tomlkit.dumps(document).encode("utf-8")
        except (OSError, tomlkit.exceptions.TOMLKitError) as error:
            raise ConfigError(_("{path} cannot be used: {error}").format(path=path, error=error)) from error
        write_atomic(path, content)


def _same(written: str, alias: str) -> bool:
    name = as_name(written)
    return isinstance(name, AliasName) and name.alias == alias
