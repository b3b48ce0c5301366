"""The files that a study measures: found on this machine, given by path, made from one of higher precision
(`quantizing`), or made with random weights for the while."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bendi.bench.study import ModelChoice, Study
from bendi.engines.random_weights import MEASURABLE_TYPES, write_random_model
from bendi.errors import NotFoundError, UsageError
from bendi.formats import model_info, read_gguf_split
from bendi.formats.blueprint import Value
from bendi.formats.blueprints import blueprint_from_config
from bendi.formats.gguf_writer import BytewiseVocabulary
from bendi.formats.quant_types import FILE_TYPES
from bendi.i18n import _
from bendi.planner.mixture import facts_of, needs_imatrix, quantized_types, shapes_of
from bendi.planner.mixture_rules import ALIASES
from bendi.store import Store
from bendi.store.disk import hash_file, make_folder, store_error
from bendi.store.known_models import known_models
from bendi.units import format_size


@dataclass(frozen=True)
class Subject:
    """One file of a study. `path`: None for one that is made when it is needed. `vocab_size`: how many tokens the model
    knows. `config`: as in a `config.json`, for engines that do not read GGUF; only of shapes. `source`: the file that
    this one is to be made from."""

    model: str
    quantization: str
    path: Path | None
    vocab_size: int
    random_weights: bool = False
    config: Mapping[str, object] | None = None
    source: Path | None = None


def subjects_of(study: Study, store: Store) -> list[Subject]:
    """Every file of the study, in the order of the study file. Raises NotFoundError, UsageError, ModelFileError."""
    found = []
    for model in study.models:
        if model.shape:
            found += [_shape(model, quantization) for quantization in model.quantizations]
        elif model.is_quantized_here:
            found += _quantized(model, study.folder, store)
        elif model.files:
            found += [_file(model.name, quantization, path) for quantization, path in model.files.items()]
        elif model.quantizations:
            found += [
                _file(model.name, quantization, store.resolve(_named(model.name, quantization)).path)
                for quantization in model.quantizations
            ]
        else:
            found.append(_file(model.name, "", store.resolve(model.name).path))
    return found


def _named(name: str, quantization: str) -> str:
    """How `bendi run` calls a quantization of a model."""
    return name.replace("{quantization}", quantization) if "{quantization}" in name else f"{name}:{quantization}"


def _file(model: str, quantization: str, path: Path) -> Subject:
    if not path.is_file():
        raise NotFoundError(_("There is no file {path}.").format(path=path), hint="bendi list")
    headers = read_gguf_split(path)
    info = model_info(headers[0])
    return Subject(model, quantization or info.quantization or path.stem, path, info.vocab_size)


SOURCES = ("F32", "BF16", "F16", "Q8_0")
"""What other quantizations can be made from, the best first: the last one costs them a little quality."""


def _quantized(model: ModelChoice, folder: Path, store: Store) -> list[Subject]:
    """The files that are there, and those that are to be made."""
    there = [_file(model.name, quantization, path) for quantization, path in model.files.items()]
    have = {subject.quantization.upper() for subject in there}
    source = _source(model, there, folder, store)
    headers = read_gguf_split(source)
    info, facts = model_info(headers[0]), facts_of(headers[0])
    own = (info.quantization or "").upper()
    if own not in SOURCES:
        raise UsageError(
            _("{path} is {quantization}: what is made from it would be worse than its name says.").format(
                path=source, quantization=info.quantization or _("of an unknown type")
            ),
            hint=_("Name one of {names}.").format(names=", ".join(SOURCES)),
        )
    shapes = shapes_of(*headers)
    for quantization in model.quantizations:
        name = ALIASES.get(quantization.upper(), quantization.upper())
        if name in have:
            continue
        have.add(name)
        if name == own:
            there.append(_file(model.name, name, source))
            continue
        if needs_imatrix(shapes, facts, name):  # raises for what is no quantization
            raise UsageError(
                _("{quantization} cannot be made without an importance matrix.").format(quantization=name),
                hint=_("Give the file of somebody who has one: {example}").format(
                    example=f'files = {{ {name} = "model-{name}.gguf" }}'
                ),
            )
        there.append(Subject(model.name, name, None, info.vocab_size, source=source))
    return there


def _source(model: ModelChoice, there: Sequence[Subject], folder: Path, store: Store) -> Path:
    """The file to make others from."""
    if model.source:
        given = folder / Path(model.source).expanduser()
        return given if given.is_file() else store.resolve(model.source).path
    by_name = {subject.quantization.upper(): subject.path for subject in there}
    best = next((path for name in SOURCES if (path := by_name.get(name))), None)
    if best is None:
        raise UsageError(
            _("{model}: the quantizations that have no file can only be made from one of {names}.").format(
                model=model.name, names=", ".join(SOURCES)
            ),
            hint=_("Name it: {example}").format(example='source = "model-f16.gguf"'),
        )
    return best


def _shape(model: ModelChoice, quantization: str) -> Subject:
    known = known_models()
    if model.name not in known:
        raise NotFoundError(
            _("The catalogue has no model {name!r}.").format(name=model.name),
            hint=_("Its names: {command}").format(command="bendi fit --all"),
        )
    blueprint = blueprint_from_config(known[model.name].config, "model")
    header = blueprint.header()
    types = quantized_types(shapes_of(header), facts_of(header), quantization)
    unknown = sorted(set(types) - MEASURABLE_TYPES)
    if unknown:
        raise UsageError(_("Random weights cannot be made for {types}.").format(types=", ".join(unknown)))
    return Subject(model.name, quantization, None, blueprint.vocab, True, known[model.name].config)


def _metadata(subject: Subject) -> dict[str, Value]:
    found = BytewiseVocabulary(subject.vocab_size).metadata()
    numbers = {name: number for number, name in FILE_TYPES.items()}
    if subject.quantization in numbers:
        found["general.file_type"] = numbers[subject.quantization]
    return found


class Files:
    """Gives each subject its file; makes those with random weights in `folder`, which is removed by `close`."""

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        self._folder, self._note = folder, note
        self._hashes: dict[Path, str] = {}

    def path(self, subject: Subject, *, bytewise: bool = False) -> Path:
        """`bytewise`: of random weights, for readers that know only vocabularies of the kind `gpt2`. Raises
        StoreError."""
        if subject.path is not None:
            return subject.path
        name = "".join(char if char.isalnum() else "-" for char in f"{subject.model}-{subject.quantization}")
        path = self._folder / f"{name}{'-bytewise' if bytewise else ''}.gguf"
        if not path.exists():
            assert subject.config is not None
            blueprint = blueprint_from_config(subject.config, "model")
            header = blueprint.header()
            types = quantized_types(shapes_of(header), facts_of(header), subject.quantization)
            make_folder(self._folder)
            try:
                # Under another name first: a file that was cut off by a kill must not be taken for a whole one.
                partial = path.with_suffix(".part")
                partial.unlink(missing_ok=True)
                write_random_model(partial, blueprint, types, _metadata(subject) if bytewise else None).rename(path)
            except OSError as error:
                raise store_error(error, path) from error
            self._note(
                _("Random weights for {model} {quantization}: {size}").format(
                    model=subject.model, quantization=subject.quantization, size=format_size(path.stat().st_size)
                )
            )
        return path

    def sha256(self, path: Path) -> str:
        """Of a file, computed once. Raises StoreError."""
        if path not in self._hashes:
            self._hashes[path] = hash_file(path)
        return self._hashes[path]

    def close(self) -> None:
        for path in self._folder.glob("*"):
            path.unlink(missing_ok=True)
        if self._folder.is_dir():
            self._folder.rmdir()
