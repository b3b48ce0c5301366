"""Times one model with the real engine under different settings, as `tuning_search` asks for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import fmean, median

from bendi.engines.llama_http import LlamaServerEngine
from bendi.engines.native_proof import Distance, distance
from bendi.engines.pace import Pace
from bendi.engines.prepare import Prepared
from bendi.engines.protocol import Engine, LoadRequest, StatefulEngine
from bendi.engines.registry import open_engine
from bendi.engines.timing import endless_words, take
from bendi.engines.tuning_report import Answers, Sample, Shape, Tuned
from bendi.errors import EngineError, StateUnusable
from bendi.hardware import detect_cpu, detect_memory
from bendi.i18n import _
from bendi.messages import Chunk, GenerateRequest, Sampling, Timings
from bendi.planner import SYSTEM_RESERVE_BYTES
from bendi.planner.plan import Workload
from bendi.settings import Settings

MOST_PROMPT_TOK, MOST_ANSWER_TOK, SPARE_TOK = 1024, 64, 64
_FIRST_PROMPT_TOK, _LEAST_ANSWER_TOK = 16, 4
_WARM_UP_TOK = 8
_PROMPT_SHARE, _ANSWER_SHARE = 1 / 80, 1 / 200
"""Of the budget: how long the prompt, and how long the answer of one timed request may take. Short prompts show less of
how fast long ones are than short answers do."""
_DEPTH_SHARE = 1 / 20
"""Of the budget: how long computing the tokens before it may take."""
_PROBED_TOK = 24
_NO_ANSWER = (EngineError, ValueError, KeyError, TypeError, IndexError)


@dataclass(frozen=True)
class Subject:
    """The model to be tuned, and what for. `load`: as it is without tuning; its context has room for what is timed.
    `vocab_size`: of the model."""

    load: LoadRequest
    prepared: Prepared
    workload: Workload
    vocab_size: int


def middle_tok(workload: Workload) -> int:
    """The depth at which requests of that kind are timed: the middle of their prompt."""
    return workload.depth_tok + workload.prompt_tok // 2


class EngineBench:
    """A Bench. `budget_s`: counted from now; it may become `most_s`, if that is more. `folder`: for states of the
    engine, private.

    The tokens before a request are computed once and then restored from the disk, where the engine can do that.
    """

    def __init__(
        self, subject: Subject, settings: Settings, folder: Path, budget_s: float, most_s: float = 0.0
    ) -> None:
        self.shape = Shape(0, _FIRST_PROMPT_TOK, _LEAST_ANSWER_TOK)
        self.build = ""
        self.pp_tok_s = 0.0
        self._subject, self._settings, self._folder = subject, settings, folder
        self._started_s, self.budget_s, self._most_s = time.monotonic(), budget_s, most_s
        self._words = endless_words(subject.vocab_size)
        self._past: tuple[int, ...] = ()
        self._engines: dict[Tuned, Engine] = {}
        self._states: dict[tuple[str, bool | None], str] = {}
        self._names = map("depth-{}".format, count())
        self._start_s: list[float] = []
        self._sample_s: list[float] = []
        self._room_for_two = False
        self._pace = Pace(detect_cpu().usable_cores)
        self._look = self._pace.look()

    def close(self) -> None:
        """Ends all engines."""
        self.keep()

    def settle(self, default: Tuned) -> None:
        """Decides from a first look at the speed what is timed: `shape`. Raises EngineError."""
        engine = self._engine(default)
        self.build = engine.info.build
        room_tok = engine.info.context_tok - SPARE_TOK
        prompt_tok = self._affordable_prompt(engine, room_tok // 2)
        timings = _timings(_ask(engine, self._new(_FIRST_PROMPT_TOK), _LEAST_ANSWER_TOK + 1))
        most_tok = min(self._subject.workload.answer_tok, MOST_ANSWER_TOK, room_tok // 4)
        answer_s = self.budget_s * _ANSWER_SHARE
        answer_tok = min(max(int(answer_s * (timings.tg_tok_s or 1.0)), _LEAST_ANSWER_TOK), most_tok)
        affordable_tok = int(self.pp_tok_s * self.budget_s * _DEPTH_SHARE)
        depth_tok = min(middle_tok(self._subject.workload), affordable_tok, room_tok - prompt_tok - answer_tok)
        self._past = self._new(depth_tok)
        self._fill(engine, default)
        last = _ask(engine, self._past + self._new(_FIRST_PROMPT_TOK), 1)
        if last.usage is None or last.usage.cached_tok < depth_tok * 0.9:
            # It cannot go back to an earlier turn: every request would compute all of it.
            self._past, depth_tok = (), 0
            self._states.clear()
        self.shape = Shape(depth_tok, prompt_tok, answer_tok)
        self._room_for_two = _fits_again(self._subject.prepared)
        self.keep()
        self.start(default)
        self.sample(default)

    def ask_for(self, left_s: float) -> None:
        wanted_s = time.monotonic() - self._started_s + left_s
        self.budget_s = max(self.budget_s, min(wanted_s, self._most_s))

    def start(self, tuned: Tuned) -> None:
        if self._room_for_two or not self._engines:
            self._engine(tuned)

    def sample(self, tuned: Tuned) -> Sample:
        engine = self._engine(tuned)
        started_s = time.perf_counter()
        prompt = self._past + self._new(self.shape.prompt_tok)
        timings = _timings(_ask(engine, prompt, self.shape.answer_tok + 1))
        self._sample_s.append(time.perf_counter() - started_s)
        if not timings.pp_tok_s or not timings.tg_tok_s:
            raise EngineError(_("The engine gave no timings."), hint=_("See `bendi doctor`."))
        return Sample(1 / timings.pp_tok_s, 1 / timings.tg_tok_s)

    def keep(self, *tuned: Tuned) -> None:
        for other in [one for one in self._engines if one not in tuned]:
            self._engines.pop(other).close()

    def quiet(self) -> bool:
        before, self._look = self._look, self._pace.look()
        return self._pace.slowness(before, self._look) <= 1

    def left_s(self) -> float:
        return self.budget_s - (time.monotonic() - self._started_s)

    def cost_s(self, pairs: int, starts: int) -> float:
        # Most starts find the tokens before a request on the disk; the few that compute them take many times as long.
        start_s, sample_s = median(self._start_s), fmean(self._sample_s)
        starts_a_pair = 0 if self._room_for_two else 2
        look_s = sum(self._look)
        return pairs * (2 * sample_s + starts_a_pair * start_s + 5 * look_s) + starts * start_s

    def answers(self, default: Tuned, chosen: Tuned) -> Answers | None:
        """How far the answers with `chosen` are from those with `default`; None where that cannot be asked."""
        prompts = [self._past + self._new(_PROBED_TOK), self._new(_PROBED_TOK)]
        try:
            expected = _probabilities(self._engine(default), prompts, self._subject.vocab_size)
        except _NO_ANSWER:
            return None
        try:
            found = _probabilities(self._engine(chosen), prompts, self._subject.vocab_size)
        except _NO_ANSWER:
            return Answers(None, None, tolerable=False)
        worst = Distance()
        for reference, other in zip(expected, found, strict=True):
            worst.widen(distance(reference, other))
        known = worst.kl < float("inf")
        return Answers(worst.kl if known else None, worst.logprob if known else None, worst.tolerable)

    def _engine(self, tuned: Tuned) -> Engine:
        """The one with these settings, started if need be."""
        found = self._engines.get(tuned)
        if found is not None:
            return found
        if not self._room_for_two:
            self.keep()
        started_s = time.perf_counter()
        load = tuned.applied(replace(self._subject.load, state_dir=self._folder))
        settings = replace(self._settings, engine=tuned.engine) if tuned.engine else self._settings
        engine = open_engine(load, settings)
        self._engines[tuned] = engine
        self._fill(engine, tuned)
        _ask(engine, self._past + self._new(_WARM_UP_TOK), _WARM_UP_TOK)
        self._start_s.append(time.perf_counter() - started_s)
        return engine

    def _fill(self, engine: Engine, tuned: Tuned) -> None:
        """Has `engine` hold the tokens before the requests."""
        if not self._past:
            return
        kind = (tuned.engine, tuned.flash_attention)
        if isinstance(engine, StatefulEngine) and kind in self._states:
            try:
                engine.restore_state(self._states[kind])
                return
            except StateUnusable:
                del self._states[kind]
        _ask(engine, self._past, 1)
        if isinstance(engine, StatefulEngine):
            name = next(self._names)
            try:
                engine.save_state(name)
            except StateUnusable:
                return
            self._states[kind] = name

    def _affordable_prompt(self, engine: Engine, room_tok: int) -> int:
        """The longest prompt worth timing that does not take too long, or nearly so."""
        most_tok = max(min(self._subject.workload.prompt_tok, MOST_PROMPT_TOK, room_tok), _FIRST_PROMPT_TOK)
        prompt_tok = min(2 * _FIRST_PROMPT_TOK, most_tok)
        while True:
            timings = _timings(_ask(engine, self._new(prompt_tok), 1))
            self.pp_tok_s = timings.pp_tok_s or 1.0
            longer_tok = min(2 * prompt_tok, most_tok)
            if longer_tok == prompt_tok or longer_tok / self.pp_tok_s > self.budget_s * _PROMPT_SHARE:
                return prompt_tok
            prompt_tok = longer_tok

    def _new(self, tokens: int) -> tuple[int, ...]:
        return take(self._words, tokens)


def _timings(last: Chunk) -> Timings:
    return last.timings or Timings()


def _probabilities(engine: Engine, prompts: Sequence[tuple[int, ...]], vocab_size: int) -> list[dict[int, float]]:
    """Of the next token after each prompt. Raises ValueError and the like when there are none."""
    if not isinstance(engine, LlamaServerEngine):
        raise ValueError("no probabilities")
    return [engine.next_token(prompt, vocab_size)[0] for prompt in prompts]


def _fits_again(prepared: Prepared) -> bool:
    """Whether a second engine has room beside the first, with a copy of the weights of its own."""
    needed_bytes = 2 * prepared.weights_bytes + prepared.need.beside_weights_bytes + SYSTEM_RESERVE_BYTES
    return needed_bytes <= detect_memory().usable_bytes


def _ask(engine: Engine, prompt: tuple[int, ...], answer_tok: int) -> Chunk:
    """The last chunk of an answer of exactly so many tokens."""
    request = GenerateRequest(prompt=prompt, max_tokens=answer_tok, ignore_end=True, sampling=Sampling(seed=1))
    *_texts, last = engine.generate(request)
    return last
