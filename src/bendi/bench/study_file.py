"""Reads a study file: TOML, every key checked, every mistake named with its place."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from bendi.bench.money import cost_options, energy_options
from bendi.bench.study import ENGINE_KINDS, SETTING_NAMES, Care, EngineChoice, ModelChoice, Study
from bendi.bench.tables import Table, maybe_real, needed_text, whole
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
    top = Table(table, where, _TOP)
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
        energy=energy_options(top),
        cost=cost_options(top),
        text=text,
        folder=folder,
    )


def _model(given: tuple[Mapping[str, Any], str], folder: Path) -> ModelChoice:
    table = Table(*given, ("name", "quantizations", "files", "shape", "source"))
    name = needed_text(table, "name")
    files = {}
    for quantization, path in table.free("files").items():
        if not isinstance(path, str) or not path:
            raise table.bad(f"files.{quantization}", path, _("the path of a file"))
        files[quantization] = folder / Path(path).expanduser()
    choice = ModelChoice(name, table.texts("quantizations"), files, table.flag("shape"), table.text("source"))
    if choice.source and not choice.quantizations:
        raise ConfigError(
            _("{where}: {name} is missing.").format(where=table.where, name="quantizations"),
            hint='source = "model-f16.gguf", quantizations = ["Q8_0", "Q4_K_M"]',
        )
    if choice.shape and (files or choice.source or not choice.quantizations):
        raise ConfigError(
            _("{where}: a shape needs quantizations, and has no files.").format(where=table.where),
            hint='shape = true, quantizations = ["Q8_0", "Q4_K_M"]',
        )
    return choice


def _engine(given: tuple[Mapping[str, Any], str]) -> EngineChoice:
    table = Table(*given, tuple(EngineChoice.__dataclass_fields__))
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
    table = Table(*given, tuple(Workload.__dataclass_fields__))
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


def _swept(table: Table) -> Mapping[str, tuple[Any, ...]]:
    found = {}
    for name, value in table:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise table.bad(name, value, _("a value, or a list of values"))
        found[name] = tuple(dict.fromkeys(_setting(table, name, each) for each in values))
    return found


def _setting(table: Table, name: str, value: Any) -> Any:
    """One value of a setting; `"on"` and `"off"` are read for switches. Names that begin with `-` are options of the
    engine's own program."""
    if name.startswith("-") and isinstance(value, str | int | float):
        return value
    kind = SETTING_NAMES.get(name)
    if kind is None:
        raise ConfigError(
            _("{where}: there is no setting {name!r}.").format(where=table.where, name=name),
            hint=_("Known settings: {names}").format(names=", ".join(SETTING_NAMES)),
        )
    if kind is bool and isinstance(value, str):
        value = _FLAGS.get(value.lower(), value)
    if not isinstance(value, kind) or (kind is int and not whole(-1, _MOST_TOK)(value)):
        wanted = {int: _("a whole number"), bool: _("true or false")}
        raise table.bad(name, value, wanted.get(cast(type, kind), _("a text")))
    return value


def _caches(top: Table) -> tuple[Cache, ...]:
    given = top.texts("cache") if isinstance(dict(top).get("cache"), list) else (top.text("cache", "fresh"),)
    for each in given:
        if each not in ("fresh", "warm"):
            raise top.bad("cache", each, _("one of {names}").format(names="fresh, warm"))
    return cast(tuple[Cache, ...], given or ("fresh",))


def _care(table: Table) -> Care:
    usual = Care()
    care = Care(
        blocks=table.number("blocks", usual.blocks, 1, _MOST_REPEATS),
        warm_up_least=table.number("warm_up_least", usual.warm_up_least, 0, _MOST_REPEATS),
        warm_up_most=table.number("warm_up_most", usual.warm_up_most, 0, _MOST_REPEATS),
        steady_cv=table.real("steady_cv", usual.steady_cv, 0.001, 1.0),
        cool_down_s=table.real("cool_down_s", usual.cool_down_s, 0.0, 3600.0),
        idle_s=maybe_real(table, "idle_s", 0.0, 3600.0),
        timeout_s=table.real("timeout_s", usual.timeout_s, 1.0, 86400.0),
        tries=table.number("tries", usual.tries, 1, 10),
        check=table.flag("check", usual.check),
    )
    if care.warm_up_most < care.warm_up_least:
        raise ConfigError(_("{where}: warm_up_most is below warm_up_least.").format(where=table.where))
    return care
