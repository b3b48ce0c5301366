"""Small frozen dataclasses, many of them alike, as compact JSON: each value is written once and refers to others.

`Pool` writes; `Unpacked` builds only what is asked for, since building all of a catalogue would take longer than
ranking it. An entry is a class by its number and the values of its fields; a field whose name is marked with `*` holds
the number of another entry. The number -1 stands for a tuple of entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from bendi.errors import StoreError
from bendi.i18n import _

_TUPLE = -1
_MARK = "*"


class Pool:
    """Entries of one group of values. `classes`: names of fields by class, shared by all groups of a file."""

    def __init__(self, classes: dict[str, list[str]]) -> None:
        self._classes = classes
        self._entries: list[list[Any]] = []
        self._known: dict[Any, int] = {}

    @property
    def entries(self) -> list[list[Any]]:
        return self._entries

    def add(self, value: Any) -> int:
        """The number of the entry for a dataclass, or for a tuple of dataclasses and None."""
        key = (type(value), value)
        if key not in self._known:
            entry = self._tuple(value) if isinstance(value, tuple) else self._object(value)
            self._known[key] = len(self._entries)
            self._entries.append(entry)
        return self._known[key]

    def _tuple(self, items: Sequence[Any]) -> list[Any]:
        return [_TUPLE, *(None if item is None else self.add(item) for item in items)]

    def _object(self, value: Any) -> list[Any]:
        name = type(value).__name__
        if name not in self._classes:
            self._classes[name] = [_MARK + field.name if _refers(field.type) else field.name for field in fields(value)]
        row: list[Any] = [list(self._classes).index(name)]
        for field in self._classes[name]:
            held = getattr(value, field.removeprefix(_MARK))
            row.append(self.add(held) if field.startswith(_MARK) and held is not None else held)
        return row


def _refers(annotation: Any) -> bool:
    """Whether a field of that annotation holds dataclasses. Their names begin with a capital, as no other type does."""
    names = str(annotation).replace("tuple[", "").replace("]", "").replace(",", " ").replace("|", " ").split()
    return any(name[0].isupper() and name != "None" for name in names)


class Unpacked:
    """Builds the values of one group. `classes` as a `Pool` has filled it; `types`: the classes themselves, by name."""

    def __init__(
        self, entries: Sequence[list[Any]], classes: Mapping[str, list[str]], types: Mapping[str, type]
    ) -> None:
        self._entries = entries
        self._classes = [(types[name], names) for name, names in classes.items()]
        self._built: dict[int, Any] = {}

    def value(self, number: int) -> Any:
        """The value of an entry. Raises StoreError when it was written for other classes than these."""
        if number not in self._built:
            kind, *held = self._entries[number]
            if kind == _TUPLE:
                self._built[number] = tuple(None if item is None else self.value(item) for item in held)
            else:
                self._built[number] = self._object(kind, held)
        return self._built[number]

    def _object(self, kind: int, held: Sequence[Any]) -> Any:
        made, names = self._classes[kind]
        assert is_dataclass(made)
        values = {
            name.removeprefix(_MARK): self.value(item)
            if name[0] == _MARK and item is not None
            else tuple(item) if isinstance(item, list) else item
            for name, item in zip(names, held, strict=True)
        }  # fmt: skip
        try:
            return made(**values)
        except TypeError as error:
            raise StoreError(
                _("The table of models that comes with bendi does not belong to this version: {error}").format(
                    error=error
                ),
                hint=_("Install bendi again: pip install --force-reinstall bendi"),
            ) from error
