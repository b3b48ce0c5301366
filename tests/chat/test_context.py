"""What fits stays as it is; what does not is refused, left out or summarised, never silently and never wrongly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bendi.chat.compaction import CompactionCancelled, Compactor, transcript
from bendi.chat.context import Budget, Dialogue, answer_reserve_tok, estimate_tok, fit
from bendi.engines import LoadRequest
from bendi.engines.fake import FakeEngine
from bendi.errors import ContextOverflow, EngineError
from bendi.messages import Cancellation, Message


def _budget(context_tok: int, reserve_tok: int = 8, script: Sequence[str] = ()) -> Budget:
    engine = FakeEngine(LoadRequest(Path("none"), context_tok=context_tok), script=script)
    return Budget(engine, reserve_tok)


def _dialogue(turns: int, words: int = 10, system: str = "be kind") -> Dialogue:
    messages = []
    for turn in range(turns):
        messages.append(Message("user", f"question{turn} " + "word " * words))
        messages.append(Message("assistant", f"answer{turn} " + "word " * words))
    return Dialogue((*messages, Message("user", "the last question")), system)


def test_what_fits_is_not_touched() -> None:
    dialogue = _dialogue(3)
    for policy in ("error", "ask", "slide", "compact"):
        fitted = fit(dialogue, _budget(1000), policy)
        assert fitted.dialogue == dialogue and fitted.left_out == 0


@pytest.mark.parametrize("policy", ["error", "ask"])
def test_refusal_has_numbers_and_ways_out(policy: str) -> None:
    budget = _budget(100)
    with pytest.raises(ContextOverflow) as caught:
        fit(_dialogue(20), budget, policy)  # type: ignore[arg-type]
    error = caught.value
    assert error.needed_tok == budget.needed_tok(_dialogue(20)) and error.available_tok == 100
    assert str(error.needed_tok) in error.message and "100" in error.message
    assert "--context" in error.hint and "--policy compact" in error.hint and "slide" in error.hint


def test_refusal_does_not_offer_more_context_than_the_model_was_trained_for() -> None:
    with pytest.raises(ContextOverflow) as caught:
        fit(_dialogue(400), _budget(100), "error")
    assert "trained for 2048" in caught.value.hint and "--context" not in caught.value.hint


def test_one_message_that_is_too_long_is_refused_by_every_policy() -> None:
    long = Dialogue((Message("user", "word " * 500),))
    for policy in ("error", "slide", "compact"):
        with pytest.raises(ContextOverflow) as caught:
            fit(long, _budget(100), policy, lambda _summary, _messages: "short")
        assert "shorten" in caught.value.hint


def test_slack_keeps_the_start_for_the_next_requests() -> None:
    budget, dialogue = _budget(200), _dialogue(20)
    tight, loose = fit(dialogue, budget, "slide"), fit(dialogue, budget, "slide", slack_tok=50)
    assert loose.left_out > tight.left_out > 0
    assert loose.needed_tok + 50 <= loose.available_tok


_text = st.text("ab 中文\n", max_size=40)
_role = st.sampled_from(["user", "assistant", "tool", "system"])
_sizes = st.tuples(st.integers(30, 200), st.integers(1, 20), st.integers(0, 60))
_turns = st.lists(st.builds(Message, _role, _text), max_size=25).map(tuple)


@settings(deadline=None, max_examples=150)
@given(_turns, _text, _sizes, st.sampled_from(["slide", "compact"]))
def test_the_result_fits_keeps_order_system_and_the_last_question(
    turns: tuple[Message, ...], system: str, sizes: tuple[int, int, int], policy: str
) -> None:
    context_tok, reserve_tok, slack_tok = sizes
    dialogue = Dialogue((*turns, Message("user", "the last question")), system)
    budget = _budget(context_tok, reserve_tok)
    try:
        fitted = fit(dialogue, budget, policy, lambda _s, _m: "summary", slack_tok)  # type: ignore[arg-type]
    except ContextOverflow as error:
        assert error.needed_tok > error.available_tok
        return
    kept = fitted.dialogue
    assert fitted.needed_tok == budget.needed_tok(kept) <= context_tok
    assert kept.system == system and kept.turns[-1] == dialogue.turns[-1]
    gone = dialogue.turns[: fitted.left_out]
    assert kept.turns == tuple(m for m in gone if m.role == "system") + dialogue.turns[fitted.left_out :]
    if fitted.left_out:
        assert budget.needed_tok(dialogue) > context_tok
        assert dialogue.turns[fitted.left_out].role == "user"
        assert kept.summary == ("summary" if policy == "compact" else "")


@given(_turns, _text, _text)
def test_every_template_can_take_it(turns: tuple[Message, ...], system: str, summary: str) -> None:
    """At most one system message at the start unless one stands between turns; no two questions in a row."""
    messages = Dialogue(turns, system, summary).messages
    for before, after in itertools.pairwise(messages):
        assert (before.role, after.role) not in {("user", "user"), ("system", "system")}
    assert all(message.content or message.role != "assistant" for message in messages)
    sent = "".join(message.content for message in messages)
    assert all(message.content in sent for message in turns) and summary in sent and system in sent


def test_compaction_puts_every_word_before_the_model() -> None:
    budget = _budget(200)
    turns = tuple(Message("user" if n % 2 == 0 else "assistant", f"unique{n} " * 40) for n in range(12))
    seen: list[tuple[int, int]] = []
    compactor = Compactor(budget, on_progress=lambda done, total: seen.append((done, total)))
    pieces = compactor._pieces(transcript(turns))
    assert "".join(pieces) == transcript(turns) and len(pieces) > 3
    summary = compactor("what was before", turns)
    assert summary and len(budget.engine.tokenize(summary)) <= budget.summary_tok  # type: ignore[attr-defined]
    assert seen == [(n, len(pieces)) for n in range(len(pieces))]


def test_compaction_end_to_end_keeps_the_old_summary_in_view() -> None:
    budget = _budget(300, script=["first summary", "second summary"])
    dialogue = _dialogue(14)
    fitted = fit(dialogue, budget, "compact", Compactor(budget))
    assert fitted.compacted and fitted.dialogue.summary and fitted.left_out
    first = fitted.dialogue.messages[0]
    assert first.role == "system" and first.content.startswith("be kind\n\nSummary of the earlier part")


def test_a_model_without_a_word_loses_nothing() -> None:
    budget = _budget(300, script=[""])
    with pytest.raises(EngineError, match="no summary"):
        fit(_dialogue(14), budget, "compact", Compactor(budget))


def test_compaction_can_be_stopped() -> None:
    cancel = Cancellation()
    cancel.cancel()
    budget = _budget(300)
    with pytest.raises(CompactionCancelled):
        fit(_dialogue(14), budget, "compact", Compactor(budget, cancel))


def test_a_context_too_small_for_any_summary_is_said() -> None:
    budget = _budget(60)
    with pytest.raises(ContextOverflow):
        Compactor(budget)("", [Message("user", "word " * 100)])


@given(st.text(max_size=300))
def test_the_estimate_is_above_zero_and_grows(text: str) -> None:
    assert 0 < estimate_tok(text) <= estimate_tok(text + "中")


def test_reserve() -> None:
    assert answer_reserve_tok(None, 16384) == 1024
    assert answer_reserve_tok(None, 2048) == 512
    assert answer_reserve_tok(30, 2048) == 30
    assert answer_reserve_tok(100_000, 2048) == 512
    assert answer_reserve_tok(None, 3) == 1
