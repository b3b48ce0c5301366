"""The chat: reads messages and commands until the user leaves."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from bendi.chat.kept_states import KeptStates
from bendi.chat.memory import MemorySessions
from bendi.chat.sessions import SessionStore, StoredMessage
from bendi.chat.setup import Setup
from bendi.cli import output
from bendi.cli.answers import printable
from bendi.cli.chat_commands import COMMANDS, PREFIX, run_command
from bendi.cli.chat_plain import PlainScreen
from bendi.cli.chat_ui import TerminalScreen
from bendi.cli.job import Job
from bendi.cli.multiline import message_of
from bendi.cli.talk import Screen, Talk
from bendi.engines import Engine
from bendi.errors import BendiError
from bendi.i18n import _

_SHOWN_ON_RESUME = 4


def chat(
    job: Job,
    sessions: SessionStore | MemorySessions,
    setup: Setup,
    load: Callable[[], Engine],
    states: KeptStates | None = None,
) -> int:
    """Talks until the user leaves; returns the exit code."""
    prompts = sessions.recent_prompts() if isinstance(sessions, SessionStore) else []
    screen: Screen
    if output.is_terminal() and output.is_terminal(sys.stdin):
        screen = TerminalScreen(prompts, list(COMMANDS), setup.personas)
    else:
        screen = PlainScreen()
    with contextlib.closing(Talk(job, sessions, setup, screen, load, states)) as talk:
        _welcome(talk, resumed=job.session is not None)
        while not talk.leaving:
            suggestion, talk.suggestion = talk.suggestion, ""
            typed = screen.read(talk.status(), suggestion)
            if typed is None:
                break
            _handle(talk, typed)
        _farewell(talk)
    return 0


def _handle(talk: Talk, typed: str) -> None:
    # A command stands at the very start; a space before the slash makes it a message.
    is_command = typed.startswith(PREFIX)
    text = message_of(typed)
    if not text:
        return
    try:
        if is_command:
            run_command(talk, text)
        else:
            talk.ask(text)
    except BendiError as error:
        talk.screen.error(error.message, error.hint)
        if not is_command:
            talk.suggestion = text


def _welcome(talk: Talk, *, resumed: bool) -> None:
    session = talk.setup.session
    info = talk.conversation.engine.info
    talk.screen.note(
        _("{model}, {context} tokens of context. /help lists the commands, Ctrl-D leaves.").format(
            model=session.model, context=info.context_tok
        )
    )
    if not info.has_chat_template:
        talk.screen.note(_("This model has no chat template: it continues texts (--raw) rather than answering."))
    if not talk.kept:
        talk.screen.note(_("Nothing of this conversation is kept."))
    if resumed:
        talk.screen.note(_("Continuing: {title}").format(title=printable(session.title) or session.id))
        for stored in talk.conversation.messages[-_SHOWN_ON_RESUME:]:
            talk.screen.note(_brief(stored))


def _brief(stored: StoredMessage, chars: int = 200) -> str:
    text = " ".join(printable(stored.message.content).split())
    mark = "> " if stored.message.role == "user" else "  "
    return mark + (text if len(text) <= chars else text[:chars] + "…")


def _farewell(talk: Talk) -> None:
    if talk.kept and talk.conversation.messages:
        talk.screen.note(
            _("Saved. To continue: bendi run --continue, or --session {id}").format(id=talk.setup.session_id)
        )
