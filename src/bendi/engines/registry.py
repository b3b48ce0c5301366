"""Which engines exist. A new one is a module with `open_engine` and one row here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from bendi.engines.protocol import Engine, LoadRequest
from bendi.errors import ConfigError
from bendi.i18n import _
from bendi.settings import Settings

ENGINES = {
    "wheel": "bendi.engines.wheel",
    "fake": "bendi.engines.fake",
}
DEFAULT = "wheel"

Opener = Callable[[LoadRequest, Callable[[float], None] | None], Engine]


def open_engine(load: LoadRequest, settings: Settings, on_progress: Callable[[float], None] | None = None) -> Engine:
    """Loads a model with the engine that `settings.engine` names, else with the default.

    `on_progress` gets the loaded fraction, 0 to 1, while the load runs. Raises EngineUnsupported, OutOfMemory,
    EngineCrashed or ModelFileError; ConfigError when the engine does not exist.
    """
    name = settings.engine or DEFAULT
    if name not in ENGINES:
        raise ConfigError(
            _("there is no engine {name!r}").format(name=name),
            hint=_("Known engines: {names}").format(names=", ".join(ENGINES)),
        )
    module = importlib.import_module(ENGINES[name])
    return cast(Opener, module.open_engine)(load, on_progress)
