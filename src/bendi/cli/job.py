"""What a command line of `bendi run` asks for: which model, question, session and parameters."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bendi.chat.parameters import check_value, parse_value
from bendi.chat.personas import Persona, PersonaBook
from bendi.chat.sessions import Session, SessionStore
from bendi.cli.arguments import check_above_zero
from bendi.engines.projector import projector_beside
from bendi.errors import NotFoundError, UsageError
from bendi.formats.images import MAX_IMAGE_BYTES, MAX_PIXELS, is_usable, pixels
from bendi.i18n import N_, _
from bendi.store import LocalModel, Store
from bendi.units import format_size

PARAMETER_FLAGS: Mapping[str, str] = {
    "temperature": N_("0: always the likeliest token; higher: more varied"),
    "top_p": N_("only the likeliest tokens that together have this probability"),
    "top_k": N_("choose among the N likeliest tokens only"),
    "min_p": N_("only tokens with at least this part of the likeliest one's probability"),
    "repeat_penalty": N_("above 1: tokens that occurred become less likely"),
    "presence_penalty": N_("above 0: whatever occurred becomes less likely"),
    "frequency_penalty": N_("above 0: what occurred often becomes less likely"),
    "seed": N_("the same seed gives the same answer"),
    "max_tokens": N_("end the answer after so many tokens"),
}
PERSONA_MARK = "@"


@dataclass(frozen=True)
class Job:
    """`chosen`: the parameters of the flags, as `parameters.join` takes them. `system`: None when not given.

    `session`: the one to go on with. `schema`: what the answer must satisfy. `images`: files that the first question
    shows. `projector`: what makes the model see; None where nothing is to be seen, or where there is none.
    """

    model: LocalModel
    model_name: str
    prompt: str
    chosen: Mapping[str, Any]
    system: str | None = None
    persona: Persona | None = None
    session: Session | None = None
    schema: Mapping[str, Any] | None = None
    images: tuple[bytes, ...] = ()
    projector: Path | None = None


def read_job(
    args: argparse.Namespace, piped: str, sessions: SessionStore | None, personas: PersonaBook, store: Store
) -> Job:
    """Raises UsageError or NotFoundError for whatever does not make sense. `sessions`: None where nothing is kept."""
    _check(args)
    chosen = _chosen(args)
    schema = _schema(Path(args.schema)) if args.schema else None
    session = _session(args, sessions) if sessions else None
    words = list(args.words)
    persona = personas.get(args.persona) if args.persona else None
    if words and words[0].startswith(PERSONA_MARK) and len(words[0]) > 1:
        persona = personas.get(words.pop(0)[1:])
        words.insert(0, _model_of(persona))
    if session and (not words or not _is_model(words[0], store)):
        words.insert(0, session.model)
    if not words:
        if persona is None:
            raise UsageError(
                _("Which model?"), hint=_("`bendi run demo` starts the built-in one; `bendi list` shows the others.")
            )
        words = [_model_of(persona)]
    model = store.resolve(words[0])
    name = str(model.path.absolute()) if model.origin == "path" else model.name
    prompt = "\n\n".join(part for part in (" ".join(words[1:]), piped) if part.strip())
    images = tuple(read_image(Path(name)) for name in args.image or ())
    # A single question without images need not wait for it.
    projector = None if prompt and not images and not _seen(session, sessions) else projector_beside(model.path)
    if images and projector is None:
        raise UsageError(
            _("{model} cannot see images: no projector lies beside it.").format(model=name),
            hint=_("Models that see: {command}").format(command="bendi fit --for vision"),
        )
    return Job(model, name, prompt, chosen, args.system, persona, session, schema, images, projector)


def read_image(path: Path) -> bytes:
    """Raises UsageError for what is no image that engines read, or too large."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_IMAGE_BYTES + 1)  # it may be a device without an end
    except OSError as error:
        raise UsageError(_("{path} cannot be read: {error}").format(path=path, error=error)) from error
    if not 0 < len(content) <= MAX_IMAGE_BYTES:
        raise UsageError(
            _("{path} is empty or larger than {size}.").format(path=path, size=format_size(MAX_IMAGE_BYTES)),
            hint=_("Choose another image, or make this one smaller."),
        )
    if not is_usable(*(pixels(content) or (0, 0))):
        raise UsageError(
            _("{path} cannot be used as an image.").format(path=path),
            hint=_("PNG, JPEG, GIF and BMP can, of at most {most} pixels.").format(most=MAX_PIXELS),
        )
    return content


def _seen(session: Session | None, sessions: SessionStore | None) -> bool:
    """Whether something was shown in a session that is gone on with."""
    return bool(session and sessions and any(stored.images for stored in sessions.messages(session.id)))


def _check(args: argparse.Namespace) -> None:
    resumed = args.resume or args.session
    if args.resume and args.session:
        raise UsageError(_("--continue and --session exclude each other."))
    if args.no_save and resumed:
        raise UsageError(_("A session that is continued is also saved: leave out --no-save."))
    if args.raw and (resumed or args.persona or args.system is not None or args.think is not None or args.image):
        raise UsageError(_("--raw continues a text: it knows no system prompt, persona, thinking, image or session."))
    for flag, value in (("--context", args.context), ("--threads", args.threads)):
        check_above_zero(flag, value)


def _chosen(args: argparse.Namespace) -> dict[str, Any]:
    texts = {name: getattr(args, name) for name in PARAMETER_FLAGS if getattr(args, name) is not None}
    chosen = {name: parse_value(name, text) for name, text in texts.items()}
    if args.stop:
        chosen["stop"] = check_value("stop", args.stop)
    if args.think is not None:
        chosen["template_options"] = {"enable_thinking": args.think}
    if args.policy:
        chosen["context_policy"] = args.policy
    return chosen


def _schema(path: Path) -> Mapping[str, Any]:
    try:
        schema = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UsageError(_("{path} cannot be read: {error}").format(path=path, error=error)) from error
    except ValueError as error:
        raise UsageError(_("{path} is not JSON: {error}").format(path=path, error=error)) from error
    if not isinstance(schema, dict):
        raise UsageError(_("{path} is not a JSON schema: it must be an object.").format(path=path))
    return schema


def _session(args: argparse.Namespace, sessions: SessionStore) -> Session | None:
    if args.session:
        return sessions.find(args.session)
    if not args.resume:
        return None
    recent = sessions.recent(1, owner="")
    if not recent:
        raise NotFoundError(_("There is no session to continue."), hint=_("Start one: bendi run MODEL"))
    return recent[0]


def _model_of(persona: Persona) -> str:
    if not persona.model:
        raise UsageError(
            _("The persona {name} names no model.").format(name=persona.name),
            hint=_("Add one (`bendi persona edit {name}`), or: bendi run MODEL --persona {name}").format(
                name=persona.name
            ),
        )
    return persona.model


def _is_model(word: str, store: Store) -> bool:
    """Whether the first word after --continue names a model, or begins the question."""
    try:
        return " " not in word and store.find(word) is not None
    except UsageError:
        return False
