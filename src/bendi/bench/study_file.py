"""Reads a study file: TOML, every key checked, every mistake named with its place."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from bendi.bench.study import ENGINE_KINDS, SETTING_NAMES, Care, EngineChoice, ModelChoice, Study
from bendi.errors import ConfigError, NotFoundError
from bendi.i18n import _
from bendi.results import Cache, Workload

_LARGEST_FILE_BYTES = 1 << 20
_MOST_TOK = 1 << 24
_MOST_REPEATS = 1000
_TOP = (
    "title", "models", "engines", "workloads", "settings", "concurrency", "cache", "care", "seed", "energy", "cost",
)  # fmt: skip
_FLAGS = {"on": True, "off": False}


def read_study(path: Path) -> Study:
    """Raises NotFoundError and ConfigError, which says what is wrong and where."""
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise ConfigError(_("{path} is too large for a study file.").format(path=path))
        text = path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(
            _("There is no study file {path}.").format(path=path),
            hint=_("Begin with one that is there: {command}").format(
                command="bendi bench preset quantizations > study.toml"
            ),
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(_("{path} cannot be read: {error}").format(path=path, error=error)) from error
    return parse_study(text, path.absolute().parent, str(path))


def parse_study(text: str, folder: Path, where: str) -> Study:
    """`where`: what the text is called in errors. Raises ConfigError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_("{path} is not valid TOML: {error}").format(path=where, error=error)) from error
    top = _Table(table, where, _TOP)
    return Study(
        title=top.text("title", Path(where).stem),
        models=tuple(_model(each, folder) for each in top.tables("models", least=1)),
        engines=_distinct(tuple(_engine(each) for each in top.tables("engines")) or (EngineChoice("bendi"),), where),
        workloads=tuple(_workload(each) for each in top.tables("workloads", least=1)),
        settings=_swept(top.table("settings", tuple(SETTING_NAMES))),
        concurrency=tuple(top.numbers("concurrency", (1,), 1, 1024)),
        cache=_caches(top),
        care=_care(top.table("care", tuple(Care.__dataclass_fields__))),
        seed=top.number("seed", 1, 0, 2**31),
        energy=top.free("energy"),
        cost=top.free("cost"),
        text=text,
        folder=folder,
    )


class _Table:
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

    def __iter__(self) -> Any:
        return iter(self._table.items())

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

    def needed_text(self, name: str) -> str:
        found = self.text(name)
        if not found:
            raise ConfigError(_("{where}: {name} is missing.").format(where=self.where, name=name))
        return found

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.take(name, default, lambda value: isinstance(value, bool), _("true or false")))

    def number(self, name: str, default: int, low: int, high: int) -> int:
        return int(self.take(name, default, _whole(low, high), _range(low, high)))

    def numbers(self, name: str, default: Sequence[int], low: int, high: int) -> Sequence[int]:
        value = self._table.get(name, default)
        values = value if isinstance(value, list | tuple) else [value]
        if not values or not all(map(_whole(low, high), values)):
            raise self.bad(name, value, _range(low, high))
        return tuple(dict.fromkeys(values))

    def real(self, name: str, default: float, low: float, high: float) -> float:
        return float(self.take(name, default, _between(low, high), _range(low, high)))

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._table.get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            raise self.bad(name, value, _("a list of texts"))
        return tuple(dict.fromkeys(value))

    def either_text(self, name: str, default: str) -> tuple[str, ...]:
        """One text, or a list of them."""
        return self.texts(name) if isinstance(self._table.get(name), list) else (self.text(name, default),)

    def tables(self, name: str, least: int = 0) -> list[tuple[Mapping[str, Any], str]]:
        value = self._table.get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.bad(name, value, _("a list of tables: [[{name}]]").format(name=name))
        if len(value) < least:
            raise ConfigError(_("{where}: {name} is missing.").format(where=self.where, name=f"[[{name}]]"))
        return [(each, f"{self.where}: [[{name}]] {number}") for number, each in enumerate(value, 1)]

    def table(self, name: str, known: Sequence[str]) -> _Table:
        return _Table(self.free(name), f"{self.where}: [{name}]", known)

    def free(self, name: str) -> Mapping[str, Any]:
        value = self._table.get(name, {})
        if not isinstance(value, dict):
            raise self.bad(name, value, _("a table: [{name}]").format(name=name))
        return cast(Mapping[str, Any], value)


def _model(given: tuple[Mapping[str, Any], str], folder: Path) -> ModelChoice:
    table = _Table(*given, ("name", "quantizations", "files", "shape"))
    name = table.needed_text("name")
    files = {}
    for quantization, path in table.free("files").items():
        if not isinstance(path, str) or not path:
            raise table.bad(f"files.{quantization}", path, _("the path of a file"))
        files[quantization] = folder / Path(path).expanduser()
    choice = ModelChoice(name, table.texts("quantizations"), files, table.flag("shape"))
    if choice.shape and (files or not choice.quantizations):
        raise ConfigError(
            _("{where}: a shape needs quantizations, and has no files.").format(where=table.where),
            hint='shape = true, quantizations = ["Q8_0", "Q4_K_M"]',
        )
    return choice


def _engine(given: tuple[Mapping[str, Any], str]) -> EngineChoice:
    table = _Table(*given, tuple(EngineChoice.__dataclass_fields__))
    kind = table.text("kind", "bendi")
    if kind not in ENGINE_KINDS:
        raise table.bad("kind", kind, _("one of {names}").format(names=", ".join(ENGINE_KINDS)))
    settings = {name: _setting(table, name, value) for name, value in table.free("settings").items()}
    choice = EngineChoice(
        label=table.text("label") or table.text("build") or kind,
        kind=kind,
        build=table.text("build"),
        program=table.text("program"),
        interpreter=table.text("interpreter"),
        url=table.text("url"),
        model=table.text("model"),
        key_variable=table.text("key_variable"),
        settings=settings,
    )
    if kind == "openai" and not choice.url:
        raise ConfigError(_("{where}: {name} is missing.").format(where=table.where, name="url"))
    return choice


def _distinct(engines: tuple[EngineChoice, ...], where: str) -> tuple[EngineChoice, ...]:
    labels = [engine.label for engine in engines]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(
                _("{where}: two engines are called {label!r}.").format(where=where, label=label),
                hint=_("Give each a label of its own: {example}").format(example='label = "..."'),
            )
    return engines


def _workload(given: tuple[Mapping[str, Any], str]) -> Workload:
    table = _Table(*given, tuple(Workload.__dataclass_fields__))
    prompt_tok = table.number("prompt_tok", 512, 1, _MOST_TOK)
    answer_tok = table.number("answer_tok", 64, 1, _MOST_TOK)
    depth_tok = table.number("depth_tok", 0, 0, _MOST_TOK)
    turns = table.number("turns", 1, 1, _MOST_REPEATS)
    if turns > 1 and depth_tok:
        raise ConfigError(_("{where}: turns and depth_tok exclude each other.").format(where=table.where))
    return Workload(
        name=table.text("name") or f"{prompt_tok}+{answer_tok}" + (f"@{depth_tok}" if depth_tok else ""),
        prompt_tok=prompt_tok,
        answer_tok=answer_tok,
        depth_tok=depth_tok,
        turns=turns,
        requests=table.number("requests", 1, 1, _MOST_REPEATS),
        text=table.text("text"),
    )


def _swept(table: _Table) -> Mapping[str, tuple[Any, ...]]:
    found = {}
    for name, value in table:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise table.bad(name, value, _("a value, or a list of values"))
        found[name] = tuple(dict.fromkeys(_setting(table, name, each) for each in values))
    return found


def _setting(table: _Table, name: str, value: Any) -> Any:
    """One value of a setting; `"on"` and `"off"` are read for switches."""
    kind = SETTING_NAMES.get(name)
    if kind is None:
        raise ConfigError(
            _("{where}: there is no setting {name!r}.").format(where=table.where, name=name),
            hint=_("Known settings: {names}").format(names=", ".join(SETTING_NAMES)),
        )
    if kind is bool and isinstance(value, str):
        value = _FLAGS.get(value.lower(), value)
    if not isinstance(value, kind) or (kind is int and not _whole(-1, _MOST_TOK)(value)):
        wanted = {int: _("a whole number"), bool: _("true or false")}
        raise table.bad(name, value, wanted.get(cast(type, kind), _("a text")))
    return value


def _caches(top: _Table) -> tuple[Cache, ...]:
    given = top.either_text("cache", "fresh")
    for each in given:
        if each not in ("fresh", "warm"):
            raise top.bad("cache", each, _("one of {names}").format(names="fresh, warm"))
    return cast(tuple[Cache, ...], given or ("fresh",))


def _care(table: _Table) -> Care:
    usual = Care()
    care = Care(
        blocks=table.number("blocks", usual.blocks, 1, _MOST_REPEATS),
        warm_up_least=table.number("warm_up_least", usual.warm_up_least, 0, _MOST_REPEATS),
        warm_up_most=table.number("warm_up_most", usual.warm_up_most, 0, _MOST_REPEATS),
        steady_cv=table.real("steady_cv", usual.steady_cv, 0.001, 1.0),
        cool_down_s=table.real("cool_down_s", usual.cool_down_s, 0.0, 3600.0),
        idle_s=table.real("idle_s", usual.idle_s, 0.0, 3600.0),
        timeout_s=table.real("timeout_s", usual.timeout_s, 1.0, 86400.0),
        tries=table.number("tries", usual.tries, 1, 10),
        check=table.flag("check", usual.check),
    )
    if care.warm_up_most < care.warm_up_least:
        raise ConfigError(_("{where}: warm_up_most is below warm_up_least.").format(where=table.where))
    return care


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _between(low: float, high: float) -> Callable[[Any], bool]:
    def good(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value) and low <= value <= high

    return good


def _range(low: float, high: float) -> str:
    return _("a number from {low:g} to {high:g}").format(low=low, high=high)
