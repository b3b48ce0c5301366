"""One model in its quantizations: what is known of each before it is planned, and where its file is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bendi.advisor.catalogue_work import catalogue_subjects
from bendi.advisor.shapes import file_type_of, parts_of_config, subjects_for
from bendi.errors import UsageError
from bendi.measured import model_key
from bendi.planner.subject import Subject, offered, subjects_of
from bendi.store import LocalModel, Store
from bendi.store.catalogue import packaged_names
from bendi.store.inspecting import Inspection, InspectOptions, inspect_model
from bendi.store.known_models import KnownModel, known_models
from bendi.store.names import AliasName, RepoName, as_name, format_name
from bendi.store.sources import list_remote, open_transport
from bendi.store.variants import Variant, group

Availability = Literal["here", "there", "unchecked", "to_make"]
"""`"here"`: on this machine; `"there"`: its source has it; `"unchecked"`: usual, but nobody has looked; `"to_make"`: it
would have to be quantized first."""


@dataclass(frozen=True)
class Candidate:
    """A quantization that could be planned. `name`: what to type for it; empty where there is nothing to type yet.
    `key`: what measurements of it are kept under, empty where its tensors are not known."""

    subject: Subject
    availability: Availability
    name: str
    key: str = ""


@dataclass(frozen=True)
class Candidates:
    """`title`: for people. `own`: the quantization that the name means, empty where it leaves that open. `others`:
    (label, bytes) of mixtures of a maker's own at the source, which only their headers tell. `received_bytes`: what
    looking cost, None without a network. `model_type`: of the config, where known. `known`: the model's entry in the
    catalogue."""

    name: str
    title: str
    items: tuple[Candidate, ...]
    own: str = ""
    others: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    received_bytes: int | None = None
    parameters: int = 0
    model_type: str = ""
    known: KnownModel | None = None


def candidates_of(store: Store, text: str, look: InspectOptions, file_types: Sequence[str] = ()) -> Candidates:
    """All quantizations of the model that `text` names: of this machine; else of the catalogue, without a network; else
    (or when `look` says so) at its source. `file_types`: those to work out beside the model's own; empty: what is
    usually offered.

    Raises as `inspect_model`.
    """
    name = as_name(text)
    asks_source = look.remote or look.source is not None
    here = None if asks_source else _here(store, text)
    if here is None and isinstance(name, AliasName) and not asks_source and not store.catalogue.is_own(name.alias):
        subjects = catalogue_subjects(name.alias)
        if subjects:
            return _of_catalogue(name, subjects, file_types)
    return _of_inspection(store, inspect_model(store, text, look), file_types)


def _here(store: Store, text: str) -> LocalModel | None:
    try:
        return store.find(text)
    except UsageError:
        return None  # several fit; looking at it will say so


def _of_catalogue(alias: AliasName, subjects: Mapping[str, Subject], file_types: Sequence[str]) -> Candidates:
    model = known_models()[alias.alias]
    wanted = [alias.quant] if alias.quant else list(file_types) or list(subjects)
    found = [subjects[name] for name in wanted if name in subjects]
    rest = [name for name in wanted if name not in subjects]
    if rest:
        found += subjects_for(alias.alias, parts_of_config(model.config, model.title), rest)
    published = alias.alias in packaged_names()
    items = [
        Candidate(subject, "unchecked", f"{alias.alias}:{subject.quantization}")
        if published
        else Candidate(subject, "to_make", "")
        for subject in found
    ]
    return Candidates(
        name=alias.alias,
        title=model.title,
        items=tuple(items),
        own=alias.quant or "",
        parameters=model.parameters,
        known=model,
        model_type=str(model.config.get("model_type", "")),
    )


def _of_inspection(store: Store, found: Inspection, file_types: Sequence[str]) -> Candidates:
    title = found.info.name or found.name
    if found.container == "safetensors":
        parts = parts_of_config(found.config or {}, title)
        made = subjects_for(found.name, parts, file_types or offered(parts))
        return Candidates(
            name=found.name,
            title=title,
            items=tuple(Candidate(subject, "to_make", "") for subject in made),
            notes=found.notes,
            received_bytes=found.received_bytes,
            parameters=found.info.parameters,
            model_type=str((found.config or {}).get("model_type", "")),
        )
    own = subjects_of(found.name, found.parts)[0]
    label = found.local.label if found.local else found.remote.label if found.remote else ""
    own = replace(own, quantization=label or own.quantization, file_bytes=found.size_bytes or own.file_bytes)
    first = Candidate(own, "here" if found.local else "there", found.name, model_key(found.parts))
    siblings, others = _siblings(store, found)
    siblings.pop(own.quantization, None)
    for known in [label for label in siblings if file_type_of(label) is None]:
        others.append((known, siblings.pop(known)[0]))
    items = [first, *_others(found, siblings, file_types, own.quantization)]
    return Candidates(
        name=found.name,
        title=title,
        items=tuple(items),
        own=own.quantization,
        others=tuple(sorted(others, key=lambda item: -item[1])),
        notes=found.notes,
        received_bytes=found.received_bytes,
        parameters=found.info.parameters,
    )


Siblings = dict[str, tuple[int, Availability, str]]
"""By label: bytes, where it is, and its name."""


def _others(found: Inspection, siblings: Siblings, file_types: Sequence[str], own: str) -> list[Candidate]:
    """The other quantizations, the largest file first."""
    wanted = list(file_types) or [*offered(found.parts), *(str(file_type_of(label)) for label in siblings)]
    done = {file_type_of(own) or own}
    made = subjects_for(found.name, found.parts, [name for name in dict.fromkeys(wanted) if name not in done])
    by_type = {str(file_type_of(label)): (label, *rest) for label, rest in siblings.items()}
    candidates = []
    for subject in made:
        if subject.quantization in by_type:
            label, size_bytes, availability, name = by_type[subject.quantization]
            known = replace(subject, quantization=label, file_bytes=size_bytes or subject.file_bytes, model=name)
            candidates.append(Candidate(known, availability, name))
        else:
            candidates.append(Candidate(subject, "to_make", ""))
    return sorted(candidates, key=lambda candidate: -candidate.subject.file_bytes)


def _siblings(store: Store, found: Inspection) -> tuple[Siblings, list[tuple[str, int]]]:
    """The other quantizations of the same repository, with sizes as they are; and those whose name says nothing."""
    name = _repository(found)
    if name is None:
        return {}, []
    if found.remote is not None:
        with open_transport(store.settings) as transport:
            variants, _incomplete = group(list_remote(name, transport, store.settings))
        return _by_label(name, variants), []
    siblings: Siblings = {}
    for model in local_siblings(store, name):
        if model.label:
            siblings.setdefault(model.label, (model.size_bytes, "here", model.name))
    return siblings, []


def local_siblings(store: Store, repo: RepoName) -> list[LocalModel]:
    """The models of that repository which are on this machine, whole."""
    named = ((model, as_name(model.name)) for model in store.models() if model.complete)
    return [
        model for model, name in named if isinstance(name, RepoName) and (name.org, name.repo) == (repo.org, repo.repo)
    ]


def _by_label(name: RepoName, variants: Sequence[Variant]) -> Siblings:
    labels = [variant.label for variant in variants]
    return {
        variant.label: (variant.size_bytes, "there", format_name(replace(name, quant=variant.label, file=None)))
        for variant in variants
        if variant.label and labels.count(variant.label) == 1
    }


def _repository(found: Inspection) -> RepoName | None:
    name = found.remote.name if found.remote else as_name(found.name)
    return name if isinstance(name, RepoName) else None
