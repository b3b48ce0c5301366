"""Checked values of a `config.json`: whatever it says, a number here is one that a model can have."""

from __future__ import annotations

from collections.abc import Mapping

from bendi.errors import ModelFileError
from bendi.formats.gguf_check import MAX_LAYERS
from bendi.formats.gguf_cursor import hostile_hint, quoted
from bendi.formats.hf_families import OTHER_NAMES
from bendi.i18n import _

Config = Mapping[str, object]
MAX_WIDTH = 2**20
MAX_VOCAB = 2**22
_MAX_NUMBER = 1e18
_INNER_PARTS = ("text_config", "llm_config", "language_config")


class ConfigReader:
    """Values of a config, of the part about the language model before the rest; `defaults` where neither has one.

    null counts as absent, for a default of the caller too.
    """

    def __init__(self, config: Config, family: str, defaults: Config) -> None:
        self._config, self._family, self._defaults = config, family, defaults

    def get(self, name: str) -> object:
        """The value under any name of the same thing; None where there is none."""
        names = (name, *OTHER_NAMES.get(name, ()))
        for values in (self._config, self._defaults):
            for key in names:
                if key in values:
                    return values[key]
        return None

    def whole(self, name: str, default: int | None = None, *, low: int = 1, high: int = MAX_WIDTH) -> int:
        """The whole number under `name`. Where layers have a number each, they must agree.

        Raises ModelFileError when it is out of range, or absent and there is no default.
        """
        value = self.get(name)
        if isinstance(value, list) and value and all(item == value[0] for item in value[:MAX_LAYERS]):
            value = value[0]
        if value is None:
            value = default
        if value is None:
            raise self._missing(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise impossible(name, value, low, high)
        return value

    def number(self, name: str, default: float | None = None) -> float | None:
        """The number under `name`, None where there is none. Raises ModelFileError when it is none, or not finite."""
        return as_number(name, self.get(name), default)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.get(name)
        return value if isinstance(value, bool) else default

    def text(self, name: str) -> str:
        value = self.get(name)
        return value if isinstance(value, str) else ""

    def words(self, name: str, count: int) -> tuple[str, ...] | None:
        """The first `count` of the texts listed under `name`, None where there are none.

        Raises ModelFileError when there are fewer.
        """
        value = self.get(name)
        if not isinstance(value, list | str) or not value:
            return None
        if len(value) < count or not all(isinstance(word, str) for word in value[:count]):
            raise ModelFileError(
                _("config.json lists the kinds of {listed} layers, but the model has {count}.").format(
                    listed=len(value), count=count
                ),
                hint=hostile_hint(),
            )
        return tuple(str(word) for word in value[:count])

    def wholes(self, name: str) -> tuple[int, ...] | None:
        """The small numbers listed under `name`, None where there is no list of them."""
        value = self.get(name)
        if not isinstance(value, list) or not 0 < len(value) <= MAX_LAYERS:
            return None
        numbers = [item for item in value if isinstance(item, int) and 0 <= item <= MAX_WIDTH]
        return tuple(int(number) for number in numbers) if len(numbers) == len(value) else None

    def part(self, name: str) -> Config:
        """The object under `name`, empty where there is none."""
        value = self.get(name)
        return value if isinstance(value, dict) else {}

    def _missing(self, name: str) -> ModelFileError:
        return ModelFileError(
            _("config.json does not say {key}, which a model of the type {name} needs.").format(
                key=name, name=quoted(self._family)
            ),
            hint=_("Get the whole config.json of the model, not a part of it."),
        )


def as_number(name: str, value: object, default: float | None = None) -> float | None:
    """`value` as a finite number, `default` for None. Raises ModelFileError, calling it `name`, for anything else."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_NUMBER:
        raise impossible(name, value, -_MAX_NUMBER, _MAX_NUMBER)
    return float(value)


def merged(config: Config) -> tuple[str, str, Config]:
    """(type of the whole model, type of its language part, values of the language part before those of the whole)."""
    outer = config.get("thinker_config")
    config = {**config, **outer} if isinstance(outer, dict) else config
    part = next((part for key in _INNER_PARTS if isinstance(part := config.get(key), dict)), {})
    whole, inner = config.get("model_type"), part.get("model_type")
    whole_type = whole if isinstance(whole, str) else ""
    inner_type = inner if isinstance(inner, str) else whole_type
    return whole_type.removesuffix("_text"), inner_type.removesuffix("_text"), {**config, **part}


def impossible(name: str, value: object, low: float, high: float) -> ModelFileError:
    """What to raise when the config gives `value` for `name`, where `low` to `high` is possible."""
    # Some numbers are too long to be turned into text, and so are lists of them.
    plain = isinstance(value, str | float | bool) or (isinstance(value, int) and abs(value) < 10**40)
    shown = str(value) if plain else type(value).__name__
    return ModelFileError(
        _("config.json says that {key} is {value}; {lowest} to {highest} is possible.").format(
            key=name, value=quoted(shown), lowest=low, highest=high
        ),
        hint=hostile_hint(),
    )
