"""Which engines exist. A new one is a module with `open_engine` and one row here."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from bendi.engines.protocol import Engine, LoadRequest
from bendi.errors import ConfigError, EngineUnsupported, NotFoundError
from bendi.i18n import _
from bendi.settings import Settings

ENGINES = {
    "wheel": "bendi.engines.wheel",
    "native": "bendi.engines.native",
    "fake": "bendi.engines.fake",
}
DEFAULT = "wheel"
BUILDS_FOLDER = "engines"
"""Below the cache: native builds."""

Opener = Callable[[LoadRequest, Callable[[float], None] | None], Engine]
Notify = Callable[[str], None]


def open_engine(
    load: LoadRequest,
    settings: Settings,
    on_progress: Callable[[float], None] | None = None,
    on_notice: Notify | None = None,
) -> Engine:
    """Loads a model with the engine that `settings.engine` names; by default with the native build in use, where there
    is one that is proven here, else with the wheel.

    `settings.engine` may also be the name of a native build. `on_progress` gets the loaded fraction, 0 to 1, while the
    load runs; `on_notice` a sentence when the build in use cannot be used. Raises EngineUnsupported, OutOfMemory,
    EngineCrashed or ModelFileError; ConfigError when the engine does not exist.
    """
    return _opener(settings, on_notice)(load, on_progress)


def engine_build(settings: Settings) -> str:
    """The build that `open_engine` would use, as it names itself in `EngineInfo.build`; empty where that is not known
    before it runs."""
    name = settings.engine or ""
    if name in ENGINES and name != "native":
        return ""
    build = _native_build(settings, None)
    return str(build.engine_name) if build is not None else ""


def wheel_build() -> str:
    """What the wheel calls itself; empty where it is not installed, or more than once."""
    found = find_spec("xllamacpp")
    if found is None or found.origin is None:
        return ""
    # importlib.metadata would know, but takes longer to import than a whole plan.
    versions = [path.name.split("-")[1] for path in Path(found.origin).parent.parent.glob("xllamacpp-*.dist-info")]
    return f"xllamacpp {versions[0].removesuffix('.dist')}" if len(versions) == 1 else ""


def _opener(settings: Settings, on_notice: Notify | None) -> Opener:
    name = settings.engine or ""
    if name in ENGINES and name != "native":
        return cast(Opener, importlib.import_module(ENGINES[name]).open_engine)
    build = _native_build(settings, on_notice)
    if build is None:
        return cast(Opener, importlib.import_module(ENGINES[DEFAULT]).open_engine)
    native = importlib.import_module(ENGINES["native"])
    return cast(Opener, functools.partial(native.open_engine, build=build))


def _native_build(settings: Settings, on_notice: Notify | None) -> Any:
    """The native build that `settings` mean; None for the default where the wheel must do."""
    name = settings.engine or ""
    if not name and not (settings.cache_dir / BUILDS_FOLDER).is_dir():
        return None  # usual, and no reason to load what manages builds
    builds = importlib.import_module("bendi.engines.native_builds")
    if name and name != "native":
        try:
            return builds.usable(builds.find_build(settings, name))
        except NotFoundError as error:
            raise ConfigError(
                _("there is no engine {name!r}").format(name=name),
                hint=_("Known engines: {names}").format(names=", ".join(ENGINES)),
            ) from error
    choice = builds.chosen(settings)
    if choice.build is None and name:
        raise EngineUnsupported(
            choice.notice or _("No native build is in use."),
            hint=_("Build one: {command}").format(command="bendi engine build"),
        )
    if choice.notice and on_notice and builds.first_time(settings, choice.notice):
        on_notice(choice.notice)
    return choice.build


def open_recorded_engine(
    load: LoadRequest,
    settings: Settings,
    on_progress: Callable[[float], None] | None = None,
    name: str = "",
    on_notice: Callable[[str], None] | None = None,
    *,
    record: bool = True,
) -> Engine:
    """As `open_engine`, with the settings that were tuned for this model where `load` leaves them open; sizes and
    speeds of the load and its answers are kept for later predictions.

    `name`: of the model, as the history shows it. `on_notice` gets a sentence when they cannot be kept. `record`: False
    to keep nothing.
    """
    recording = importlib.import_module("bendi.engines.recording")
    return cast(Engine, recording.open_recorded(load, settings, on_progress, name, on_notice, record=record))
