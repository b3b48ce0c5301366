"""A chat in progress: what the commands work on, and how a question becomes an answer on a screen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from bendi.chat.conversation import Conversation, Event, Reply
from bendi.chat.kept_states import KeptStates
from bendi.chat.memory import MemorySessions
from bendi.chat.parameters import Policy
from bendi.chat.sessions import SessionStore
from bendi.chat.setup import Setup
from bendi.cli.answers import AnswerView, ending_line, status_line
from bendi.cli.interrupt import stopping_on_ctrl_c
from bendi.cli.job import Job
from bendi.engines import Engine
from bendi.errors import BendiError, ContextOverflow, EngineCrashed
from bendi.i18n import _
from bendi.messages import Cancellation

KEEP = "n"


class Screen(Protocol):
    """Where a chat happens: a terminal, or lines on standard input and output."""

    def read(self, status: str, suggestion: str) -> str | None:
        """The next message or command, as typed; None when the user leaves. `suggestion`: text to begin with."""

    def note(self, text: str) -> None:
        """Talk about what happens."""

    def error(self, message: str, hint: str) -> None: ...

    def answer_view(self, *, thinking: bool) -> AnswerView: ...

    def choose(self, question: str, keys: Sequence[str]) -> str:
        """One of `keys`, the last one when the user does not choose."""

    def progress(self, done: int, total: int) -> None:
        """Of a compaction."""


class Talk:
    """`load`: loads the model again when its worker has died. `thinking`: whether it is shown in full. `states`: where
    what the engine computed is kept. `images`: what the next question shows."""

    def __init__(
        self,
        job: Job,
        sessions: SessionStore | MemorySessions,
        setup: Setup,
        screen: Screen,
        load: Callable[[], Engine],
        states: KeptStates | None = None,
    ) -> None:
        self.screen = screen
        self.sessions = sessions
        self.thinking = False
        self.leaving = False
        self.suggestion = ""
        self.images = job.images
        self.last: Reply | None = None
        self._job = job
        self._load = load
        self._states = states
        self.conversation = Conversation(load(), sessions, setup, job.schema)
        self._take_up()

    @property
    def setup(self) -> Setup:
        return self.conversation.setup

    @property
    def kept(self) -> SessionStore | None:
        """The store, where this conversation is kept."""
        return self.sessions if isinstance(self.sessions, SessionStore) else None

    def begin_anew(self) -> None:
        """A new session with the same model and persona."""
        self._put_down()
        old = self.setup.session
        session = self.sessions.create(old.model, persona=old.persona, settings=old.settings)
        setup = Setup(self.sessions, session.id, self.setup.personas, "ask")
        self.conversation = Conversation(self.conversation.engine, self.sessions, setup, self._job.schema)
        self.last = None

    def ask(self, text: str) -> None:
        """Sends a message. A message that could not be sent is offered again at the next prompt."""
        self._answer(text)

    def retry(self) -> None:
        self._answer(None)

    def status(self) -> str:
        """For the line below the prompt."""
        session = self.setup.session
        parts = [session.model]
        if session.persona:
            parts.append(session.persona)
        if self.last:
            parts.append(_("context {used}/{available}").format(
                used=self.last.used_tok, available=self.last.available_tok
            ))  # fmt: skip
        return " · ".join(parts)

    def close(self) -> None:
        self._put_down()
        self.conversation.engine.close()

    def _take_up(self) -> None:
        if self._states and self.conversation.messages:
            note = self._states.take_up(self.conversation.engine, self.setup.session_id)
            if note:
                self.screen.note(note)

    def _put_down(self) -> None:
        if self._states:
            self._states.put_down(self.conversation.engine, self.setup.session_id, self.conversation.used_tok)

    def _answer(self, text: str | None) -> None:
        before = len(self.conversation.messages)
        policy: Policy | None = None
        while True:
            try:
                self._stream(text, policy)
                return
            except ContextOverflow as error:
                policy = self._ask_for_policy(error) if policy is None else None
                if policy is not None:
                    continue
                self.screen.error(error.message, error.hint)
            except KeyboardInterrupt:  # the second one: the engine had not listened to the first
                self.screen.note(_("Stopped; what was written is kept."))
            except EngineCrashed as error:
                self.screen.error(error.message, error.hint)
                self._reload()
            except BendiError as error:
                self.screen.error(error.message, error.hint)
            if text is not None and len(self.conversation.messages) == before:
                self.suggestion = text
            return

    def _stream(self, text: str | None, policy: Policy | None) -> None:
        cancel = Cancellation()
        with stopping_on_ctrl_c(cancel):
            progress = self.screen.progress
            if text is None:
                events = self.conversation.retry(policy=policy, cancel=cancel, on_progress=progress)
            else:
                events = self.conversation.send(
                    text, images=self.images, policy=policy, cancel=cancel, on_progress=progress
                )
            self._show(events, asked=text is not None)
        if self.last:
            line = ending_line(self.last, self.setup.parameters.max_tokens)
            self.screen.note(f"{line} {status_line(self.last)}" if line else status_line(self.last))

    def _show(self, events: Generator[Event], *, asked: bool) -> None:
        view = self.screen.answer_view(thinking=self.thinking)
        with contextlib.closing(events), contextlib.closing(view):
            for event in events:
                if asked:
                    self.images = ()  # the question is stored
                if isinstance(event, Reply):
                    self.last = event
                view.show(event)

    def _ask_for_policy(self, error: ContextOverflow) -> Policy | None:
        """What to do about a full context; None where there is no choice, or the user wants none."""
        if self.setup.policy != "ask" or not self.conversation.messages:
            return None
        self.screen.note(error.message)
        question = _("[c]ompact: older turns are summarised, [s]lide: they are left out, [n]o: change the message")
        answer = self.screen.choose(question, ("c", "s", KEEP))
        return {"c": "compact", "s": "slide"}.get(answer)  # type: ignore[return-value]

    def _reload(self) -> None:
        self.conversation.engine.close()
        try:
            self.conversation.engine = self._load()
        except BendiError as error:
            self.screen.error(error.message, error.hint)
            return
        self._take_up()
        self.screen.note(_("The model was loaded again; /retry asks once more."))
