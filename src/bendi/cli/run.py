"""`bendi run`: one question, a raw completion, or a chat.

What a terminal needs (prompt_toolkit, rich) is loaded only where there is one: a piped question must get its first
token as fast as the model can give it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any

from bendi.chat.conversation import Conversation
from bendi.chat.kept_states import KeptStates
from bendi.chat.memory import MemorySessions
from bendi.chat.parameters import POLICIES, Policy
from bendi.chat.personas import PersonaBook
from bendi.chat.sessions import Session, SessionStore
from bendi.chat.setup import Setup
from bendi.cli import output
from bendi.cli.answers import AnswerView, PlainView
from bendi.cli.engine_hint import suggest_native
from bendi.cli.job import PARAMETER_FLAGS, Job, read_job
from bendi.cli.one_shot import ask_once, complete_once
from bendi.cli.piped import read_piped
from bendi.engines import Engine, LoadRequest, open_recorded_engine
from bendi.engines.projector import open_seeing
from bendi.engines.protocol import KV_TYPES
from bendi.errors import OutOfMemory, UsageError
from bendi.hardware import detect_memory
from bendi.i18n import _
from bendi.settings import Settings, load_settings
from bendi.store import Store

LATE = {"chat": "bendi.cli.chat", "markdown": "bendi.cli.markdown_view", "advice": "bendi.cli.load_advice"}
"""Modules loaded by name when they are needed: for a terminal, and where memory is tight."""

_ROOMY = 0.5
"""A model that takes less than this part of memory fits with any context that is chosen for it."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = _("bendi run MODEL [PROMPT] [options]")
    add = parser.add_argument
    words_help = _(
        "the model (a name, an alias, a file, @PERSONA), then the question; without one: a chat. Text from a pipe or "
        "a file is the question, or is added to it"
    )
    add("words", nargs="*", metavar=_("MODEL [PROMPT]"), help=words_help)
    add("--json", action="store_true", help=_("the answer as JSON, with usage and timings"))
    add("--raw", action="store_true", help=_("continue the text as it is: no chat template, no session"))
    add("--image", action="append", metavar="FILE", help=_("show an image with the question; may be repeated"))
    add("--system", metavar="TEXT", help=_("the system prompt"))
    add("--persona", metavar="NAME", help=_("use a persona (`bendi persona list`)"))
    add("--continue", dest="resume", action="store_true", help=_("go on with the session used last"))
    add("--session", metavar="ID", help=_("go on with this session (`bendi session list`)"))
    add("--no-save", action="store_true", help=_("keep nothing of this conversation"))
    policy_help = _("when the context is full: refuse, ask (in the chat), summarise older turns, or leave them out")
    add("--policy", choices=POLICIES, help=policy_help)
    for name, what in PARAMETER_FLAGS.items():
        add("--" + name.replace("_", "-"), dest=name, metavar="N", help=_(what))
    add("--stop", action="append", metavar="TEXT", help=_("end the answer before this text; may be repeated"))
    add("--schema", metavar="FILE", help=_("a JSON schema that the answer must satisfy"))
    add("--think", action=argparse.BooleanOptionalAction, help=_("have a thinking model think, or not"))
    add("--context", type=int, metavar="TOKENS", help=_("context length to load the model with"))
    add("--kv", choices=KV_TYPES, help=_("type of the KV cache; smaller ones leave room for a longer context"))
    add("--threads", type=int, metavar="N", help=_("CPU threads"))
    speculate_help = _("guess words that stood before, several at a time: for summaries and edits; the same answer")
    add("--speculate", action="store_true", help=speculate_help)


def run(args: argparse.Namespace) -> int:
    settings = load_settings()
    piped = read_piped()
    personas = PersonaBook(settings.personas_file)
    with contextlib.ExitStack() as stack:
        kept: SessionStore | None = None
        if not (args.no_save or args.raw):
            kept = stack.enter_context(contextlib.closing(SessionStore(settings.sessions_file)))
            for notice in kept.notices:
                output.say(notice)
        job = read_job(args, piped, kept, personas, Store(settings))
        states = None
        if kept and settings.kept_states_bytes:
            states = KeptStates(settings.kept_states_dir, settings.kept_states_bytes)
        load = _loader(args, job, settings, states)
        suggest_native(settings)
        if not job.prompt and (args.json or args.raw or not sys.stdin.isatty()):
            raise UsageError(
                _("There is no question."),
                hint=_("Type it behind the model, or pipe it: echo 'What is quantization?' | bendi run MODEL"),
            )
        if args.raw:
            engine = stack.enter_context(contextlib.closing(load()))
            return complete_once(job, engine, _view(args))
        sessions = kept or MemorySessions()
        setup = _setup(job, sessions, personas, "error" if job.prompt else "ask")
        if job.prompt:
            engine = stack.enter_context(contextlib.closing(load()))
            conversation = Conversation(engine, sessions, setup, job.schema)
            # Of a session that this question begins, nothing is kept: most of them end with it.
            if states and job.session and (note := states.take_up(engine, job.session.id)):
                output.say(note)
            code = ask_once(job, conversation, _view(args))
            if states and job.session:
                states.put_down(engine, job.session.id, conversation.used_tok)
            return code
        code = _late("chat").chat(job, sessions, setup, load, states)
        assert isinstance(code, int)
        return code


def _setup(job: Job, sessions: SessionStore | MemorySessions, personas: PersonaBook, policy: Policy) -> Setup:
    session: Session | None = job.session
    if session is None:
        session = sessions.create(job.model_name)
    setup = Setup(sessions, session.id, personas, policy)
    setup.adopt(job.model_name, job.persona, job.system, job.chosen)
    return setup


def _loader(args: argparse.Namespace, job: Job, settings: Settings, states: KeptStates | None) -> Callable[[], Engine]:
    """Loads the model, with a progress bar; may be called again when a worker has died."""
    request = LoadRequest(
        model_path=job.model.path,
        context_tok=args.context or settings.context_tok,
        threads=args.threads or settings.threads,
        memory_limit_bytes=settings.worker_memory_bytes,
        type_k=args.kv or "f16",
        type_v=args.kv or "f16",
        state_dir=states.folder if states else None,
        speculate=args.speculate,
        mmproj_path=job.projector,
    )

    def open_it(request: LoadRequest) -> Engine:
        return open_seeing(request, open_as_asked, must_see=bool(job.images))

    def open_as_asked(request: LoadRequest) -> Engine:
        with output.progress(_("loading {model}").format(model=job.model_name), unit="percent") as bar:

            def show(fraction: float) -> None:
                bar.update(100 * fraction, 100)

            return open_recorded_engine(
                request, settings, show, job.model_name, output.say, record=not args.no_save
            )  # fmt: skip

    def load() -> Engine:
        if _is_tight(job, settings):
            engine: Engine = _late("advice").load_with_care(job.model, job.model_name, request, settings, open_it)
            return engine
        try:
            return open_it(request)
        except OutOfMemory as error:
            better = _late("advice").explained(error, job.model, job.model_name, request, settings)
            raise better from error

    return load


def _is_tight(job: Job, settings: Settings) -> bool:
    """Whether a plan is worth its time before the model is loaded. The fake engine loads nothing."""
    if settings.engine == "fake":
        return False
    usable_bytes = detect_memory().usable_bytes
    return settings.worker_memory_bytes is not None or job.model.size_bytes > usable_bytes * _ROOMY


def _view(args: argparse.Namespace) -> AnswerView | None:
    if args.json:
        return None
    if output.is_terminal() and not args.raw:
        view: AnswerView = _late("markdown").MarkdownView()
        return view
    return PlainView(safe=sys.stdout.isatty())


def _late(name: str) -> Any:
    return importlib.import_module(LATE[name])
