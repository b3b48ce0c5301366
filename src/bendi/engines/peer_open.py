"""From a kind of engine to the engine: the one door to all adapters of other engines."""

from __future__ import annotations

from bendi.engines.peer_llama import open_llama_server
from bendi.engines.peer_ollama import open_ollama
from bendi.engines.peer_openai import open_openai
from bendi.engines.peer_outside import open_outside
from bendi.engines.peer_started import open_started
from bendi.engines.peer_types import KINDS, PeerEngine, PeerLoad, PeerSpec
from bendi.errors import UsageError
from bendi.i18n import _
from bendi.settings import Settings


def open_peer(spec: PeerSpec, load: PeerLoad, settings: Settings) -> PeerEngine:
    """Starts the engine with the model, or finds it where it runs, and returns once it can answer.

    Raises UsageError for a kind or setting that does not exist, EngineUnsupported where the engine is not installed,
    NotFoundError, Offline, ConfigError, and EngineError that says why it does not run.
    """
    if spec.kind == "llama-server":
        return open_llama_server(spec, load, settings)
    if spec.kind == "ollama":
        return open_ollama(spec, load, settings)
    if spec.kind == "openai":
        return open_openai(spec, load, settings)
    if spec.kind in ("vllm", "fastllm"):
        return open_started(spec, load)
    if spec.kind in ("transformers", "openvino"):
        return open_outside(spec, load)
    raise UsageError(
        _("There is no engine {name}.").format(name=spec.kind), hint=_("It has: {names}").format(names=", ".join(KINDS))
    )
