"""Conversations over a real store and the fake engine: what is sent, what is stored, what is taken back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bendi.chat import conversation as conversation_module
from bendi.chat.conversation import ContextChanged, Conversation, Reply
from bendi.chat.memory import MemorySessions
from bendi.chat.personas import PersonaBook
from bendi.chat.sessions import SessionStore
from bendi.chat.setup import Setup
from bendi.engines import LoadRequest
from bendi.engines.fake import FakeEngine
from bendi.errors import ContextOverflow, EngineCrashed, NotFoundError, UsageError
from bendi.messages import Cancellation, Chunk, Message

Make = Callable[..., Conversation]


@pytest.fixture(params=["disk", "memory"])
def make(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[Make]:
    """Makes a conversation; every test runs on disk and in memory."""
    store = SessionStore(quick_path / "state" / "bendi.sqlite3") if request.param == "disk" else None

    def conversation(
        script: Sequence[str] = (), context_tok: int = 2048, delay_s: float = 0.0, policy: str = "error"
    ) -> Conversation:
        engine = FakeEngine(LoadRequest(Path("none"), context_tok=context_tok), script=script, delay_s=delay_s)
        sessions = store or MemorySessions()
        session = sessions.create("fake")
        book = PersonaBook(quick_path / "personas.toml")
        return Conversation(engine, sessions, Setup(sessions, session.id, book, policy))  # type: ignore[arg-type]

    with contextlib.ExitStack() as stack:
        if store:
            stack.callback(store.close)
        yield conversation


def _ask(conversation: Conversation, text: str, **options: object) -> Reply:
    *_events, last = conversation.send(text, **options)  # type: ignore[arg-type]
    assert isinstance(last, Reply)
    return last


def _contents(conversation: Conversation) -> list[str]:
    return [stored.message.content for stored in conversation.messages]


def test_an_answer_is_streamed_and_stored(make: Make) -> None:
    conversation = make(["Hello you, friend"])
    events = list(conversation.send("hi"))
    texts = [event.text for event in events if isinstance(event, Chunk)]
    assert "".join(texts) == "Hello you, friend" and len(texts) > 3
    reply = events[-1]
    assert isinstance(reply, Reply)
    assert reply.finish == "stop" and reply.message.content == "Hello you, friend"
    assert reply.used_tok == reply.usage.prompt_tok + reply.usage.completion_tok
    assert reply.timings.load_s is not None and reply.timings.ttft_s is not None
    assert _contents(conversation) == ["hi", "Hello you, friend"]
    assert conversation.messages[1].details["usage"]["completion_tok"] == 3


def test_the_question_is_stored_before_the_answer_begins(make: Make) -> None:
    conversation = make(["a b c"])
    events = conversation.send("hi")
    next(events)
    assert _contents(conversation) == ["hi"]
    events.close()
    assert _contents(conversation) == ["hi", "a"]
    assert conversation.messages[1].state == "partial"


def test_cancelling_keeps_the_partial_answer(make: Make) -> None:
    conversation = make(["one two three four five"])
    cancel = Cancellation()
    seen = []
    for event in conversation.send("hi", cancel=cancel):
        seen.append(event)
        if len(seen) == 2:
            cancel.cancel()
    reply = seen[-1]
    assert isinstance(reply, Reply) and reply.finish == "cancelled"
    assert _contents(conversation) == ["hi", "one two"]
    assert conversation.messages[1].state == "partial"
    assert _ask(conversation, "go on").finish == "stop"


def test_a_slow_answer_is_stored_while_it_grows(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation_module, "_SAVE_EVERY_S", 0.0)
    conversation = make(["one two three"])
    events = conversation.send("hi")
    next(events)
    next(events)
    assert _contents(conversation) == ["hi", "one two"]
    assert list(events) and _contents(conversation) == ["hi", "one two three"]
    assert conversation.messages[1].state == "complete"


def test_undo_and_retry(make: Make) -> None:
    conversation = make(["first", "second", "better second"])
    _ask(conversation, "one")
    _ask(conversation, "two")
    *_events, last = conversation.retry()
    assert isinstance(last, Reply) and last.message.content == "better second"
    assert _contents(conversation) == ["one", "first", "two", "better second"]
    assert (undone := conversation.undo()) and undone.content == "two"
    assert _contents(conversation) == ["one", "first"]
    assert (undone := conversation.undo()) and undone.content == "one"
    assert conversation.undo() is None
    with pytest.raises(UsageError):
        list(conversation.retry())


def test_an_empty_message_is_refused_and_not_stored(make: Make) -> None:
    conversation = make()
    with pytest.raises(UsageError):
        list(conversation.send("  \n"))
    assert _contents(conversation) == []


def test_a_crash_keeps_what_was_written(make: Make) -> None:
    conversation = make(["one two three"])
    events = conversation.send("hi")
    next(events)
    conversation.engine.close()
    with pytest.raises(EngineCrashed):
        list(events)
    assert _contents(conversation) == ["hi", "one"]


def test_thinking_is_kept_apart(make: Make) -> None:
    conversation = make(["answer"])
    conversation.setup.set_parameter("template_options", {"enable_thinking": True})
    reply = _ask(conversation, "hi")
    assert reply.message == Message("assistant", "answer", "Let me think.")
    assert conversation.messages[1].message.reasoning == "Let me think."


@pytest.mark.parametrize("policy", ["error", "ask"])
def test_overflow_is_refused_before_anything_is_stored(make: Make, policy: str) -> None:
    conversation = make(context_tok=100, policy=policy)
    _ask(conversation, "hi", cancel=None)
    before = _contents(conversation)
    with pytest.raises(ContextOverflow):
        list(conversation.send("word " * 200))
    assert _contents(conversation) == before


def _fill(conversation: Conversation, turns: int) -> list[ContextChanged]:
    changes = []
    for turn in range(turns):
        for event in conversation.send(f"question {turn} " + "word " * 10):
            if isinstance(event, ContextChanged):
                changes.append(event)
    return changes


def test_slide_says_what_it_leaves_out_and_the_session_keeps_it(make: Make) -> None:
    conversation = make(["short answer"] * 30, context_tok=160, policy="slide")
    changes = _fill(conversation, 20)
    assert len(_contents(conversation)) == 40
    left_out = [change.left_out for change in changes]
    assert left_out[0] > 0 and left_out == sorted(left_out)
    assert len(set(left_out)) < len(left_out), "the start of the context must stay for several requests"
    assert all(change.needed_tok <= change.available_tok for change in changes)
    use = conversation.context_use()
    assert use.left_out > 0 and use.messages == 40 and use.used_tok <= use.available_tok


def test_compact_replaces_turns_by_a_note_that_is_resumed(make: Make) -> None:
    conversation = make(context_tok=400, policy="compact")
    conversation.setup.set_parameter("max_tokens", 5)
    changes = _fill(conversation, 30)
    assert changes and all(change.summary for change in changes)
    assert all(change.needed_tok <= change.available_tok for change in changes)
    notes = [stored for stored in conversation.messages if stored.kind == "summary"]
    assert [note.message.content for note in notes] == [change.summary for change in changes]
    assert sum(stored.kind == "turn" for stored in conversation.messages) == 60
    resumed = Conversation(conversation.engine, conversation._sessions, conversation.setup)
    assert resumed.context_use() == conversation.context_use()
    assert resumed.context_use().left_out > 0


def test_retry_after_compaction_keeps_the_note_and_undo_takes_it_back(make: Make) -> None:
    conversation = make(context_tok=400, policy="compact")
    conversation.setup.set_parameter("max_tokens", 5)
    while not any(stored.kind == "summary" for stored in conversation.messages):
        _fill(conversation, 1)
    before = conversation.messages
    list(conversation.retry())
    assert [m.kind for m in conversation.messages] == [m.kind for m in before]
    conversation.undo()
    assert all(stored.kind == "turn" for stored in conversation.messages)
    assert len(conversation.messages) == len(before) - 3


def test_compaction_can_be_cancelled_and_asked_again(make: Make) -> None:
    conversation = make(context_tok=400)
    conversation.setup.set_parameter("max_tokens", 5)
    for _turn in range(10):
        with contextlib.suppress(ContextOverflow):
            _fill(conversation, 1)
    cancel = Cancellation()
    cancel.cancel()
    reply = _ask(conversation, "word " * 100, policy="compact", cancel=cancel)
    assert reply.finish == "cancelled"
    assert _contents(conversation)[-1].startswith("word")
    *_events, last = conversation.retry(policy="compact")
    assert isinstance(last, Reply) and last.finish in ("stop", "length")


def test_context_use_adds_up(make: Make) -> None:
    conversation = make(["answer"])
    assert conversation.context_use().used_tok >= 0
    conversation.setup.set_system("be kind and brief")
    reply = _ask(conversation, "hi")
    use = conversation.context_use()
    assert use.system_tok > 0 and use.turns_tok > 0 and use.messages == 2 and use.left_out == 0
    assert use.available_tok == 2048 and use.used_tok >= reply.usage.prompt_tok


def test_an_edit_of_the_persona_applies_to_the_next_message(make: Make) -> None:
    conversation = make(["x"] * 9)
    path = conversation.setup.personas.path
    path.write_text('[poet]\nsystem = "rhyme"\ntemperature = 0.1\n', "utf-8")
    assert conversation.setup.use_persona("poet")
    assert (conversation.setup.system, conversation.setup.parameters.sampling.temperature) == ("rhyme", 0.1)
    path.write_text('[poet]\nsystem = "sing"\nmax_tokens = 1\ncontext_policy = "slide"\n', "utf-8")
    assert conversation.setup.system == "sing" and conversation.setup.policy == "slide"
    assert conversation.setup.parameters.max_tokens == 1
    conversation.setup.set_parameter("max_tokens", 2)
    conversation.setup.set_system("mine")
    assert conversation.setup.parameters.max_tokens == 2 and conversation.setup.system == "mine"
    conversation.setup.set_system(None)
    conversation.setup.set_parameter("max_tokens", None)
    assert conversation.setup.parameters.max_tokens == 1 and conversation.setup.system == "sing"
    path.unlink()
    with pytest.raises(NotFoundError):
        list(conversation.send("hi"))
    assert _contents(conversation) == []
    assert conversation.setup.use_persona("none") is None
    assert _ask(conversation, "hi").finish == "stop"


def test_unknown_parameters_are_refused(make: Make) -> None:
    conversation = make()
    for value in (1, None):
        with pytest.raises(UsageError):
            conversation.setup.set_parameter("colour", value)
    with pytest.raises(UsageError):
        conversation.setup.set_parameter("temperature", "hot")
    assert conversation.setup.session.settings == {}


def test_cancelling_from_another_thread_stops_a_slow_answer(make: Make) -> None:
    conversation = make(["word " * 1000], delay_s=0.05)
    cancel = Cancellation()
    timer = threading.Timer(0.2, cancel.cancel)
    timer.start()
    reply = _ask(conversation, "hi", cancel=cancel)
    timer.join()
    assert reply.finish == "cancelled" and 0 < reply.usage.completion_tok < 100


KILLED = """
import os, sys
from pathlib import Path
from bendi.chat import conversation as module
from bendi.chat.conversation import Conversation
from bendi.chat.personas import PersonaBook
from bendi.chat.sessions import SessionStore
from bendi.chat.setup import Setup
from bendi.engines import LoadRequest
from bendi.engines.fake import FakeEngine
module._SAVE_EVERY_S = 0.0
store = SessionStore(Path(sys.argv[1]))
engine = FakeEngine(LoadRequest(Path("none")), script=["the answer that is never finished"])
setup = Setup(store, store.create("fake").id, PersonaBook(Path(sys.argv[1]).with_name("personas.toml")))
events = Conversation(engine, store, setup).send("what happens when I am killed?")
for _number in range(4):
    next(events)
os.kill(os.getpid(), 9)
"""


def test_kill_9_in_the_middle_of_an_answer_keeps_the_question_and_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "bendi.sqlite3"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, env=environment)
    assert done.returncode == -9
    with contextlib.closing(SessionStore(path)) as store:
        (session,) = store.recent()
        question, answer = store.messages(session.id)
        assert question.message.content == "what happens when I am killed?"
        assert answer.message.content.startswith("the answer that") and answer.state == "partial"
        assert not store.notices
