"""Prices of models in the cloud: a dated snapshot that comes with bendi, and the user's own file, which goes before it.

Both are TOML of the same form: `source` and `date` for all, and under `[models]` for each name the US dollars for a
million input and output tokens, with a `source` and `date` of its own where they differ.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from bendi.energy.cost import CloudPrice
from bendi.errors import ConfigError
from bendi.i18n import _

FILE_NAME = "cloud_prices.toml"
_LARGEST_BYTES = 1 << 20
_MOST_USD = 1e6
_KEYS = ("input_usd", "output_usd", "source", "date")


@cache
def bundled_prices() -> Mapping[str, CloudPrice]:
    """The snapshot, by model."""
    return parse_prices(files("bendi.energy").joinpath(FILE_NAME).read_text("utf-8"), FILE_NAME)


def cloud_prices(config_dir: Path | None = None) -> Mapping[str, CloudPrice]:
    """The snapshot, and over it what stands in `cloud_prices.toml` of the folder `config_dir`. Raises ConfigError."""
    if config_dir is None:
        return bundled_prices()
    path = config_dir / FILE_NAME
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ConfigError(_("{path} is too large for a list of prices.").format(path=path))
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        return bundled_prices()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(_("{path} cannot be read: {error}").format(path=path, error=error)) from error
    return {**bundled_prices(), **parse_prices(text, str(path))}


def parse_prices(text: str, where: str) -> Mapping[str, CloudPrice]:
    """`where`: what the text is called in errors. Raises ConfigError, which names the place."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_("{path} is not valid TOML: {error}").format(path=where, error=error)) from error
    models = table.get("models", {})
    unknown = sorted(set(table) - {"source", "date", "models"})
    if unknown or not isinstance(models, dict):
        raise ConfigError(
            _("{path} is no list of prices.").format(path=where),
            hint=_("Known keys: {keys}").format(keys="source, date, [models]"),
        )
    return {name: _price(name, row, table, where) for name, row in models.items()}


def _price(name: str, row: Any, table: Mapping[str, Any], where: str) -> CloudPrice:
    if not isinstance(row, dict) or set(row) - set(_KEYS):
        raise ConfigError(
            _("{path}: the model {name!r} has other keys than a price has.").format(path=where, name=name),
            hint=_("Known keys: {keys}").format(keys=", ".join(_KEYS)),
        )
    prices = [row.get("input_usd"), row.get("output_usd")]
    if not all(_is_price(each) for each in prices):
        raise ConfigError(
            _("{path}: the model {name!r} needs input_usd and output_usd, for a million tokens.").format(
                path=where, name=name
            )
        )
    source, day = row.get("source", table.get("source")), row.get("date", table.get("date"))
    if not source or not isinstance(source, str) or not _is_day(day):
        raise ConfigError(
            _("{path}: the price of {name!r} has no source or no date.").format(path=where, name=name),
            hint='source = "https://...", date = 2026-01-31',
        )
    return CloudPrice(name, float(prices[0] or 0), float(prices[1] or 0), source, str(day))


def _is_price(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value <= _MOST_USD


def _is_day(value: Any) -> bool:
    """A date of TOML, or a text that is one."""
    if isinstance(value, str):
        try:
            date.fromisoformat(value)
        except ValueError:
            return False
        return True
    return type(value) is date
