"""Whether a configuration answers as it should, before its speed counts.

Each is asked the same few questions, always taking the likeliest token. An answer that is empty, or one character over
and over, or bytes that are no text, is garbage. Beyond that, answers are compared with those of a reference: the same
file in another engine. Engines compute with different rounding, so texts part sooner or later; where they part at once,
on most questions, one of them is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bendi.bench.asking import Told, Watch, ask
from bendi.bench.prompts import built_in_prompts
from bendi.engines.protocol import Engine
from bendi.i18n import N_, _
from bendi.messages import GenerateRequest, Sampling
from bendi.results import Check

ANSWER_TOK = 24
CONTEXT_TOK = 512
"""Enough for a question and its answer, also where each byte is a token."""
_QUESTIONS = 8
_MOST_CHARACTERS = 120
_LEAST_AGREEMENT = 0.1
"""Right engines with kernels of their own agree in a third to all of such answers; a broken one in next to nothing."""
_MOST_BROKEN = 0.3
_FEW_CHARACTERS = 3
EMPTY, REPEATED, NO_TEXT, APART, RANDOM = "empty", "repeated", "no_text", "apart", "random_weights"
REASONS = {
    EMPTY: N_("its answers are empty"),
    REPEATED: N_("it repeats the same character"),
    NO_TEXT: N_("its answers are no text"),
    APART: N_("the same file answers something else in another engine"),
    RANDOM: N_("random weights say nothing, so answers cannot be judged"),
}


def reason_text(check: Check) -> str:
    """Why, in the user's language; empty where there is no reason."""
    return _(REASONS[check.reason]) if check.reason in REASONS else check.reason


def questions() -> list[str]:
    """The same ones for everybody, in both languages, as texts to be continued."""
    by_language = built_in_prompts()
    mixed = [prompt for pair in zip(*by_language.values(), strict=False) for prompt in pair]
    return [f"{prompt[:_MOST_CHARACTERS]}\n" for prompt in mixed[:_QUESTIONS]]


def unjudged(configuration: str) -> Check:
    """Of random weights, which are not even asked."""
    return Check(configuration, "unchecked", RANDOM)


def ask_questions(engine: Engine, configuration: str, timeout_s: float) -> Check:
    """What a configuration answers, judged by itself. Raises EngineError."""
    told: list[Told] = []
    with Watch(engine, timeout_s) as watch:
        for question in questions():
            request = GenerateRequest(
                prompt=question, max_tokens=ANSWER_TOK, ignore_end=True, sampling=Sampling(temperature=0.0, seed=1)
            )
            told.append(ask(engine, request, 0.0, watch))
    texts = tuple(each.text for each in told)
    broken = [fault for text in texts if (fault := _fault(text))]
    if len(broken) > _MOST_BROKEN * len(texts):
        return Check(configuration, "garbage", max(set(broken), key=broken.count), texts=texts)
    return Check(configuration, "ok", texts=texts)


def compared(check: Check, reference: Check) -> Check:
    """`check`, judged by what the reference answered to the same questions. A reference that is garbage itself decides
    nothing."""
    if reference.verdict == "garbage" or len(reference.texts) != len(check.texts) or not check.texts:
        return check
    share = agreement(check.texts, reference.texts)
    found = replace(check, agreement=round(share, 4), reference=reference.configuration)
    if check.verdict == "ok" and share < _LEAST_AGREEMENT:
        return replace(found, verdict="garbage", reason=APART)
    return found


def agreement(texts: Sequence[str], others: Sequence[str]) -> float:
    """How much of the answers, up to the first difference of each, is the same: from 0 to 1."""
    shares = [_same(*pair) / max(*map(len, pair), 1) for pair in zip(texts, others, strict=True)]
    return sum(shares) / len(shares)


def _same(text: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((index for index, (one, two) in pairs if one != two), min(len(text), len(other)))


def _fault(text: str) -> str:
    plain = "".join(text.split())
    if not plain:
        return EMPTY
    if plain.count("\ufffd") * 2 > len(plain):
        return NO_TEXT
    return REPEATED if len(plain) > 2 * _FEW_CHARACTERS and len(set(plain)) == 1 else ""
