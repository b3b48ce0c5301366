"""What a model of this machine can do and what it is, from its header, as the APIs tell it. Headers are read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bendi.engines.projector import projector_beside
from bendi.errors import ModelFileError, NotFoundError
from bendi.formats import GgufFile, ModelInfo, model_info
from bendi.settings import Settings
from bendi.store import LocalModel, Store
from bendi.store.catalogue import DEMO
from bendi.store.local_headers import local_headers

_REMEMBERED = 256
_SIGNS_OF_THINKING = ("enable_thinking", "<think>", "reasoning_content", "reasoning_effort")


@dataclass(frozen=True)
class ModelFacts:
    """`header`: of the first file. `capabilities`: in Ollama's words: completion, tools, thinking, vision,
    embedding."""

    info: ModelInfo
    header: GgufFile
    capabilities: tuple[str, ...]


def facts_of(model: LocalModel, settings: Settings) -> ModelFacts:
    """Raises ModelFileError, NotFoundError."""
    try:
        status = model.path.stat()
    except OSError as error:
        raise NotFoundError(str(error.strerror)) from error
    return _facts(model.path, status.st_mtime_ns, status.st_size, settings.cache_dir)


def known_facts(model: LocalModel, settings: Settings) -> ModelFacts | None:
    """As `facts_of`; None for a file that is not a usable model."""
    try:
        return facts_of(model, settings)
    except (ModelFileError, NotFoundError):
        return None


def named_models(store: Store) -> list[tuple[str, LocalModel]]:
    """Every model that can be asked, with each name of its own: those of the user's aliases come with their models; the
    built-in one is the last. Reads folders: to be called in a thread."""
    models = [(model.name, model) for model in store.models() if model.complete]
    aliases = [name for name in store.catalogue.names() if store.catalogue.is_own(name)]
    named = [(name, model) for name in aliases if (model := store.find(name)) is not None]
    return [*sorted([*models, *named], key=lambda pair: pair[0].casefold()), (DEMO, store.resolve(DEMO))]


@lru_cache(_REMEMBERED)
def _facts(path: Path, _changed_ns: int, _size_bytes: int, cache_dir: Path) -> ModelFacts:
    parts = local_headers(path, cache_dir)
    info = model_info(*parts)
    can = _capabilities(info, parts[0])
    if "completion" in can and projector_beside(path) is not None:
        can = (*can, "vision")
    return ModelFacts(info, parts[0], can)


def _capabilities(info: ModelInfo, header: GgufFile) -> tuple[str, ...]:
    if header.integer(f"{info.architecture}.pooling_type") is not None:
        return ("embedding",)
    template = info.chat_template or ""
    found = ["completion"]
    if "tools" in template:
        found.append("tools")
    if any(sign in template for sign in _SIGNS_OF_THINKING):
        found.append("thinking")
    return tuple(found)
