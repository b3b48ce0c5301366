"""Short names: the catalogue that comes with bendi, and the aliases of the user.

The user's are in `aliases.toml` of the config folder, one line each: `work = "hf:org/repo:Q4_K_M"`. They win over the
catalogue's.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path

from bendi.errors import ConfigError, NotFoundError, UsageError
from bendi.i18n import _
from bendi.store.names import AliasName, ModelName, PathName, RepoName, parse_name

DEMO = "demo"
"""The reserved alias of the model that comes with bendi."""


class Catalogue:
    """What each short name stands for, best source first."""

    def __init__(self, own: Mapping[str, ModelName], packaged: Mapping[str, tuple[ModelName, ...]]) -> None:
        self._own, self._packaged = own, packaged

    def names(self) -> list[str]:
        """Every short name, sorted."""
        return sorted({*self._own, *self._packaged, DEMO})

    def is_own(self, alias: str) -> bool:
        """Whether the user has said what `alias` stands for."""
        return alias in self._own

    def targets(self, alias: AliasName) -> tuple[ModelName, ...]:
        """What `alias` stands for. Raises NotFoundError with the nearest short names."""
        found = (self._own[alias.alias],) if alias.alias in self._own else self._packaged.get(alias.alias)
        if found is None:
            raise NotFoundError(
                _("there is no short name {name!r}").format(name=alias.alias), hint=nearest_hint(self.near(alias.alias))
            )
        if alias.quant is None:
            return found
        return tuple(
            replace(name, quant=alias.quant, file=None) if isinstance(name, RepoName) else name for name in found
        )

    def near(self, text: str) -> list[str]:
        """The short names that `text` may have meant: those of the same family first."""
        family = sorted((name for name in self.names() if name.startswith(f"{text.partition(':')[0]}:")), key=_by_size)
        close = get_close_matches(text, self.names(), n=5, cutoff=0.5)
        return [*dict.fromkeys([*close, *family] if ":" in text else [*family, *close])][:12]


def _by_size(alias: str) -> tuple[bool, float, str]:
    """Sorts the short names of a family: those without a variant first, small ones first."""
    tag = alias.partition(":")[2]
    size = re.match(r"([0-9]+(?:\.[0-9]+)?)([mb])", tag)
    billions = float(size[1]) / (1000 if size[2] == "m" else 1) if size else math.inf
    return "-" in tag, billions, tag


def nearest_hint(names: list[str]) -> str:
    """The hint that names `names`."""
    if not names:
        return _("All short names: bendi list --catalogue")
    return _("Nearest: {names}. What is here: bendi list").format(names=", ".join(names))


def load_catalogue(aliases_file: Path) -> Catalogue:
    """The catalogue with the user's own aliases. Raises ConfigError when their file cannot be used."""
    return Catalogue(_own(aliases_file), _packaged())


def packaged_names() -> frozenset[str]:
    """The short names that come with bendi, without those of the user."""
    return frozenset(_packaged())


def demo_path() -> Path:
    """Where the model is that comes with bendi; the file may be missing from a partial installation."""
    return Path(str(resources.files("bendi").joinpath("assets", "demo.gguf")))


@cache
def _packaged() -> Mapping[str, tuple[ModelName, ...]]:
    text = resources.files("bendi.store").joinpath("catalogue.toml").read_text("utf-8")
    return {
        alias: tuple(parse_name(f"{source}:{entry[source]}") for source in ("hf", "ms") if source in entry)
        for alias, entry in tomllib.loads(text)["models"].items()
    }


def _own(path: Path) -> dict[str, ModelName]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(_("{path} cannot be used: {error}").format(path=path, error=error)) from error
    aliases: dict[str, ModelName] = {}
    for alias, target in table.items():
        try:
            name, meant = parse_name(alias), parse_name(target if isinstance(target, str) else "")
        except UsageError as error:
            raise ConfigError(
                _("{path}: {alias} = {target!r} cannot be used").format(path=path, alias=alias, target=target),
                hint=error.hint,
            ) from error
        if not isinstance(name, AliasName) or name.quant or name.alias == DEMO or _is_short(meant):
            raise ConfigError(
                _("{path}: {alias} = {target!r} cannot be used").format(path=path, alias=alias, target=target),
                hint=_('A line gives a new short name to a full one: work = "hf:org/repo:Q4_K_M"'),
            )
        if isinstance(meant, PathName) and not meant.path.is_absolute():
            meant = PathName(path.parent / meant.path)
        aliases[name.alias] = meant
    return aliases


def _is_short(meant: ModelName) -> bool:
    """Short names stand for whole ones only, and for the built-in model, which has no other."""
    return isinstance(meant, AliasName) and (meant.alias != DEMO or meant.quant is not None)
