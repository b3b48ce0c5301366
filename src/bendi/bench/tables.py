"""Tables of a study file: values of the right type, and every mistake named with its place."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from bendi.errors import ConfigError
from bendi.i18n import _


class Table:
    """One table of the file: takes values of the right type, and knows where it stands."""

    def __init__(self, table: Mapping[str, Any], where: str, known: Sequence[str]) -> None:
        self._table, self.where = table, where
        for name in table:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                raise ConfigError(
                    _("{where}: there is no key {name!r} here.").format(where=where, name=name),
                    hint=_("Did you mean {name}?").format(name=close[0])
                    if close
                    else _("Known keys: {keys}").format(keys=", ".join(known)),
                )

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._table.items())

    def __contains__(self, name: str) -> bool:
        return name in self._table

    def bad(self, name: str, value: object, wanted: str) -> ConfigError:
        return ConfigError(
            _("{where}: {name} is {value!r}; it must be {wanted}.").format(
                where=self.where, name=name, value=value, wanted=wanted
            )
        )

    def take(self, name: str, default: Any, good: Callable[[Any], bool], wanted: str) -> Any:
        value = self._table.get(name, default)
        if name in self._table and not good(value):
            raise self.bad(name, value, wanted)
        return value

    def text(self, name: str, default: str = "") -> str:
        return str(self.take(name, default, lambda value: isinstance(value, str), _("a text")))

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.take(name, default, lambda value: isinstance(value, bool), _("true or false")))

    def number(self, name: str, default: int, low: int, high: int) -> int:
        return int(self.take(name, default, whole(low, high), _range(low, high)))

    def numbers(self, name: str, default: Sequence[int], low: int, high: int) -> Sequence[int]:
        value = self._table.get(name, default)
        values = value if isinstance(value, list | tuple) else [value]
        if not values or not all(map(whole(low, high), values)):
            raise self.bad(name, value, _range(low, high))
        return tuple(dict.fromkeys(values))

    def real(self, name: str, default: float, low: float, high: float) -> float:
        return float(self.take(name, default, between(low, high), _range(low, high)))

    def reals(self, name: str, default: Sequence[float], low: float, high: float) -> tuple[float, ...]:
        value = self._table.get(name, default)
        if not isinstance(value, list | tuple) or not all(map(between(low, high), value)):
            raise self.bad(name, value, _range(low, high))
        return tuple(map(float, value))

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._table.get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            raise self.bad(name, value, _("a list of texts"))
        return tuple(dict.fromkeys(value))

    def tables(self, name: str, least: int = 0) -> list[tuple[Mapping[str, Any], str]]:
        value = self._table.get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.bad(name, value, _("a list of tables: [[{name}]]").format(name=name))
        if len(value) < least:
            raise ConfigError(_("{where}: {name} is missing.").format(where=self.where, name=f"[[{name}]]"))
        return [(each, f"{self.where}: [[{name}]] {number}") for number, each in enumerate(value, 1)]

    def table(self, name: str, known: Sequence[str]) -> Table:
        return Table(self.free(name), f"{self.where}: [{name}]", known)

    def free(self, name: str) -> Mapping[str, Any]:
        value = self._table.get(name, {})
        if not isinstance(value, dict):
            raise self.bad(name, value, _("a table: [{name}]").format(name=name))
        return cast(Mapping[str, Any], value)


def needed_text(table: Table, name: str) -> str:
    found = table.text(name)
    if not found:
        raise ConfigError(_("{where}: {name} is missing.").format(where=table.where, name=name))
    return found


def maybe_real(table: Table, name: str, low: float, high: float) -> float | None:
    return table.real(name, 0.0, low, high) if name in table else None


def whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def between(low: float, high: float) -> Callable[[Any], bool]:
    def good(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value) and low <= value <= high

    return good


def _range(low: float, high: float) -> str:
    return _("a number from {low:g} to {high:g}").format(low=low, high=high)
