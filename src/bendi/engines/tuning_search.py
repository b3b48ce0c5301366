"""The search for faster settings: one change at a time, each against the best so far, in pairs.

A comparison that begins badly is broken off, which can only make it harder for a change to be accepted. What is
accepted in the end is compared with the default once more, each time in new processes: where a process happens to have
its memory makes it faster or slower, too. So three things must agree before anything is changed, and the last of them
has not seen what the first ones chose by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Protocol, TypeVar

from bendi.engines.paired import LEAST_PAIRS, Speedup, speedup
from bendi.engines.tuning_report import Sample, Trial, Tuned, Verdict
from bendi.errors import EngineError
from bendi.planner.plan import Workload

T = TypeVar("T")
LEAST_GAIN = 0.01
"""Less than this is not worth settings of its own, however certain it is."""
ROUNDS = 3
"""New processes for the final comparison."""
_MOST_PAIRS = 12
_PAIRS_A_ROUND = LEAST_PAIRS // ROUNDS
_MOST_PAIRS_A_ROUND = 4
_HOPELESS = 0.97
_DISTURBED = 1.25


@dataclass(frozen=True)
class Option:
    """A change to be tried. `setting`: which one, `value`: as people read it; `change`: fields of Tuned."""

    setting: str
    value: str
    change: Mapping[str, Any]

    def applied(self, tuned: Tuned) -> Tuned:
        return replace(tuned, **self.change)


class Bench(Protocol):
    """Where settings are timed."""

    def start(self, tuned: Tuned) -> None:
        """Has an engine ready, where there is memory for more than one. Raises EngineError."""

    def sample(self, tuned: Tuned) -> Sample:
        """Times one request; the engine is started if need be. Raises EngineError."""

    def keep(self, *tuned: Tuned) -> None:
        """Ends the engines with any other settings."""

    def quiet(self) -> bool:
        """Whether nothing else was running since the last time this was asked."""

    def left_s(self) -> float:
        """Seconds of the budget."""

    def ask_for(self, left_s: float) -> None:
        """Wants so many seconds to be left; a budget that the user has set stays as it is."""

    def cost_s(self, pairs: int, starts: int) -> float:
        """How long so many pairs and starts of engines will take."""


@dataclass(frozen=True)
class Found:
    """`chosen`: the default itself where nothing is faster. `disturbed`: pairs beside which something else was running,
    of all `pairs`."""

    chosen: Tuned
    trials: tuple[Trial, ...]
    final: Trial | None
    disturbed: int
    pairs: int


class _Failed(Exception):
    """The settings on trial do not work; the text says why."""


@dataclass
class _Pairs:
    """What was measured of two settings so far."""

    against: list[Sample] = field(default_factory=list)
    tried: list[Sample] = field(default_factory=list)
    retaken: int = 0

    def speed(self, workload: Workload, start: int = 0) -> Speedup:
        """Of those from the one at `start` on."""
        return speedup(
            [sample.request_s(workload) for sample in self.against[start:]],
            [sample.request_s(workload) for sample in self.tried[start:]],
        )

    def hopeless(self, workload: Workload) -> bool:
        pairs = zip(self.against, self.tried, strict=True)
        ratios = [against.request_s(workload) / tried.request_s(workload) for against, tried in pairs]
        if len(ratios) < 2:
            return False
        return max(ratios) < _HOPELESS or (len(ratios) > 2 and self.speed(workload).middle < 1)


class Search:
    """One search. `on_step`: told what is being compared."""

    def __init__(self, bench: Bench, workload: Workload, on_step: Callable[[str, str], None]) -> None:
        self._bench, self._workload, self._on_step = bench, workload, on_step
        self._trials: list[Trial] = []
        self._disturbed = 0
        self._taken = 0

    def run(self, default: Tuned, options: Sequence[Option]) -> Found:
        """Raises EngineError when the default itself, or what was accepted, stops working."""
        best = default
        for number, option in enumerate(options):
            tuned = option.applied(best)
            if tuned == best:
                continue
            self._bench.ask_for(self.whole_s(len(options) - number))
            trial = self._try(option, best, tuned, len(options) - number)
            self._trials.append(trial)
            if trial.verdict == "faster":
                best = tuned
        final = self.confirm(default, best) if best != default else None
        chosen = best if final is not None and final.verdict == "faster" else default
        return Found(chosen, tuple(self._trials), final, self._disturbed, self._taken)

    def needed_s(self) -> float:
        """The least that is needed for one change and the final comparison."""
        return self._bench.cost_s(LEAST_PAIRS, 1) + self._final_cost_s(_PAIRS_A_ROUND)

    def whole_s(self, changes: int) -> float:
        """What so many changes and the final comparison take where some pairs are disturbed and taken again."""
        return _DISTURBED * (changes * self._bench.cost_s(LEAST_PAIRS, 1) + self._final_cost_s(_PAIRS_A_ROUND))

    def _final_cost_s(self, pairs_a_round: int) -> float:
        return self._bench.cost_s(ROUNDS * pairs_a_round, 2 * ROUNDS)

    def _try(self, option: Option, best: Tuned, tuned: Tuned, options_left: int) -> Trial:
        self._on_step(option.setting, option.value)
        spendable_s = self._bench.left_s() - self._final_cost_s(_PAIRS_A_ROUND)
        if spendable_s < self._bench.cost_s(LEAST_PAIRS, 1):
            return Trial(option.setting, option.value, tuned, best, "no time")
        wanted = LEAST_PAIRS
        while wanted < _MOST_PAIRS and self._bench.cost_s(wanted + 1, 1) <= spendable_s / options_left:
            wanted += 1
        pairs = _Pairs()
        try:
            self._bench.keep(best, tuned)
            self._measure(best, tuned, pairs, wanted)
        except _Failed as error:
            self._bench.keep(best)
            return Trial(option.setting, option.value, tuned, best, "failed", reason=str(error))
        return self._judged(Trial(option.setting, option.value, tuned, best, "not faster"), pairs, certain=True)

    def confirm(self, default: Tuned, best: Tuned) -> Trial:
        """`best` against `default`, in new processes each time; "faster" only when all of them agree."""
        trial = Trial("", "", best, default, "not faster")
        self._on_step("", "")
        a_round = _PAIRS_A_ROUND
        while a_round < _MOST_PAIRS_A_ROUND and self._final_cost_s(a_round + 1) <= self._bench.left_s():
            a_round += 1
        pairs, agreed = _Pairs(), True
        try:
            for number in range(ROUNDS):
                self._bench.keep()
                self._measure(default, best, pairs, (number + 1) * a_round)
                agreed &= pairs.speed(self._workload, number * a_round).middle > 1
                if not agreed or len(pairs.tried) < (number + 1) * a_round:
                    agreed = False
                    break
        except _Failed as error:
            return replace(trial, verdict="failed", reason=str(error))
        return self._judged(trial, pairs, certain=agreed)

    def _measure(self, against: Tuned, tried: Tuned, pairs: _Pairs, wanted: int) -> None:
        """Takes pairs until there are `wanted`, or until nothing good can come of it. Those beside which something else
        was running are taken again, whatever they say, as long as that does not double the time."""
        started, retakes = len(pairs.tried), wanted - len(pairs.tried)
        for tuned in (against, tried):
            self._blaming(tried, tuned, self._bench.start)
        self._bench.quiet()
        while len(pairs.tried) < wanted:
            # Which goes first changes with every pair: the second may profit from the first, or suffer.
            first, second = (against, tried) if len(pairs.tried) % 2 == 0 else (tried, against)
            samples = {one: self._blaming(tried, one, self._bench.sample) for one in (first, second)}
            self._taken += 1
            if not self._bench.quiet():
                self._disturbed += 1
                if retakes > 0:
                    retakes -= 1
                    pairs.retaken += 1
                    continue
            pairs.against.append(samples[against])
            pairs.tried.append(samples[tried])
            if len(pairs.tried) - started >= 2 and pairs.hopeless(self._workload):
                return

    def _blaming(self, tried: Tuned, tuned: Tuned, act: Callable[[Tuned], T]) -> T:
        """What `act` does with `tuned`; only what is on trial may fail."""
        try:
            return act(tuned)
        except EngineError as error:
            if tuned == tried:
                raise _Failed(error.message) from error
            raise

    def _judged(self, trial: Trial, pairs: _Pairs, *, certain: bool) -> Trial:
        speed = pairs.speed(self._workload)
        verdict: Verdict = "not faster"
        if certain and speed.certain and speed.middle >= 1 + LEAST_GAIN:
            verdict = "faster"
        elif (speed.high if speed.high is not None else speed.middle) < _HOPELESS:
            verdict = "slower"
        pp_tok_s, tg_tok_s = _rates(pairs.tried)
        against_pp_tok_s, against_tg_tok_s = _rates(pairs.against)
        return replace(
            trial,
            verdict=verdict,
            pairs=len(pairs.tried),
            retaken=pairs.retaken,
            pp_tok_s=pp_tok_s,
            tg_tok_s=tg_tok_s,
            against_pp_tok_s=against_pp_tok_s,
            against_tg_tok_s=against_tg_tok_s,
            speed=speed,
        )


def _rates(samples: Sequence[Sample]) -> tuple[float, float]:
    """PP and TG in tokens per second."""
    return (
        1 / median(sample.prompt_token_s for sample in samples),
        1 / median(sample.answer_token_s for sample in samples),
    )
