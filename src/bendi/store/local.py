"""The models of this machine under their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from bendi.errors import ModelIncomplete, NotFoundError, StoreError, UsageError
from bendi.i18n import _
from bendi.settings import Settings
from bendi.store.catalogue import DEMO, Catalogue, demo_path, load_catalogue, nearest_hint
from bendi.store.discover import (
    ORIGINS,
    LocalModel,
    from_path,
    scan_hub_cache,
    scan_lmstudio,
    scan_ollama,
    scan_root,
)
from bendi.store.names import AliasName, ModelName, PathName, format_name, parse_name, typed
from bendi.units import format_size

ALIASES_NAME = "aliases.toml"


class Store:
    """Finds models in all places that the settings name. Every call looks at the disk anew; nothing is changed.

    `root`: the folder that pulls write into. `catalogue`: the short names; `aliases_file`: the user's own.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.root = settings.models_dirs[0].absolute()
        self.roots = tuple(path.absolute() for path in settings.models_dirs)
        self.aliases_file = settings.config_dir / ALIASES_NAME
        self._catalogue: tuple[object, Catalogue] | None = None

    @property
    def catalogue(self) -> Catalogue:
        """As the file of aliases says now."""
        stamp = _stamp(self.aliases_file)
        if self._catalogue is None or self._catalogue[0] != stamp:
            self._catalogue = stamp, load_catalogue(self.aliases_file)
        return self._catalogue[1]

    def models(self) -> list[LocalModel]:
        """Every model of this machine, by name; a file that is seen in two places is listed once."""
        found = [model for root in self.roots for model in scan_root(root)]
        found += scan_lmstudio(self.settings.lmstudio_models_dir)
        found += scan_hub_cache(self.settings.hf_cache_dir)
        found += scan_ollama(self.settings.ollama_models_dir)
        unique: dict[object, LocalModel] = {}
        for model in sorted(found, key=lambda model: ORIGINS.index(model.origin)):
            first = unique.setdefault(_identity(model.path), model)
            if first is not model:
                unique[_identity(model.path)] = replace(first, spellings=first.spellings | model.spellings)
        return sorted(unique.values(), key=lambda model: (model.name.casefold(), ORIGINS.index(model.origin)))

    def find(self, text: str) -> LocalModel | None:
        """As `resolve`, but None when there is no such model, or it is not complete."""
        try:
            return self.resolve(text)
        except (NotFoundError, StoreError):
            return None

    def resolve(self, text: str) -> LocalModel:
        """The complete model that `text` means: `demo`, a path, a name, an alias, or a part of a name that is enough.

        Raises NotFoundError (with the nearest names and the command that brings the model), UsageError when several
        models fit, ModelIncomplete when its download has not ended.
        """
        model = self.lookup(text)
        if not model.complete:
            raise ModelIncomplete(
                _("{name} is not complete on this machine").format(name=model.name),
                hint=_("Continue its download: {command}").format(command=f"bendi pull {typed(model.name)}"),
            )
        return model

    def lookup(self, text: str) -> LocalModel:
        """As `resolve`, but also finds models whose download has not ended."""
        text = text.strip()
        if text.casefold() == DEMO:
            return _demo()
        name = _parsed(text)
        if isinstance(name, PathName):
            at_path = from_path(name.path)
            if len(at_path) == 1:
                return at_path[0]
            if at_path:
                raise _ambiguous(text, at_path)
        models = self.models()
        matches = self._matches(models, text, name)
        if not matches:
            raise self._not_found(models, text, name)
        names = {model.name for model in matches}
        if len(names) > 1:
            raise _ambiguous(text, matches)
        return min(matches, key=lambda model: (not model.complete, ORIGINS.index(model.origin)))

    def _matches(self, models: Sequence[LocalModel], text: str, name: ModelName | None) -> list[LocalModel]:
        """Models of that exact name; else those that the text can mean; else those that the alias stands for."""
        wanted = [text.casefold()]
        if name is not None and not isinstance(name, PathName):
            wanted.insert(0, format_name(name).casefold())
        for key in wanted:
            exact = [model for model in models if model.name.casefold() == key]
            if exact:
                return exact
        for key in wanted:
            possible = [model for model in models if key in model.spellings]
            if possible:
                return possible
        if isinstance(name, AliasName) and name.alias in self.catalogue.names():
            for target in self.catalogue.targets(name):
                if isinstance(target, PathName):
                    return from_path(target.path)
                if isinstance(target, AliasName):  # the built-in model: other short names stand for whole ones
                    return [_demo()]
                key = format_name(target).casefold()
                possible = [model for model in models if key in model.spellings]
                if possible:
                    return possible
        return []

    def _not_found(self, models: Sequence[LocalModel], text: str, name: ModelName | None) -> NotFoundError:
        if isinstance(name, PathName):
            return NotFoundError(
                _("there is no model file at {path}").format(path=name.path),
                hint=_("Models on this machine: bendi list"),
            )
        if name is None:  # says what is wrong with the name, and how it could be right
            try:
                parse_name(text)
            except UsageError as error:
                return NotFoundError(error.message, hint=error.hint)
        here = {spelling: model.name for model in models for spelling in (model.name.casefold(), *model.spellings)}
        close = get_close_matches(text.casefold(), list(here), n=5, cutoff=0.6)
        close += [spelling for spelling in here if text.casefold() in spelling]
        lines = []
        if close:
            near = ", ".join([*dict.fromkeys(here[spelling] for spelling in close)][:5])
            lines.append(_("Nearest on this machine: {names}").format(names=near))
        if isinstance(name, AliasName) and name.alias not in self.catalogue.names():
            lines.append(nearest_hint(self.catalogue.near(name.alias)))
        else:
            lines.append(_("To download it: {command}").format(command=f"bendi pull {typed(text)}"))
        return NotFoundError(_("the model {name} is not on this machine").format(name=text), hint="\n".join(lines))


def _parsed(text: str) -> ModelName | None:
    try:
        return parse_name(text)
    except UsageError:
        return None


def _demo() -> LocalModel:
    path = demo_path()
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise StoreError(
            _("the built-in model is missing from this installation"),
            hint=_("Install bendi again: pip install --force-reinstall bendi"),
        ) from error
    return LocalModel(DEMO, path, (path,), size_bytes, "demo", spellings=frozenset({DEMO}))


def _ambiguous(text: str, models: Sequence[LocalModel]) -> UsageError:
    lines = [f"{typed(model.name)}  {format_size(model.size_bytes)}  {model.path}" for model in models[:20]]
    return UsageError(
        _("{text} can mean {count} models of this machine").format(text=text, count=len(models)),
        hint="\n".join([_("Say which one:"), *lines]),
    )


def _stamp(path: Path) -> object:
    """What changes when a file does; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _identity(path: Path) -> object:
    """What two paths share that are one file, by links of either kind."""
    try:
        status = path.stat()
    except OSError:
        return path
    return (status.st_dev, status.st_ino) if status.st_ino else path.resolve()
