"""A conversation: a session, a persona and parameters joined to a loaded model. No printing.

    setup = Setup(store, store.create("demo").id, PersonaBook(settings.personas_file))
    for event in Conversation(engine, store, setup).send("What is quantization?"):
        ...                                    # Chunk, ContextChanged, and at the end one Reply

The question is on disk before the answer is computed, a long answer is stored every few seconds while it grows, and
one that is stopped is kept and marked.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from bendi.chat.compaction import CompactionCancelled, Compactor, OnProgress
from bendi.chat.context import Budget, Dialogue, Fitted, answer_reserve_tok, fit, overflow
from bendi.chat.memory import Sessions
from bendi.chat.parameters import Policy
from bendi.chat.sessions import State, StoredMessage
from bendi.chat.setup import Setup
from bendi.engines import Engine
from bendi.errors import DataError, UsageError
from bendi.i18n import _
from bendi.messages import Cancellation, Chunk, FinishReason, GenerateRequest, Message, Timings, Usage

_SAVE_EVERY_S = 5.0


@dataclass(frozen=True)
class ContextChanged:
    """Not everything is sent: `left_out` messages are missing from this request, or are replaced by `summary`."""

    policy: Policy
    left_out: int
    summary: str
    needed_tok: int
    available_tok: int


@dataclass(frozen=True)
class Reply:
    """The end of an answer. `used_tok` of `available_tok`: how full the context is now."""

    message: Message
    finish: FinishReason
    usage: Usage
    timings: Timings
    used_tok: int
    available_tok: int


@dataclass(frozen=True)
class ContextUse:
    """Where the context goes, in tokens. `left_out`: messages of the session that would not be sent now."""

    system_tok: int
    turns_tok: int
    reserve_tok: int
    available_tok: int
    messages: int
    left_out: int

    @property
    def used_tok(self) -> int:
        return self.system_tok + self.turns_tok


class _View(NamedTuple):
    """What would be sent, the stored messages that are its turns, and how many before them `slide` leaves out."""

    dialogue: Dialogue
    turns: list[StoredMessage]
    left_out: int


Event = Chunk | ContextChanged | Reply


class Conversation:
    """One user's talk with one engine. Used by one thread at a time; a `Cancellation` may come from any.

    `json_schema`: what every answer must satisfy. `used_tok`: how full the context was after the last answer.
    """

    def __init__(
        self, engine: Engine, sessions: Sessions, setup: Setup, json_schema: Mapping[str, Any] | None = None
    ) -> None:
        self.engine = engine
        self.setup = setup
        self._sessions = sessions
        self._json_schema = json_schema
        self.used_tok = 0
        self._slid_to = 0  # position of the last message that `slide` left out: the start stays for later requests

    @property
    def messages(self) -> list[StoredMessage]:
        """What is in force, summaries included."""
        return self._sessions.messages(self.setup.session_id)

    def send(
        self,
        text: str,
        *,
        images: Sequence[bytes] = (),
        policy: Policy | None = None,
        cancel: Cancellation | None = None,
        on_progress: OnProgress | None = None,
        from_position: int | None = None,
    ) -> Generator[Event]:
        """Asks, and yields the answer; closing the generator stops it and keeps what was written.

        `images`: files that the question shows. `policy` overrides the one in force. `on_progress`: of a compaction.
        `from_position`: the question takes the place of the messages from there on, which are taken back.

        Raises ContextOverflow, before anything is stored, when the policy is to refuse, and RequestRejected when the
        model cannot see; EngineError as the engine.
        """
        if not text.strip() and not images:
            raise UsageError(_("There is no message to answer."))
        policy = policy or self.setup.policy
        question = Message("user", text, images=tuple(images))
        self._refuse(question, policy, from_position)
        if from_position is not None:
            self._sessions.supersede(self.setup.session_id, from_position)
            self._slid_to = 0
        self._sessions.append(self.setup.session_id, question)
        yield from self._answer(policy, cancel or Cancellation(), on_progress)

    def retry(
        self,
        *,
        policy: Policy | None = None,
        cancel: Cancellation | None = None,
        on_progress: OnProgress | None = None,
    ) -> Generator[Event]:
        """Takes the last answer back and asks again. Raises UsageError when there is no question."""
        question = self._last_question()
        if question is None:
            raise UsageError(_("There is no question to ask again."))
        answers = [stored for stored in self.messages if stored.position > question.position and stored.kind == "turn"]
        if answers:
            self._sessions.supersede(self.setup.session_id, answers[0].position)
        yield from self._answer(policy or self.setup.policy, cancel or Cancellation(), on_progress)

    def undo(self) -> Message | None:
        """Takes the last question and its answer back; returns the question, without images where one is lost. None
        when there is none."""
        question = self._last_question()
        if question is None:
            return None
        self._sessions.supersede(self.setup.session_id, question.position)
        self._slid_to = 0
        try:
            return self._whole(question)
        except DataError:
            return question.message

    def context_use(self) -> ContextUse:
        """How the next request would fill the context, before its question."""
        view, budget = self._view(self.setup.policy), self._budget()
        head = replace(view.dialogue, turns=())
        used_tok = budget.prompt_tok(view.dialogue)
        system_tok = min(budget.prompt_tok(head), used_tok) if head.messages else 0
        total = sum(1 for stored in self.messages if stored.kind == "turn")
        return ContextUse(
            system_tok, used_tok - system_tok, budget.reserve_tok, budget.available_tok, total, total - len(view.turns)
        )

    def _last_question(self) -> StoredMessage | None:
        return next((stored for stored in reversed(self.messages) if stored.message.role == "user"), None)

    def _budget(self) -> Budget:
        parameters = self.setup.parameters
        context_tok = self.engine.info.context_tok
        request = GenerateRequest(template_options=parameters.template_options)
        return Budget(self.engine, answer_reserve_tok(parameters.max_tokens, context_tok), request)

    def _view(self, policy: Policy, before: int | None = None) -> _View:
        """What `policy` lets be sent of the messages, of those before a position where one is given."""
        summary, covered = "", 0
        turns = []
        for stored in self.messages:
            if before is not None and stored.position >= before:
                break
            if stored.kind == "summary":
                summary, covered = stored.message.content, int(stored.details["covers_to"])
            else:
                turns.append(stored)
        turns = [stored for stored in turns if stored.position > covered]
        sent = [stored for stored in turns if policy != "slide" or stored.position > self._slid_to]
        dialogue = Dialogue(tuple(self._whole(stored) for stored in sent), self.setup.system, summary)
        return _View(dialogue, sent, len(turns) - len(sent))

    def _whole(self, stored: StoredMessage) -> Message:
        return replace(stored.message, images=self._sessions.images(stored))

    def _refuse(self, question: Message, policy: Policy, before: int | None) -> None:
        """Raises for a question that must not be stored: too long, or with images that the model cannot see."""
        if policy not in ("error", "ask"):
            if question.images:
                self._budget().prompt_tok(Dialogue((question,)))
            return
        dialogue = self._view(policy, before).dialogue
        asked = replace(dialogue, turns=(*dialogue.turns, question))
        budget = self._budget()
        needed_tok = budget.needed_tok(asked)
        if needed_tok > budget.available_tok:
            raise overflow(budget, needed_tok, can_shrink=len(asked.turn_starts) > 1)

    def _answer(self, policy: Policy, cancel: Cancellation, on_progress: OnProgress | None) -> Generator[Event]:
        view, budget = self._view(policy), self._budget()
        room_tok = budget.available_tok
        try:
            fitted = fit(view.dialogue, budget, policy, Compactor(budget, cancel, on_progress), room_tok // 4)
        except CompactionCancelled:
            used_tok = budget.prompt_tok(view.dialogue)
            yield Reply(Message("assistant", ""), "cancelled", Usage(0, 0), Timings(), used_tok, room_tok)
            return
        if fitted.left_out:
            self._remember(fitted, view.turns[fitted.left_out - 1].position)
        if fitted.left_out or view.left_out:
            summary = fitted.dialogue.summary if fitted.compacted else ""
            yield ContextChanged(policy, fitted.left_out + view.left_out, summary, fitted.needed_tok, room_tok)
        yield from self._generate(fitted, budget, cancel)

    def _remember(self, fitted: Fitted, last_position: int) -> None:
        """Keeps the choice for later requests: a summary in the session, the new start of `slide` here."""
        if not fitted.compacted:
            self._slid_to = last_position
            return
        note = Message("system", fitted.dialogue.summary)
        details = {"covers_to": last_position}
        self._sessions.append(self.setup.session_id, note, kind="summary", details=details)

    def _generate(self, fitted: Fitted, budget: Budget, cancel: Cancellation) -> Generator[Event]:
        parameters = self.setup.parameters
        request = GenerateRequest(
            messages=fitted.dialogue.messages,
            max_tokens=parameters.max_tokens,
            stop=parameters.stop,
            sampling=parameters.sampling,
            json_schema=self._json_schema,
            template_options=parameters.template_options,
        )
        draft = _Draft(self._sessions, self.setup.session_id)
        try:
            for chunk in self.engine.generate(request, cancel):
                draft.add(chunk)
                yield chunk
        finally:
            if not draft.last.finish:
                cancel.cancel()  # an error, or nobody listens any more: the engine must not go on computing
            draft.keep()
        last = draft.last
        usage = last.usage or Usage(0, 0)
        prompt_tok = usage.prompt_tok or fitted.needed_tok - budget.reserve_tok
        timings = replace(last.timings or Timings(), load_s=self.engine.info.load_s)
        self.used_tok = used_tok = prompt_tok + usage.completion_tok
        yield Reply(draft.message, last.finish or "cancelled", usage, timings, used_tok, budget.available_tok)


class _Draft:
    """An answer that grows, on its way into the session. `last`: the chunk that ended it; empty until then."""

    def __init__(self, sessions: Sessions, session_id: str) -> None:
        self._sessions = sessions
        self._session_id = session_id
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._stored: StoredMessage | None = None
        self._saved_s = time.monotonic()
        self.last = Chunk()

    @property
    def message(self) -> Message:
        return Message("assistant", "".join(self._text), "".join(self._reasoning), self.last.tool_calls)

    def add(self, chunk: Chunk) -> None:
        self._text.append(chunk.text)
        self._reasoning.append(chunk.reasoning)
        if chunk.finish:
            self.last = chunk
        elif time.monotonic() - self._saved_s > _SAVE_EVERY_S:
            with contextlib.suppress(DataError):  # `keep` will tell, and the answer can at least be read
                self._save("partial", {})
            self._saved_s = time.monotonic()

    def keep(self) -> None:
        """Stores the answer as it is now; nothing where not a word has come."""
        message = self.message
        if not (message.content or message.reasoning or message.tool_calls):
            return
        finish = self.last.finish or "cancelled"
        details: dict[str, Any] = {"finish": finish}
        if self.last.usage:
            details["usage"] = asdict(self.last.usage)
        if self.last.timings:
            details["timings"] = asdict(self.last.timings)
        self._save("partial" if finish == "cancelled" else "complete", details)

    def _save(self, state: State, details: Mapping[str, Any]) -> None:
        if self._stored is None:
            self._stored = self._sessions.append(self._session_id, self.message, state=state, details=details)
        else:
            self._stored = self._sessions.rewrite(self._stored, self.message, state=state, details=details)
